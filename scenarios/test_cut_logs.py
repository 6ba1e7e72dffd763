"""A member dies while its log is cut for a new leader: what is left is a log that was, or the cut.

What could go wrong: half a cut leaves a hole, stale records beyond the new end, or a term history
that claims bytes of another term; then the next election loses or invents commits.
"""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack

import pytest

from harness.cluster import Cluster
from harness.endpoint_handle import EndpointHandle
from harness.errors import NotYet
from harness.nodes import SafekeeperHandle
from harness.patience import until_ended
from harness.topology import Topology
from harness.wal_waits import level
from harness.world import World

PLACES = (
    "sk-before-truncate",
    "sk-within-truncate",
    "sk-after-truncate",
    "sk-before-control-save",
)


async def leave_a_tail(world: World, endpoint: EndpointHandle, member: SafekeeperHandle) -> None:
    """The compute dies with WAL that only one member has."""
    before = await member.timeline(endpoint.timeline)
    async with AsyncExitStack() as stack:
        for name in ("sk1", "sk2"):
            await stack.enter_async_context(world.faults.partition(endpoint.name, name))
        puts = [asyncio.create_task(endpoint.put(10 + i, f"lost {i}" * 20)) for i in range(8)]

        async def longer() -> None:
            if (await member.timeline(endpoint.timeline)).flush_lsn < before.flush_lsn + 1000:
                raise NotYet("nothing has arrived")

        await world.eventually(longer)
        await endpoint.kill()
    await asyncio.gather(*puts, return_exceptions=True)


@pytest.mark.row("P1.truncation", "P1.control")
@pytest.mark.computes("walgen", reason="PostgreSQL tells no LSN to wait for")
@pytest.mark.parametrize("place", PLACES)
async def test_member_dies_while_its_log_is_cut(world: World, place: str) -> None:
    """Elected without it, the next leader cuts its tail; it dies at that, comes back, and again."""
    cluster = await world.start(Topology())
    endpoint = await cluster.endpoint("main")
    await endpoint.put(1, "a")
    member = cluster.safekeeper(0)
    await leave_a_tail(world, endpoint, member)
    await elect_without(world, cluster, endpoint, place)

    await member.start()
    lsn = await endpoint.put(3, "c")
    assert lsn is not None
    await level(cluster, endpoint.timeline, lsn)
    await member.kill(host=True)
    await member.start()
    await endpoint.put(4, "d")


async def elect_without(
    world: World, cluster: Cluster, endpoint: EndpointHandle, place: str
) -> None:
    """A leader that knows nothing of the tail reaches its owner, who dies of it."""
    member = cluster.safekeeper(0)
    async with world.faults.partition(endpoint.name, member.name):
        await endpoint.start()
        await endpoint.put(2, "b")
        await member.arm(place, "exit")
    await until_ended(world, member)
