"""WAL that ends exactly where its segment ends, and is needed by nobody."""

from __future__ import annotations

import asyncio

from storage.http.client import call
from storage.lsn import Lsn
from storage.tests.safekeeper_cluster import PATH, SEGMENT, START, Cluster, Writer, run_cluster
from storage.tests.test_safekeeper_replication import feedback, leader, read, session


def test_the_newest_segment_stays_where_wal_ends_with_it_and_nobody_needs_it():
    """As after pg_switch_wal(): it is still open for writing."""
    first = START // SEGMENT

    async def story(cluster: Cluster):
        writer = await leader(cluster)
        await writer.commit(b"x")
        writer.wal.switch()
        end = await commit_what_is_written(writer)
        assert end % SEGMENT == 0
        await cluster.level(end)
        client = await session("sk0", "ps0")
        stream = await client.copy_both(f"START_REPLICATION PHYSICAL {START}")
        await read(stream, START, end)
        await stream.send(feedback(start=end, remote=end))
        for name in cluster.names:
            await call("POST", name, 7676, f"{PATH}/patch", {"backup_lsn": str(end)})
        await asyncio.sleep(3)
        assert [(await cluster.status(n))["oldest_segment"] for n in cluster.names] == [first] * 3

        await writer.commit(b"y")

        async def gone() -> bool:
            found = [(await cluster.status(name))["oldest_segment"] for name in cluster.names]
            return found == [first + 1] * 3

        await cluster.eventually(gone)
        await client.close()

    async def commit_what_is_written(writer: Writer) -> Lsn:
        writer.proposer.append(*writer.wal.take())
        await writer.proposer.wait_committed(writer.wal.position)
        return writer.wal.position

    run_cluster(story, wal_removal_s=0.2, control_file_save_s=0.2, backup_lease_s=0)
