"""Offloaders and the bucket: what is refused, what is taken up again, what a lease is worth."""

from __future__ import annotations

import asyncio
import random
from dataclasses import replace

import pytest

from sim.object_store import SimObjectStore
from sim.run import run
from storage.consensus.term_history import TermHistory
from storage.errors import CorruptData
from storage.http.client import call
from storage.ids import TenantTimelineId
from storage.lsn import Lsn
from storage.safekeeper.remote_wal import Manifest, RemoteWal, Superseded
from storage.tests.safekeeper_cluster import (
    SEGMENT,
    START,
    TENANT,
    TIMELINE,
    Cluster,
    Writer,
    run_cluster,
)

TIMELINE_ID = TenantTimelineId(TENANT, TIMELINE)
KEY = f"safekeeper/{TENANT}/{TIMELINE}/manifest.json"
EAGER = {"backup_lease_s": 2.0, "backup_retry_s": 0.2, "broker_publish_s": 0.3}
FIRST = Manifest(5, "sk1", START, START, SEGMENT, TermHistory.born_at(START))
MORE = FIRST.advanced(Lsn(START + SEGMENT), FIRST.term_history)


def with_bucket(story):
    """Run a story that gets the WAL of one timeline in an empty bucket, and the bucket itself."""

    async def main():
        loop = asyncio.get_running_loop()
        store = SimObjectStore(loop, random.Random(0))
        return await story(RemoteWal(store.view("sk1"), TIMELINE_ID, SEGMENT, 5.0), store)

    return run(main)


def test_a_manifest_is_read_as_it_was_written_and_not_otherwise():
    data = MORE.encode()
    assert Manifest.decode(data, KEY) == MORE
    for spoilt in (data[:-1], data.replace(b"sk1", b"sk2"), b"[]", b"\xff", b"{}"):
        with pytest.raises(CorruptData, match="manifest"):
            Manifest.decode(spoilt, KEY)


def test_only_who_has_read_the_newest_manifest_replaces_it():
    async def story(remote, store):
        etag = await remote.replace_manifest(FIRST, None)
        with pytest.raises(Superseded):
            await remote.replace_manifest(MORE, None)
        newer = await remote.replace_manifest(MORE, etag)
        assert await remote.manifest() == (MORE, newer)
        with pytest.raises(Superseded, match="not what was read"):
            await remote.replace_manifest(FIRST.claimed(6, "sk2"), etag)
        assert await remote.manifest() == (MORE, newer)

    with_bucket(story)


def test_a_write_whose_answer_got_lost_counts_when_it_is_tried_again():
    async def story(remote, store):
        etag = await remote.replace_manifest(FIRST, None)
        assert await remote.replace_manifest(FIRST, None) == etag
        newer = await remote.replace_manifest(MORE, etag)
        assert await remote.replace_manifest(MORE, etag) == newer

    with_bucket(story)


def test_a_segment_is_written_once_and_never_replaced():
    async def story(remote, store):
        data = bytes(SEGMENT - 1) + b"x"
        await remote.put_segment(16, data)
        await remote.put_segment(16, data)
        with pytest.raises(CorruptData, match="other content"):
            await remote.put_segment(16, bytes(SEGMENT))
        assert await store.admin().get(remote.segment_key(16)) == data

    with_bucket(story)


async def write_segments(cluster: Cluster, count: int) -> Lsn:
    """Commit that many whole segments; returns where they end."""
    proposer = cluster.proposer()
    writer = Writer(proposer, (await proposer.elect()).start_lsn)
    while writer.wal.position < START + count * SEGMENT:
        await writer.commit(bytes(SEGMENT // 4))
    return Lsn(START + count * SEGMENT)


def backed_up(cluster: Cluster, lsn: Lsn):
    async def all_know() -> bool:
        found = [Lsn.parse((await cluster.status(n))["backup_lsn"]) for n in cluster.names]
        return min(found) >= lsn

    return cluster.eventually(all_know)


def test_a_broker_that_begins_to_count_anew_stops_no_offloader():
    """Whoever leads may claim what an offloader of the broker's last life has left behind."""

    async def story(cluster: Cluster):
        await backed_up(cluster, await write_segments(cluster, 1))
        objects = cluster.backend.admin_objects()
        before = Manifest.decode(await objects.get(KEY), KEY)
        left = replace(before, fencing_token=1_000_000, node="sk7")
        await objects.put(KEY, left.encode())
        await backed_up(cluster, await write_segments(cluster, 3))
        after = Manifest.decode(await objects.get(KEY), KEY)
        assert after.fencing_token > 1_000_000
        assert after.node in cluster.names
        assert after.backup_lsn == START + 3 * SEGMENT

    run_cluster(story, **EAGER)


def test_an_offloader_whose_lease_is_over_stops_without_having_asked_s3():
    """A segment of another offloader is under way by then: it is sent once, not twice."""

    async def story(cluster: Cluster):
        for name in cluster.names:
            path = "/v1/failpoints/sk-before-backup-put"
            await call("PUT", name, 7676, path, {"action": "pause"})
        await write_segments(cluster, 1)

        async def waiting() -> list[str]:
            points = {n: await call("GET", n, 7676, "/v1/failpoints") for n in cluster.names}
            return [
                name
                for name in cluster.names
                for point in points[name]
                if point["name"] == "sk-before-backup-put" and point["waiting"]
            ]

        async def somebody_waits() -> bool:
            return bool(await waiting())

        await cluster.eventually(somebody_waits)
        (older,) = await waiting()
        cluster.backend.broker.cut(older)

        async def another_waits() -> bool:
            found = await waiting()
            assert len(found) <= 1, f"{found} offload at once"
            return bool(found) and found != [older]

        await cluster.eventually(another_waits)
        cluster.backend.broker.heal(older)
        for name in cluster.names:
            await call("DELETE", name, 7676, "/v1/failpoints/sk-before-backup-put")
        await backed_up(cluster, Lsn(START + SEGMENT))

    run_cluster(story, **EAGER)
