"""What the hub costs: the same two servers reached through it and past it.

``python -m harness bench links`` prints the figures; MB are 10⁶ bytes.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any, cast

from harness.backend import NodeSpec
from real.backend import RealBackend, RealOptions
from real.loop import NamedHostLoop
from real.node_main import NodePlan
from real.servers import free_port
from real.session import RealSession
from storage.node import NodeContext, NodeMain
from storage.ports import Ports

PORT = 7000
PIECE_BYTES = 1 << 20
PIECES = 400
ROUND_TRIPS = 10_000
DIALS = 1_000
_OPTIONS = RealOptions(roles="real.bench_links:ROLES", ports="real.bench_links:no_ports")
_Streams = tuple[asyncio.StreamReader, asyncio.StreamWriter]


@asynccontextmanager
async def no_ports(plan: NodePlan, entropy: random.Random) -> AsyncIterator[Ports]:
    """The servers here use the network alone."""
    nothing = cast(Any, None)
    yield Ports(nothing, nothing, nothing, nothing, entropy)


async def echo(context: NodeContext) -> None:
    """After the line ``bulk``, swallows every piece and answers one byte; else echoes lines."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if await reader.readline() == b"bulk\n":
            for _ in range(PIECES):
                await reader.readexactly(PIECE_BYTES)
            writer.write(b".")
        else:
            while line := await reader.readline():
                writer.write(line)
        writer.close()

    named = await asyncio.start_server(serve, context.name, PORT, limit=PIECE_BYTES)
    direct = await asyncio.start_server(
        serve, "127.0.0.1", context.options["direct_port"], limit=PIECE_BYTES
    )
    context.ready.set()
    await context.stopping.wait()
    named.close()
    direct.close()


ROLES: Mapping[str, NodeMain] = {"echo": echo}


async def _megabytes_per_s(streams: _Streams) -> float:
    reader, writer = streams
    writer.write(b"bulk\n")
    piece = bytes(PIECE_BYTES)
    started_s = time.perf_counter()
    for _ in range(PIECES):
        writer.write(piece)
        await writer.drain()
    await reader.readexactly(1)
    return PIECES * PIECE_BYTES / 1e6 / (time.perf_counter() - started_s)


async def _round_trips_per_s(streams: _Streams) -> float:
    reader, writer = streams
    writer.write(b"lines\n")
    started_s = time.perf_counter()
    for _ in range(ROUND_TRIPS):
        writer.write(b"ping\n")
        await reader.readline()
    return ROUND_TRIPS / (time.perf_counter() - started_s)


async def _measure(host: str, port: int) -> dict[str, int]:
    found: dict[str, int] = {}
    for name, run in (("mb_per_s", _megabytes_per_s), ("round_trips_per_s", _round_trips_per_s)):
        streams = await asyncio.open_connection(host, port)
        found[name] = round(await run(streams))
        streams[1].close()
    started_s = time.perf_counter()
    for _ in range(DIALS):
        _, writer = await asyncio.open_connection(host, port)
        writer.close()
    found["dials_per_s"] = round(DIALS / (time.perf_counter() - started_s))
    return found


async def _bench(session: RealSession, direct_port: int) -> dict[str, Any]:
    backend = RealBackend(session, _OPTIONS)
    try:
        await backend.spawn(NodeSpec("server", "echo", {"direct_port": direct_port}))
        await backend.wait_ready("server", within_s=10)
        direct = await _measure("127.0.0.1", direct_port)
        return {"bench": "links", "direct": direct, "hub": await _measure("server", PORT)}
    finally:
        await backend.close()


def bench() -> Mapping[str, Any]:
    """Throughput, round trips and connections per second, direct and through the hub."""
    session = RealSession(["real.bench_links"], with_services=False)
    try:
        with asyncio.Runner(loop_factory=NamedHostLoop) as runner:
            return runner.run(_bench(session, free_port()))
    finally:
        session.close()
