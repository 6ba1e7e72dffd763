"""PostgreSQL's own WAL goes to S3 and from the disks, and a PostgreSQL starts from what is left.

What could go wrong: WAL with page images, switches and padding is offloaded or read back otherwise
than it was written; a member that has only its last segments does not find the log's end.
"""

from __future__ import annotations

import pytest

from harness.cluster import Cluster
from harness.endpoint_handle import EndpointHandle
from harness.topology import KIB, MIB, Topology
from harness.wal_waits import backed_up, level, removed
from harness.world import World
from storage.lsn import Lsn

BUSY = {
    "wal_removal_s": 0.5, "control_file_save_s": 0.5, "broker_publish_s": 0.3,
    "backup_lease_s": 2.0, "backup_retry_s": 0.2, "recent_wal_bytes": 64 * KIB,
}  # fmt: skip
UPLOADS = {"checkpoint_distance": 256 * KIB, "checkpoint_timeout_s": 2.0}
ROWS = 6000


async def end_of_wal(endpoint: EndpointHandle) -> Lsn:
    """What its proposer knows to be committed."""
    return Lsn.parse((await endpoint.endpoint.status())["commit_lsn"])


async def fill(cluster: Cluster, endpoint: EndpointHandle) -> Lsn:
    """Some megabytes of WAL, as a bulk insert and its index make them; where it ends."""
    begin_lsn = await end_of_wal(endpoint)
    await endpoint.sql(
        f"insert into t select n, repeat('x', 400) from generate_series(1, {ROWS}) n"
    )
    await endpoint.sql("select pg_switch_wal()")
    await endpoint.put(1, "a")
    end_lsn = await end_of_wal(endpoint)
    assert end_lsn - begin_lsn > 2 * cluster.topology.wal_segment_size
    return end_lsn


@pytest.mark.computes("postgres", reason="the same on walgen's WAL is in test_wal_removal.py")
@pytest.mark.row("G1.whole", "H1.backup")
async def test_postgres_starts_when_its_wal_is_only_in_s3(world: World) -> None:
    """Every safekeeper has lost all whole segments to S3 and is started anew; so is PostgreSQL."""
    topology = Topology(wal_segment_size=MIB, safekeeper_options=BUSY, pageserver_options=UPLOADS)
    cluster = await world.start(topology)
    endpoint = await cluster.endpoint("main")
    await endpoint.sql("create table t (n int, v text)")
    begin_lsn = await end_of_wal(endpoint)
    end_lsn = await fill(cluster, endpoint)
    await level(cluster, endpoint.timeline, end_lsn)
    before = await cluster.safekeeper(0).digest(endpoint.timeline, begin_lsn, end_lsn)
    backup_lsn = await backed_up(cluster, endpoint.timeline, end_lsn)
    await removed(cluster, endpoint.timeline, backup_lsn)

    await endpoint.stop()
    for safekeeper in cluster.safekeepers:
        await safekeeper.restart()
        assert await safekeeper.digest(endpoint.timeline, begin_lsn, end_lsn) == before
    await endpoint.start()
    assert await endpoint.sql("select count(*) from t") == [(str(ROWS),)]
    await endpoint.put(2, "b")
    assert await endpoint.get(1) == "a"
