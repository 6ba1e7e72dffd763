"""The benchmarks of a pageserver's parts, small: they run, and their figures can be true."""

from __future__ import annotations

import asyncio

import pytest

import conftest
from real.bench_pageserver import Sizes, bench_ingest, bench_layers, bench_pages
from real.kept_objects import KeptObjects
from storage.errors import ObjectMissing, PreconditionFailed
from storage.pageserver import bench_parts
from storage.pageserver.bench_layers import measure_layers

SMALL = Sizes(
    records=500, pages=5, reads=20, layers=(100, 400), flushes=(3, 6), records_per_flush=50
)


def test_every_benchmark_of_a_pageserver_can_be_asked_for():
    assert {"ingest", "pages", "layers", "migration"} <= set(conftest.BENCHES)


def test_ingest_tells_rates_of_both_kinds_of_records():
    found = bench_ingest(bench_parts, SMALL)

    assert found["deltas"]["records"] == 500
    assert 100 < found["deltas"]["record_bytes"] < found["images_1_of_16"]["record_bytes"]
    for kind in ("deltas", "images_1_of_16"):
        row = found[kind]
        assert row["records_per_cpu_s"] > row["records_per_cpu_s_until_uploaded"] > 0
        rate = row["records_per_cpu_s"] * row["record_bytes"] / 1e6
        assert row["mb_per_cpu_s"] == pytest.approx(rate, rel=0.05, abs=0.2)


def test_pages_are_slower_the_longer_their_history():
    found = bench_pages(bench_parts, SMALL)

    rows = [found["cached"], found["image_only"], found["image_and_10_deltas"]]
    rows.append(found["image_and_100_deltas"])
    assert all(row["reads"] == 20 and 0 < row["p50_us"] <= row["p99_us"] for row in rows)
    assert rows[0]["p50_us"] < rows[1]["p50_us"] < rows[3]["p50_us"]


def test_layers_tell_costs_at_each_size_and_how_they_grow():
    found = bench_layers(bench_parts, measure_layers, SMALL)

    assert [row["layers"] for row in found["names"]] == [100, 400]
    assert found["names_growth"]["layers"] == [4.0]
    assert [row["layers"] for row in found["files"]] == [3, 6]
    assert all(row["compaction_s"] > 0 and row["gc_layers_removed"] for row in found["files"])


async def use(objects: KeptObjects) -> None:
    etag = await objects.put("a/1", b"one", if_absent=True)
    with pytest.raises(PreconditionFailed):
        await objects.put("a/1", b"two", if_absent=True)
    newer = await objects.put("a/1", b"three", if_etag=etag)
    with pytest.raises(PreconditionFailed):
        await objects.put("a/1", b"four", if_etag=etag)
    assert await objects.get_range("a/1", 1, 2) == b"hr"
    assert [(info.key, info.size, info.etag) for info in await objects.list("a/")] == [
        ("a/1", 5, newer)
    ]
    await objects.delete("a/1")
    await objects.delete("a/1")
    with pytest.raises(ObjectMissing):
        await objects.head("a/1")


def test_objects_in_memory_keep_the_promises_that_uploads_rely_on():
    asyncio.run(use(KeptObjects()))
