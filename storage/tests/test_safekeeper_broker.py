"""What safekeepers tell one another through the broker, and what they ignore."""

from __future__ import annotations

import asyncio
import json

import pytest

from storage.ids import TenantTimelineId
from storage.safekeeper.broker import broker_key, parse_key
from storage.tests.safekeeper_cluster import TENANT, TIMELINE, Cluster, Writer, run_cluster

KEY = f"seawall/timeline/{TENANT}/{TIMELINE}/safekeeper/sk7"


def test_keys():
    assert broker_key(TenantTimelineId(TENANT, TIMELINE), "sk7") == KEY
    assert parse_key(KEY) == (TenantTimelineId(TENANT, TIMELINE), "sk7")


@pytest.mark.parametrize(
    "key", ["", "seawall/timeline/x", KEY + "/more", KEY.replace("safekeeper", "pageserver"),
            KEY.replace(TENANT, "zz")]
)  # fmt: skip
def test_keys_of_something_else_are_ignored(key):
    assert parse_key(key) is None


def test_active_timelines_are_published_and_idle_ones_vanish():
    async def story(cluster: Cluster):
        broker = cluster.backend.admin_broker()
        prefix = "seawall/timeline/"
        await asyncio.sleep(10)
        assert await broker.get(prefix) == {}
        proposer = cluster.proposer()
        writer = Writer(proposer, (await proposer.elect()).start_lsn)
        end = await writer.commit(b"x")
        await asyncio.sleep(3)
        published = await broker.get(prefix)
        assert [key.rpartition("/")[2] for key in sorted(published)] == ["sk0", "sk1", "sk2"]
        status = json.loads(published[KEY.replace("sk7", "sk1")])
        assert status == {
            "node": "sk1",
            "pg_addr": "sk1:5454",
            "http_addr": "sk1:7676",
            "term": 1,
            "last_log_term": 1,
            "flush_lsn": str(end),
            "commit_lsn": str(end),
            "backup_lsn": "0/1000000",
            "remote_consistent_lsn": "0/1000000",
            "peer_horizon_lsn": status["peer_horizon_lsn"],
            "active": True,
            "standby_horizon": "0/0",
            "local_start_lsn": "0/1000000",
        }
        told = {**status, "remote_consistent_lsn": str(end)}
        await broker.publish(KEY, json.dumps(told).encode(), ttl_s=60)
        await asyncio.sleep(3)
        for name in cluster.names:
            assert (await cluster.status(name))["remote_consistent_lsn"] == str(end)
        await proposer.close()
        await asyncio.sleep(30)
        assert [key for key in await broker.get(prefix) if key != KEY] == []

    run_cluster(story)


def test_nonsense_in_the_broker_harms_nobody():
    async def story(cluster: Cluster):
        broker = cluster.backend.admin_broker()
        for value in (b"", b"{}", b'{"last_log_term": "x"}', b"\xff"):
            await broker.publish(KEY, value, ttl_s=5)
        await asyncio.sleep(5)
        for name in cluster.names:
            assert cluster.backend.died(name) is None
        proposer = cluster.proposer()
        await Writer(proposer, (await proposer.elect()).start_lsn).commit(b"x")

    run_cluster(story)


def test_an_outage_of_the_broker_stops_nothing_and_ends():
    async def story(cluster: Cluster):
        cluster.backend.broker.outage()
        proposer = cluster.proposer()
        writer = Writer(proposer, (await proposer.elect()).start_lsn)
        await writer.commit(b"x")
        await asyncio.sleep(60)
        await writer.commit(b"y")
        cluster.backend.broker.restore()
        await asyncio.sleep(20)
        assert len(await cluster.backend.admin_broker().get("seawall/timeline/")) == 3

    run_cluster(story)
