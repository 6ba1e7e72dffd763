"""Nodes that are asked to end, whoever is connected to them (B2), and what connections leave (B3).

A listener must not wait for one more connection, nor for those that are idle, nor for a client that
never reads what it asked for.
"""

from __future__ import annotations

import asyncio

import pytest

from harness.crowds import CROWDS, come_and_go
from harness.errors import NotYet
from harness.nodes import NodeHandle
from harness.topology import Topology
from harness.world import World
from storage.ids import TenantTimelineId

ENDS_WITHIN_S = 2.0
ATTEMPTS = 3
"""Other work on the machine delays a process now and then; a client that holds it always does."""
CONNECTIONS = 400
"""The whole 10,000 are in ``storage/tests/test_wire_sessions.py`` and ``real/tests``."""


@pytest.mark.row("B2.listener", "B2.sigterm")
@pytest.mark.computes("walgen", reason="it is about the nodes of the storage")
@pytest.mark.parametrize("clients", CROWDS)
async def test_node_ends_whoever_is_connected(world: World, clients: str) -> None:
    """Asked to end, it is gone within two seconds; the next incarnation serves."""
    cluster = await world.start(Topology())
    endpoint = await cluster.endpoint("main")
    await endpoint.put(1, "before")
    for node in (cluster.safekeeper(0), cluster.pageserver(0)):
        took_s = [await end_of(node, endpoint.timeline, clients)]
        while took_s[-1] > ENDS_WITHIN_S and len(took_s) < ATTEMPTS:
            took_s.append(await end_of(node, endpoint.timeline, clients))
        assert took_s[-1] <= ENDS_WITHIN_S, f"{node.name} with {clients}: {took_s} s"
    await endpoint.put(1, "after")
    assert await endpoint.get(1) == "after"


async def end_of(node: NodeHandle, timeline: TenantTimelineId, clients: str) -> float:
    """How long the node takes to end while they are connected, in seconds; it comes back."""
    connected = await CROWDS[clients](node, timeline)
    began_s = asyncio.get_running_loop().time()
    await node.stop()
    took_s = asyncio.get_running_loop().time() - began_s
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
            numbers = range(first, first + 50)
            await asyncio.gather(*(come_and_go(node, endpoint.timeline, n) for n in numbers))

        async def forgotten(node: NodeHandle = node, before: int = before) -> None:
            if (now := await sessions(node)) != before:
                raise NotYet(f"{node.name} has {now}, not {before}")

        await world.eventually(forgotten, what="the registry is as before")
    assert await endpoint.get(1) == "before"


async def sessions(node: NodeHandle) -> int:
    """Connections of the libpq service that the registry knows."""
    return sum(task["kind"] == "wire_connection" for task in await node.tasks())
