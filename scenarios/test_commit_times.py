"""Which LSN belongs to a time: commit records say it, whenever and wherever they arrive."""

from __future__ import annotations

from contextlib import AsyncExitStack

import pytest

from harness.cluster import Cluster
from harness.collecting import SMALL_LAYERS
from harness.endpoint_handle import EndpointHandle
from harness.nodes import PageserverHandle
from harness.storage_taps import commit_times, wal_bytes
from harness.topology import Topology
from harness.walgen import timeline_spec
from harness.world import World
from storage.ids import TenantTimelineId
from storage.lsn import Lsn

COMMITS = 10


async def told(cluster: Cluster, primary: EndpointHandle, end: Lsn) -> list[tuple[Lsn, int]]:
    """Every commit with its time, from the WAL itself. A clock that goes back counts as standing
    still."""
    spec = timeline_spec(cluster, primary.timeline)
    wal = await wal_bytes(cluster.safekeeper(0), primary.timeline, spec.start_lsn, end)
    found = commit_times(
        wal, spec.start_lsn, pg_version=spec.pg_version, wal_segment_size=spec.wal_segment_size
    )
    commits: list[tuple[Lsn, int]] = []
    for lsn, time_us in found:
        commits.append((lsn, max(time_us, commits[-1][1] if commits else time_us)))
    return commits


async def explains(
    pageserver: PageserverHandle,
    timeline: TenantTimelineId,
    commits: list[tuple[Lsn, int]],
    first: Lsn,
) -> None:
    """Each time around each commit belongs to the last commit that is not younger."""
    shown = await pageserver.timeline(timeline)
    for at_us in sorted({time_us + more for _, time_us in commits for more in (-1, 0)}):
        older = [lsn for lsn, time_us in commits if time_us <= at_us]
        if not older or older[-1] < first:
            wanted = ("past", first)
        elif len(older) == len(commits):
            wanted = ("future", shown.last_record_lsn)
        else:
            wanted = ("present", older[-1])
        assert await pageserver.lsn_by_timestamp(timeline, at_us) == wanted, at_us


@pytest.mark.row("P3.timestamps")
@pytest.mark.computes("walgen", reason="PostgreSQL's commits are read from its WAL by nobody else")
async def test_time_of_a_commit_is_not_when_it_arrived(world: World) -> None:
    """WAL that comes late, all at once, is as old as its commits; also after a restart, on a
    branch, and behind the cutoff of garbage collection."""
    cluster = await world.start(
        Topology(
            pageserver_options={**SMALL_LAYERS, "checkpoint_distance": 2048},
            compute_options={"commit_timestamps": True},
        )
    )
    primary = await cluster.endpoint("main")
    home, timeline = cluster.pageserver(0), primary.timeline
    start = (await home.timeline(timeline)).last_record_lsn
    assert await home.lsn_by_timestamp(timeline, 1) == ("nodata", start)
    await primary.put(0, "first")

    async with AsyncExitStack() as cuts:
        for safekeeper in cluster.safekeepers:
            await cuts.enter_async_context(world.faults.partition("ps0", safekeeper.name))
        for number in range(COMMITS):
            await primary.put(0, f"commit {number}")
    commits = await told(cluster, primary, await cluster.caught_up(home, timeline))
    assert len(commits) == COMMITS + 1
    assert commits[0][1] < commits[-1][1]
    await explains(home, timeline, commits, start)

    await home.checkpoint(timeline)
    await home.kill(host=True)
    await home.start()
    await cluster.caught_up(home, timeline)
    await explains(home, timeline, commits, start)

    at = commits[4][0]
    branch = await cluster.branch(timeline, at=at)
    assert await home.lsn_by_timestamp(branch, commits[4][1]) == ("future", at)
    assert await home.lsn_by_timestamp(branch, commits[0][1] - 1) == ("past", at)
