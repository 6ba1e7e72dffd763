"""Streams and subscriptions whose other end is gone without a word, and a broker that is away.

What could go wrong: a safekeeper believes that a dead machine still streams and does not call the
one that came back; or WAL written while the broker was away is never asked for.
"""

from __future__ import annotations

import pytest

from harness.cluster import Cluster
from harness.endpoint_handle import EndpointHandle
from harness.errors import NotYet
from harness.topology import Discovery, Topology
from harness.wal_waits import level
from harness.world import World

IMPATIENT = {"silence_max_s": 3.0, "heartbeat_s": 0.5, "broker_publish_s": 0.5}

pytestmark = pytest.mark.computes("walgen", reason="PostgreSQL writes WAL when nobody asks it to")


async def start(world: World, discovery: Discovery) -> tuple[Cluster, EndpointHandle]:
    """A cluster, and a compute that has written something."""
    cluster = await world.start(Topology(discovery=discovery, safekeeper_options=IMPATIENT))
    endpoint = await cluster.endpoint("main")
    await endpoint.put(1, "a")
    await cluster.caught_up(cluster.pageserver(0), endpoint.timeline)
    return cluster, endpoint


async def settle_commit(cluster: Cluster, endpoint: EndpointHandle) -> None:
    """The last commit is known to every safekeeper, so that only a pageserver lacks it."""
    lsn = await endpoint.put(2, "c")
    assert lsn is not None
    await level(cluster, endpoint.timeline, lsn)


async def check_idle(cluster: Cluster, endpoint: EndpointHandle) -> None:
    """``NotYet`` while a safekeeper has anything to do for the timeline."""
    for safekeeper in cluster.safekeepers:
        if (await safekeeper.timeline(endpoint.timeline)).active:
            raise NotYet(f"{safekeeper.name} is active")


@pytest.mark.parametrize("discovery", ["broker", "callmemaybe"])
async def test_machine_of_the_reader_dies_without_a_word(
    world: World, discovery: Discovery
) -> None:
    """The stream is half open; the pageserver that comes back must be served all the same."""
    cluster, endpoint = await start(world, discovery)
    pageserver = cluster.pageserver(0)
    await pageserver.kill(host=True)
    await endpoint.put(1, "b")
    await settle_commit(cluster, endpoint)
    await endpoint.kill()

    await pageserver.start()
    await cluster.caught_up(pageserver, endpoint.timeline)
    await endpoint.start()


@pytest.mark.row("A2.pauses")
async def test_subscription_is_cut_in_the_middle(world: World) -> None:
    """Neither side hears of the other for a while; afterwards the safekeepers call again."""
    cluster, endpoint = await start(world, "callmemaybe")
    names = [each.name for each in cluster.safekeepers]
    async with world.faults.isolate("ps0", names):
        await endpoint.put(1, "b")
        for safekeeper in cluster.safekeepers:
            await safekeeper.restart()
        await settle_commit(cluster, endpoint)
        await endpoint.stop()
    await cluster.caught_up(cluster.pageserver(0), endpoint.timeline)
    await endpoint.start()


@pytest.mark.parametrize("discovery", ["broker", "callmemaybe"])
async def test_idle_timeline_comes_back_while_the_broker_is_away(
    world: World, discovery: Discovery
) -> None:
    """It goes inactive, then its compute returns and writes; callmemaybe needs no broker at all."""
    cluster, endpoint = await start(world, discovery)
    pageserver = cluster.pageserver(0)
    await pageserver.checkpoint(endpoint.timeline)
    await endpoint.stop()
    await world.eventually(lambda: check_idle(cluster, endpoint), within_s=60.0)

    async with world.faults.broker_outage():
        if discovery == "callmemaybe":
            await endpoint.start()
            await endpoint.put(2, "b")
            await cluster.caught_up(pageserver, endpoint.timeline)
    if discovery == "broker":
        await endpoint.start()
    await endpoint.put(3, "c")
    await cluster.caught_up(pageserver, endpoint.timeline)
