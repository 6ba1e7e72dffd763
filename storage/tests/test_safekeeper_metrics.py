"""What the metrics endpoint shows, in sim; `real/tests/test_runtimes.py` has real threads."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable

import pytest
from prometheus_client import Metric
from prometheus_client.parser import text_string_to_metric_families

from storage.http.client import HttpError, call
from storage.lsn import Lsn
from storage.safekeeper import metrics as safekeeper_metrics
from storage.safekeeper.flush_counts import BOUNDS_S, FlushCounts
from storage.tests.safekeeper_cluster import TENANT, TIMELINE, Cluster, Writer, run_cluster

LABELS = {"tenant_id": str(TENANT), "timeline_id": str(TIMELINE)}


async def scrape(name: str = "sk0") -> dict[str, Metric]:
    text = await call("GET", name, 7676, "/v1/metrics")
    return {family.name: family for family in text_string_to_metric_families(text)}


def value(families: dict[str, Metric], name: str, labels: dict[str, str] | None = None) -> float:
    found = [
        sample.value
        for family in families.values()
        for sample in family.samples
        if sample.name == name and sample.labels == (labels or {})
    ]
    assert len(found) == 1, f"{name}{labels}: {found}"
    return found[0]


def labels_of(samples: Iterable[object], name: str) -> list[str]:
    return [sample.labels[name] for sample in samples]


def test_scrape_shows_what_the_status_shows():
    async def story(cluster: Cluster):
        proposer = cluster.proposer()
        writer = Writer(proposer, (await proposer.elect()).start_lsn)
        end = await writer.commit(b"x" * 5000)
        await cluster.level(end)
        status, found = await cluster.status("sk0"), await scrape()
        for name in ("flush_lsn", "commit_lsn", "backup_lsn", "remote_consistent_lsn"):
            assert value(found, f"safekeeper_{name}", LABELS) == Lsn.parse(status[name])
        assert value(found, "safekeeper_term", LABELS) == status["term"]
        assert value(found, "safekeeper_active", LABELS) == 1
        assert value(found, "safekeeper_proposers", LABELS) == 1
        assert value(found, "safekeeper_timelines") == 1

    run_cluster(story)


def test_flushes_are_counted_and_never_go_back():
    async def story(cluster: Cluster):
        proposer = cluster.proposer()
        writer = Writer(proposer, (await proposer.elect()).start_lsn)
        begin = writer.wal.position
        before = await scrape()
        end = await writer.commit(b"x" * 5000)
        await cluster.level(end)
        after = await scrape()
        bytes_name = "safekeeper_wal_bytes_flushed_total"
        count_name = "safekeeper_flush_seconds_count"
        assert value(after, bytes_name) - value(before, bytes_name) == end - begin
        assert value(after, count_name) > value(before, count_name)
        infinite = value(after, "safekeeper_flush_seconds_bucket", {"le": "+Inf"})
        assert infinite == value(after, count_name)

    run_cluster(story)


def test_every_runtime_is_up_and_its_tasks_are_counted():
    async def story(_: Cluster):
        found = await scrape()
        up = found["seawall_runtime_up"].samples
        names = ["wal-service", "http", "broker", "backup", "metrics"]
        assert labels_of(up, "runtime") == names
        assert [sample.value for sample in up] == [1.0] * 5
        publisher = {"runtime": "broker", "kind": "broker_publisher"}
        assert value(found, "seawall_tasks", publisher) == 1

    run_cluster(story, count=1)


def test_content_type_is_what_prometheus_asks_for():
    """Prometheus 3 refuses a scrape whose content type it does not know."""

    async def story(_: Cluster):
        reader, writer = await asyncio.open_connection("sk0", 7676)
        writer.write(b"GET /v1/metrics HTTP/1.1\r\nHost: sk0\r\nConnection: close\r\n\r\n")
        head = (await reader.read()).split(b"\r\n\r\n")[0].decode()
        writer.close()
        assert "Content-Type: text/plain; version=0.0.4; charset=utf-8" in head.splitlines()
        document = await call("GET", "sk0", 7676, "/v1/openapi.json")
        answers = document["paths"]["/v1/metrics"]["get"]["responses"]["200"]["content"]
        assert list(answers) == ["text/plain"]

    run_cluster(story, count=1)


def test_scrape_of_many_timelines_lets_others_go_first(monkeypatch):
    monkeypatch.setattr(safekeeper_metrics, "TIMELINES_AT_ONCE", 2)

    async def story(cluster: Cluster):
        for number in range(4):
            path = f"/v1/tenant/{TENANT}/timeline/{number:032x}"
            body = {
                "start_lsn": "0/1000000", "system_id": 1, "pg_version": 16,
                "wal_segment_size": 1 << 20, "safekeepers": cluster.addresses,
            }  # fmt: skip
            await call("POST", "sk0", 7676, path, body)
        turns = 0
        yielding = asyncio.sleep

        async def counted(delay_s: float) -> None:
            nonlocal turns
            turns += delay_s == 0
            await yielding(delay_s)

        monkeypatch.setattr(safekeeper_metrics.asyncio, "sleep", counted)
        found = await scrape()
        monkeypatch.undo()
        assert value(found, "safekeeper_timelines") == 5
        assert len(found["safekeeper_flush_lsn"].samples) == 5
        assert turns == 2

    run_cluster(story, count=1)


def test_body_and_query_are_refused():
    async def story(_: Cluster):
        for path, body in (("/v1/metrics?name=up", None), ("/v1/metrics", {"a": 1})):
            with pytest.raises(HttpError) as refused:
                await call("GET", "sk0", 7676, path, body)
            assert (refused.value.status, refused.value.kind) == (400, "bad_request")

    run_cluster(story, count=1)


def test_buckets_hold_their_upper_bound():
    counts = FlushCounts()
    counts.note(10, BOUNDS_S[0])
    counts.note(20, BOUNDS_S[0] * 1.01)
    counts.note(30, BOUNDS_S[-1] * 2)

    copied = counts.copy()
    counts.note(1, 0.0)

    found = copied.cumulative()
    assert found[0] == (str(BOUNDS_S[0]), 1)
    assert found[1] == (str(BOUNDS_S[1]), 2)
    assert found[-2] == (str(BOUNDS_S[-1]), 2)
    assert found[-1] == ("+Inf", 3)
    assert copied.bytes == 60
