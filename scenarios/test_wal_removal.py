"""WAL leaves a safekeeper's disk when pageserver, peers and S3 all have it, and not before.

What could go wrong: WAL goes while one of the three still lacks it, or never goes; or somebody
needs old WAL afterwards and it cannot be read back from S3.
"""

from __future__ import annotations

import pytest

from harness.cluster import Cluster
from harness.endpoint_handle import EndpointHandle
from harness.errors import NotYet
from harness.filling import fill_wal, offload_by_hand
from harness.topology import KIB, MIB, Topology
from harness.wal_waits import backed_up, level, removed, running_members
from harness.world import World
from storage.lsn import Lsn

BUSY = {
    "wal_removal_s": 0.5, "control_file_save_s": 0.5, "broker_publish_s": 0.3,
    "backup_lease_s": 2.0, "backup_retry_s": 0.2, "recent_wal_bytes": 64 * KIB,
}  # fmt: skip
UPLOADS = {"checkpoint_distance": 256 * KIB, "checkpoint_timeout_s": 2.0}
ROUNDS = 6
LOOKS = "sk-before-wal-removal"

pytestmark = pytest.mark.computes("walgen", reason="PostgreSQL tells no LSN to wait for")


def topology(**safekeeper: float) -> Topology:
    """Everything that frees WAL happens soon, but what the options say."""
    return Topology(safekeeper_options={**BUSY, **safekeeper}, pageserver_options=UPLOADS)


async def looked_often(cluster: Cluster) -> None:
    """Wait until every safekeeper has looked for WAL to remove several times."""
    members = running_members(cluster)
    for each in members:
        await each.arm(LOOKS, "sleep", delay_s=0.001)

    async def often() -> None:
        for each in members:
            if (await each.failpoint(LOOKS))["hits"] < ROUNDS:
                raise NotYet(f"{each.name} has not looked {ROUNDS} times")

    await cluster.world.eventually(often)


async def check_nothing_removed(cluster: Cluster, endpoint: EndpointHandle) -> None:
    """After looking for it again and again, every safekeeper still has the first segment."""
    await looked_often(cluster)
    for each in running_members(cluster):
        state = await each.timeline(endpoint.timeline)
        assert state.oldest_segment == state.timeline_start_lsn // MIB, each.name


async def remote_has(cluster: Cluster, endpoint: EndpointHandle, lsn: Lsn) -> None:
    """Wait until every safekeeper knows that a pageserver has WAL up to ``lsn`` in S3."""

    async def known() -> None:
        for each in running_members(cluster):
            state = await each.timeline(endpoint.timeline)
            if state.remote_consistent_lsn < lsn:
                raise NotYet(f"{each.name} knows {state.remote_consistent_lsn} of {lsn}")

    await cluster.world.eventually(known, within_s=60.0)


async def test_wal_goes_and_can_be_read_back(world: World) -> None:
    """Bytes that are only in S3 are the bytes that were on the disks."""
    cluster = await world.start(topology())
    endpoint = await cluster.endpoint("main")
    begin_lsn = await fill_wal(endpoint, MIB // 2)
    middle_lsn = await fill_wal(endpoint, MIB)
    await level(cluster, endpoint.timeline, middle_lsn)
    before = await cluster.safekeeper(0).digest(endpoint.timeline, begin_lsn, middle_lsn)

    end_lsn = await fill_wal(endpoint, 2 * MIB)
    backup_lsn = await backed_up(cluster, endpoint.timeline, end_lsn)
    await removed(cluster, endpoint.timeline, backup_lsn)

    for each in cluster.safekeepers:
        assert await each.digest(endpoint.timeline, begin_lsn, middle_lsn) == before
        await each.restart()
        assert await each.digest(endpoint.timeline, begin_lsn, middle_lsn) == before


@pytest.mark.row("P4.remote")
@pytest.mark.row("H1.pageserver")
async def test_wal_stays_for_a_pageserver_that_lags(world: World) -> None:
    """The pageserver is away and has uploaded nothing of what came since."""
    cluster = await world.start(topology())
    endpoint = await cluster.endpoint("main")
    async with world.faults.isolate("ps0", [each.name for each in cluster.safekeepers]):
        end_lsn = await fill_wal(endpoint, 2 * MIB)
        backup_lsn = await backed_up(cluster, endpoint.timeline, end_lsn)
        await check_nothing_removed(cluster, endpoint)
    await removed(cluster, endpoint.timeline, backup_lsn, within_s=90.0)


@pytest.mark.row("H1.peers")
async def test_wal_stays_for_a_peer_that_is_away(world: World) -> None:
    """One safekeeper is dead: the others keep what it will ask for."""
    cluster = await world.start(topology())
    endpoint = await cluster.endpoint("main")
    away = cluster.safekeeper(world.generator("away").randrange(3))
    await away.kill()
    end_lsn = await fill_wal(endpoint, 2 * MIB)
    backup_lsn = await backed_up(cluster, endpoint.timeline, end_lsn)
    await remote_has(cluster, endpoint, backup_lsn)
    await check_nothing_removed(cluster, endpoint)

    await away.start()
    await level(cluster, endpoint.timeline, end_lsn)
    await fill_wal(endpoint, KIB)
    await removed(cluster, endpoint.timeline, backup_lsn)


@pytest.mark.row("H1.backup")
async def test_wal_stays_until_it_is_in_s3(world: World) -> None:
    """Nobody offloads; then backup_lsn is bumped by hand, as if somebody had."""
    cluster = await world.start(topology(backup_lease_s=0))
    endpoint = await cluster.endpoint("main")
    end_lsn = await fill_wal(endpoint, 3 * MIB)
    await cluster.pageserver(0).checkpoint(endpoint.timeline)
    await remote_has(cluster, endpoint, Lsn(end_lsn - MIB))
    await check_nothing_removed(cluster, endpoint)

    bumped_lsn = Lsn(end_lsn - end_lsn % MIB - MIB)
    await offload_by_hand(cluster, endpoint.timeline, bumped_lsn)
    await cluster.safekeeper(0).patch_backup_lsn(endpoint.timeline, bumped_lsn)
    await removed(cluster, endpoint.timeline, bumped_lsn)
