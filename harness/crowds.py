"""Clients that sit on a node's libpq port in the ways that hold bad servers up.

They speak just enough of the protocol to be taken for a session; nothing they do is recorded.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress

from harness.nodes import PAGESERVER_LIBPQ_PORT, SAFEKEEPER_LIBPQ_PORT, NodeHandle, SafekeeperHandle
from storage.ids import TenantTimelineId
from storage.wire import messages as m
from storage.wire.codec import Connection
from storage.wire.states import Sender

IDLE = 100
PIECE = 2000
FULL_S = 0.5
"""Whoever takes nothing for so long takes nothing any more."""

Streams = tuple[asyncio.StreamReader, asyncio.StreamWriter]


def libpq_port(node: NodeHandle) -> int:
    """Where a storage node's libpq service is."""
    return SAFEKEEPER_LIBPQ_PORT if isinstance(node, SafekeeperHandle) else PAGESERVER_LIBPQ_PORT


async def session(node: NodeHandle, timeline: TenantTimelineId) -> Streams:
    """A connection that has said who it is, and for which timeline."""
    settings = f"-c tenant_id={timeline.tenant_id} -c timeline_id={timeline.timeline_id}"
    reader, writer = await asyncio.open_connection(node.name, libpq_port(node))
    startup = m.Startup({"user": "u", "options": settings})
    writer.write(Connection(Sender.CLIENT).encode(startup))
    await reader.readexactly(1)
    return reader, writer


async def nobody(node: NodeHandle, timeline: TenantTimelineId) -> list[Streams]:
    """No client at all."""
    return []


async def many_idle(node: NodeHandle, timeline: TenantTimelineId) -> list[Streams]:
    """Clients that have nothing to say."""
    return [await session(node, timeline) for _ in range(IDLE)]


async def one_that_never_reads(node: NodeHandle, timeline: TenantTimelineId) -> list[Streams]:
    """A client that asks, and asks, until nobody takes its questions any more."""
    reader, writer = await session(node, timeline)
    command = "SHOW wal_segment_size" if isinstance(node, SafekeeperHandle) else "status"
    text = command.encode() + b"\0"
    question = b"Q" + (len(text) + 4).to_bytes(4, "big") + text
    with suppress(TimeoutError):
        while True:
            writer.write(question * PIECE)
            async with asyncio.timeout(FULL_S):
                await writer.drain()
    return [(reader, writer)]


CROWDS: dict[str, Callable[[NodeHandle, TenantTimelineId], Awaitable[list[Streams]]]] = {
    "nobody": nobody,
    "many_idle": many_idle,
    "one_that_never_reads": one_that_never_reads,
}


async def come_and_go(node: NodeHandle, timeline: TenantTimelineId, number: int) -> None:
    """One connection, in one of several manners."""
    if number % 3 == 0:
        _, writer = await asyncio.open_connection(node.name, libpq_port(node))
    else:
        _, writer = await session(node, timeline)
    if number % 3 == 1:
        writer.transport.abort()
    writer.close()
