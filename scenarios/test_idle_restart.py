"""All storage nodes restart, and most timelines are idle: nobody connects for nothing.

A safekeeper that has forgotten how far S3 is believes that its idle timelines lack something, and
every pageserver has to connect for each of them only to say that it does not. The control file is
therefore saved once in a while although nothing in it needs immediate durability.
"""

from __future__ import annotations

import asyncio

import pytest

from harness.cluster import Cluster
from harness.endpoint_handle import EndpointHandle
from harness.errors import NotYet
from harness.patience import when_ready
from harness.topology import Topology
from harness.world import World
from storage.ids import TenantTimelineId

TIMELINES = {"sim": 50, "real": 20}
"""Each has a compute, which is a process in real."""
AT_ONCE = 10
ROUND = "sk-control-files-round"
NEVER_S = 100_000.0
BUSY_S = 180.0
"""Fifty tenants at once take their time on a busy machine."""


async def fill_with_idle_timelines(cluster: Cluster) -> None:
    """Each is written to, has an election, which saves its control file, is uploaded, and left."""
    count = TIMELINES[cluster.world.name]
    for _ in range(count):
        await cluster.create_tenant()
    for first in range(0, count, AT_ONCE):
        numbers = range(first, first + AT_ONCE)
        async with cluster.world.faults.object_store_outage():
            endpoints = await asyncio.gather(*(elect_twice(cluster, n) for n in numbers))
        await asyncio.gather(*(leave(cluster, endpoint) for endpoint in endpoints))


async def elect_twice(cluster: Cluster, number: int) -> EndpointHandle:
    """The control file that the second election saves knows a commit that is not in S3."""
    timeline = cluster.timelines[number]
    endpoint = await cluster.endpoint(f"compute{number}", timeline=timeline)
    await endpoint.put(number, "a")
    await cluster.caught_up(cluster.pageserver(0), timeline)
    await endpoint.restart()
    return endpoint


async def leave(cluster: Cluster, endpoint: EndpointHandle) -> None:
    """Everything is in S3, and the compute goes."""
    await cluster.pageserver(0).checkpoint(endpoint.timeline)
    await endpoint.stop()


async def check_idle(cluster: Cluster, *, but: TenantTimelineId | None = None) -> None:
    """``NotYet`` while a safekeeper believes that a timeline needs it."""
    for safekeeper in cluster.safekeepers:
        for timeline in cluster.timelines:
            if timeline != but and (await safekeeper.timeline(timeline)).active:
                raise NotYet(f"{timeline} is active on {safekeeper.name}")


async def save_rounds(cluster: Cluster, rounds: int) -> None:
    """Wait until every safekeeper has saved its control files so many times."""
    for safekeeper in cluster.safekeepers:
        await safekeeper.arm(ROUND, "sleep", delay_s=0.001)

    async def enough() -> None:
        for safekeeper in cluster.safekeepers:
            if (await safekeeper.failpoint(ROUND))["hits"] < rounds:
                raise NotYet(f"{safekeeper.name} has not saved {rounds} times")

    await cluster.world.eventually(enough)


def streams(world: World) -> int:
    """How often a pageserver has begun to stream from a safekeeper."""
    return sum(
        event.kind == "walreceiver" and event.fields["state"] == "streaming"
        for event in world.backend.events()
    )


async def restart_all(cluster: Cluster) -> None:
    """Every storage node crashes, and comes back when the broker has forgotten what it said."""
    for node in cluster.nodes:
        await node.kill()

    async def forgotten() -> None:
        found = await cluster.world.backend.admin_broker().get("seawall/timeline/")
        if found:
            raise NotYet(f"the broker still knows {len(found)} positions")

    await cluster.world.eventually(forgotten)
    await asyncio.gather(*(node.start() for node in cluster.nodes))


@pytest.mark.row("F1.idle", "F1.spike")
@pytest.mark.computes("walgen", reason="dozens of instances of PostgreSQL")
@pytest.mark.parametrize("saves", [True, False], ids=["saved now and then", "not saved"])
async def test_restart_with_idle_timelines(world: World, saves: bool) -> None:
    """Counts the connections from pageserver to safekeepers, with the feature and without."""
    options = {"control_file_save_s": 0.5 if saves else NEVER_S}
    cluster = await world.start(Topology(safekeeper_options=options))
    await fill_with_idle_timelines(cluster)
    await world.eventually(lambda: check_idle(cluster), within_s=BUSY_S)
    if saves:
        await save_rounds(cluster, 2)
    before = streams(world)
    await restart_all(cluster)

    probe = cluster.endpoints["compute0"]
    home = cluster.pageserver(0)
    await when_ready(world, lambda: home.timeline(probe.timeline), within_s=BUSY_S)
    await probe.start()
    timelines = len(cluster.timelines)
    await probe.put(timelines, "b")
    await cluster.caught_up(home, probe.timeline)
    await world.eventually(lambda: check_idle(cluster, but=probe.timeline), within_s=BUSY_S)
    connected = streams(world) - before
    world.backend.note("figure", {"streams_after_restart": connected, "timelines": timelines})
    if saves:
        assert connected <= 5, f"{connected} streams for {timelines} idle timelines"
    else:
        assert connected >= timelines, f"{connected} streams: what does the feature save?"
    for name, endpoint in cluster.endpoints.items():
        if name != "compute0":
            await endpoint.start()
