"""Two tasks on two hosts exchange small messages over asyncio streams."""

from __future__ import annotations

import asyncio

PORT = 7000
MESSAGE = b"ping-pong message of 32 bytes..\n"


async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Send every message back until the peer is done."""
    size = len(MESSAGE)
    try:
        while True:
            writer.write(await reader.readexactly(size))
            await writer.drain()
    except asyncio.IncompleteReadError:
        writer.close()


async def serve(name: str) -> None:
    """Listen as the host of this task."""
    await asyncio.start_server(answer, name, PORT)
    await asyncio.get_running_loop().create_future()


async def play(name: str, rounds: int) -> int:
    """Send ``rounds`` messages, each after the answer to the last; returns messages one way."""
    reader, writer = await asyncio.open_connection(name, PORT)
    size = len(MESSAGE)
    for _ in range(rounds):
        writer.write(MESSAGE)
        await writer.drain()
        answered = await reader.readexactly(size)
        assert answered == MESSAGE, f"{answered!r} came back"
    writer.close()
    return 2 * rounds
