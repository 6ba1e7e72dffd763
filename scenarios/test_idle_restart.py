"""All storage nodes restart, and most timelines are idle: nobody connects for nothing.

A safekeeper that has forgotten how far S3 is believes that its idle timelines lack something, and
every pageserver has to connect for each of them only to say that it does not. The control file is
therefore saved once in a while although nothing in it needs immediate durability.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import pytest

from harness.cluster import Cluster
from harness.errors import NotYet
from harness.patience import when_ready
from harness.topology import Topology
from harness.world import World
from storage.ids import TenantTimelineId

TIMELINES = {"sim": 50, "real": 20}
"""Each has a compute, which is a process in real."""
AT_ONCE = 10
ROUND = "sk-control-files-round"
POSITIONS = "seawall/timeline/"
NEVER_S = 100_000.0
BUSY_S = 180.0
"""Fifty tenants at once take their time on a busy machine."""


async def at_once(cluster: Cluster, work: Callable[[int], Awaitable[None]]) -> None:
    """``work`` for the number of each timeline, some of them at a time."""
    numbers = range(len(cluster.timelines))
    for first in numbers[::AT_ONCE]:
        await asyncio.gather(*(work(number) for number in numbers[first : first + AT_ONCE]))


async def fill_with_idle_timelines(cluster: Cluster) -> None:
    """Each is written to, has its control file saved, and only then is uploaded and left."""
    for _ in range(TIMELINES[cluster.world.name]):
        await cluster.create_tenant()
    await at_once(cluster, lambda number: write_and_leave(cluster, number))


async def write_and_leave(cluster: Cluster, number: int) -> None:
    """What the control file says of S3 is too little from the upload on, until it is saved again.

    Setting ``backup_lsn`` to what it is already only saves the file, as an election would.
    """
    timeline, home = cluster.timelines[number], cluster.pageserver(0)
    endpoint = await cluster.endpoint(f"compute{number}", timeline=timeline)
    await endpoint.put(number, "a")
    await cluster.caught_up(home, timeline)
    backup_lsn = (await cluster.safekeeper(0).timeline(timeline)).backup_lsn
    for safekeeper in cluster.safekeepers:
        await safekeeper.patch_backup_lsn(timeline, backup_lsn)
    await home.checkpoint(timeline)
    await endpoint.kill()


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
    cluster.world.backend.broker.expire_leases(POSITIONS)
    assert await cluster.world.backend.admin_broker().get(POSITIONS) == {}
    await asyncio.gather(*(node.start() for node in cluster.nodes))


async def start_again(cluster: Cluster, number: int) -> None:
    """A compute whose acknowledged commit is read back at the end."""
    endpoint = cluster.endpoints[f"compute{number}"]
    if not endpoint.running:
        await endpoint.start()


@pytest.mark.row("F1.idle", "F1.spike")
@pytest.mark.computes("walgen", reason="dozens of instances of PostgreSQL")
@pytest.mark.parametrize("saves", [True, False], ids=["saved now and then", "not saved"])
async def test_restart_with_idle_timelines(world: World, saves: bool) -> None:
    """Counts the connections from pageserver to safekeepers, with the feature and without."""
    saving = {"control_file_save_s": 0.5 if saves else NEVER_S}
    uploads = {"checkpoint_timeout_s": NEVER_S}
    cluster = await world.start(Topology(safekeeper_options=saving, pageserver_options=uploads))
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
    world.report(timelines=timelines, streams_after_restart=connected)
    if saves:
        assert connected <= 5, f"{connected} streams for {timelines} idle timelines"
    else:
        assert connected >= timelines, f"{connected} streams: what does the feature save?"
    await at_once(cluster, lambda number: start_again(cluster, number))
