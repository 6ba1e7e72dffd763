"""The Postgres frontend/backend protocol, version 3: sans-I/O codec, asyncio server and client."""
