"""Nodes that are asked to end, whoever is connected to them (B2), and what connections leave (B3).

A listener must not wait for one more connection, nor for those that are idle, nor for a client that
never reads what it asked for.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress

import pytest

from harness.errors import NotYet
from harness.nodes import PAGESERVER_LIBPQ_PORT, SAFEKEEPER_LIBPQ_PORT, NodeHandle
from harness.topology import Topology
from harness.world import World
from storage.wire import messages as m
from storage.wire.codec import Connection
from storage.wire.states import Sender

ENDS_WITHIN_S = 2.0
ATTEMPTS = 3
"""Other work on the machine delays a process now and then; a client that holds it always does."""
IDLE = 100
CONNECTIONS = 400
"""The whole 10,000 are in ``storage/tests/test_wire_sessions.py`` and ``real/tests``."""
LIBPQ_PORTS = {"sk0": SAFEKEEPER_LIBPQ_PORT, "ps0": PAGESERVER_LIBPQ_PORT}
COMMANDS = {"sk0": "SHOW wal_segment_size", "ps0": "status"}
PIECE = 2000

Streams = tuple[asyncio.StreamReader, asyncio.StreamWriter]
SETTINGS = f"-c tenant_id={'1' * 32} -c timeline_id={'2' * 32}"


async def session(node: str) -> Streams:
    """A connection that has said who it is."""
    reader, writer = await asyncio.open_connection(node, LIBPQ_PORTS[node])
    startup = m.Startup({"user": "u", "options": SETTINGS})
    writer.write(Connection(Sender.CLIENT).encode(startup))
    await reader.readexactly(1)
    return reader, writer


async def nobody(node: str) -> list[Streams]:
    """No client at all."""
    return []


async def many_idle(node: str) -> list[Streams]:
    """Clients that have nothing to say."""
    return [await session(node) for _ in range(IDLE)]


async def one_that_never_reads(node: str) -> list[Streams]:
    """A client that asks, and asks, until nobody takes its questions any more."""
    reader, writer = await session(node)
    text = COMMANDS[node].encode() + b"\0"
    question = b"Q" + (len(text) + 4).to_bytes(4, "big") + text
    with suppress(TimeoutError):
        while True:
            writer.write(question * PIECE)
            async with asyncio.timeout(0.5):
                await writer.drain()
    return [(reader, writer)]


CLIENTS: dict[str, Callable[[str], Awaitable[list[Streams]]]] = {
    "nobody": nobody,
    "many_idle": many_idle,
    "one_that_never_reads": one_that_never_reads,
}


@pytest.mark.row("B2.listener", "B2.sigterm")
@pytest.mark.computes("walgen", reason="it is about the nodes of the storage")
@pytest.mark.parametrize("clients", CLIENTS)
async def test_node_ends_whoever_is_connected(world: World, clients: str) -> None:
    """Asked to end, it is gone within two seconds; the next incarnation serves."""
    cluster = await world.start(Topology())
    endpoint = await cluster.endpoint("main")
    await endpoint.put(1, "before")
    for node in (cluster.safekeeper(0), cluster.pageserver(0)):
        took_s = [await end_of(world, node, clients)]
        while took_s[-1] > ENDS_WITHIN_S and len(took_s) < ATTEMPTS:
            took_s.append(await end_of(world, node, clients))
        assert took_s[-1] <= ENDS_WITHIN_S, f"{node.name} with {clients}: {took_s} s"
    await endpoint.put(1, "after")
    assert await endpoint.get(1) == "after"


async def end_of(world: World, node: NodeHandle, clients: str) -> float:
    """How long the node takes to end while they are connected, in seconds; it comes back."""
    connected = await CLIENTS[clients](node.name)
    began_s = world.now_s()
    await node.stop()
    took_s = world.now_s() - began_s
    for _, writer in connected:
        writer.transport.abort()
    await node.start()
    return took_s


@pytest.mark.row("B1.leak", "B3.dropped")
@pytest.mark.computes("walgen", reason="it is about the nodes of the storage")
async def test_connections_leave_nothing(world: World) -> None:
    """Short ones, ones that break off and ones that never say a word: the registry forgets all."""
    cluster = await world.start(Topology())
    endpoint = await cluster.endpoint("main")
    await endpoint.put(1, "before")
    for node in (cluster.safekeeper(0), cluster.pageserver(0)):
        before = await sessions(node)
        for first in range(0, CONNECTIONS, 50):
            some = [asyncio.create_task(come_and_go(node.name, first + i)) for i in range(50)]
            await asyncio.gather(*some)

        async def forgotten(node: NodeHandle = node, before: list[str] = before) -> None:
            if (now := await sessions(node)) != before:
                raise NotYet(f"{node.name} has {now}, not {before}")

        await world.eventually(forgotten, what="the registry is as before")
    assert await endpoint.get(1) == "before"


async def come_and_go(node: str, number: int) -> None:
    """One connection, in one of several manners."""
    if number % 3 == 0:
        _, writer = await asyncio.open_connection(node, LIBPQ_PORTS[node])
    else:
        _, writer = await session(node)
    if number % 3 == 1:
        writer.transport.abort()
    writer.close()


async def sessions(node: NodeHandle) -> int:
    """Connections of the libpq service that the registry knows."""
    return sum(task["kind"] == "wire_connection" for task in await node.tasks())
