"""Benchmarks of a pageserver's parts on a real disk and a real event loop.

``python -m harness bench ingest``, ``pages`` and ``layers``. The object store is this process'
memory. Latencies are what a caller waits; rates are per second of processor time of this process,
so that they mean the same on a busy machine.
"""

from __future__ import annotations

import asyncio
import random
import shutil
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any, Protocol, TypeVar, cast

from real.clock import SystemClock
from real.disk import ThreadPoolDisk
from real.kept_objects import KeptObjects
from storage.ports import Broker, BrokerUpdate, Ports

T = TypeVar("T")
MEGABYTE = 1e6


@dataclass(frozen=True, slots=True)
class Sizes:
    """How much is measured: records of WAL; pages and reads of each depth; how many layers for the
    decisions that see only names, and how many flushes of how many records for those with files."""

    records: int = 60_000
    pages: int = 100
    reads: int = 2000
    layers: Sequence[int] = (100, 1000, 10_000)
    flushes: Sequence[int] = (10, 100, 1000)
    records_per_flush: int = 200


class SilentBroker:
    """Safekeepers that say nothing: whoever subscribes listens, and hears no more than that."""

    @asynccontextmanager
    async def subscribe(self, prefix: str) -> AsyncIterator[AsyncIterator[BrokerUpdate]]:
        """See ``Broker.subscribe``."""
        yield _silence()


async def _silence() -> AsyncIterator[BrokerUpdate]:
    for _ in ():
        yield BrokerUpdate("", None)
    await asyncio.get_running_loop().create_future()


class Watches(Protocol):
    """Makes a pair of stopwatches."""

    def __call__(self, wall_s: Callable[[], float], cpu_s: Callable[[], float]) -> Any:
        """Seconds of wall and of this process."""
        ...


class Reads(Protocol):
    """How long each read took, and all of them in processor time; seconds."""

    latencies_s: list[float]
    cpu_s: float


class Parts(Protocol):
    """The measurements; ``conftest.py`` knows whose."""

    Stopwatches: Watches
    measure_ingest: Callable[..., Awaitable[dict[str, float]]]
    measure_reads: Callable[..., Awaitable[Mapping[int, Reads]]]
    measure_cached_reads: Callable[..., Awaitable[Reads]]
    measure_upkeep: Callable[..., Awaitable[dict[str, float]]]


def bench_ingest(parts: Parts, sizes: Sizes = Sizes()) -> Mapping[str, Any]:
    """Records and megabytes of WAL ingested a second, layers written and uploaded meanwhile."""
    found: dict[str, Any] = {"bench": "ingest"}
    for name, images in (("deltas", False), ("images_1_of_16", True)):
        got = _on_disk(parts, parts.measure_ingest, records=sizes.records, images=images)
        megabytes = got["wal_bytes"] / MEGABYTE
        found[name] = {
            "records": sizes.records,
            "record_bytes": round(got["wal_bytes"] / sizes.records, 1),
            "records_per_cpu_s": round(sizes.records / got["cpu_s"]),
            "mb_per_cpu_s": round(megabytes / got["cpu_s"], 1),
            "records_per_wall_s": round(sizes.records / got["wall_s"]),
            "records_per_cpu_s_until_uploaded": round(sizes.records / got["cpu_s_until_uploaded"]),
        }
    return found


def bench_pages(parts: Parts, sizes: Sizes = Sizes()) -> Mapping[str, Any]:
    """Microseconds of a ``get_page``, by how many deltas lie on the page's image, from files."""
    depths = _on_disk(parts, parts.measure_reads, pages=sizes.pages, reads=sizes.reads)
    cached = _on_disk(parts, parts.measure_cached_reads, pages=sizes.pages, reads=sizes.reads)
    found: dict[str, Any] = {"bench": "pages", "cached": _latencies(cached)}
    for depth, reads in depths.items():
        found[f"image_and_{depth}_deltas" if depth else "image_only"] = _latencies(reads)
    return found


def bench_layers(
    parts: Parts,
    measure_layers: Callable[[int, Callable[[], float]], Mapping[str, float]],
    sizes: Sizes = Sizes(),
) -> Mapping[str, Any]:
    """What choosing, merging and collecting cost with ten times as many layers, and the ratio."""
    names = [measure_layers(count, time.process_time) for count in sizes.layers]
    files = [
        _on_disk(parts, parts.measure_upkeep, flushes=flushes, records=sizes.records_per_flush)
        for flushes in sizes.flushes
    ]
    return {
        "bench": "layers",
        "names": [_rounded(row) for row in names],
        "names_growth": _growth(names),
        "files": [_rounded(row) for row in files],
        "files_growth": _growth(files),
    }


def _on_disk(parts: Parts, measure: Callable[..., Awaitable[T]], **sizes: Any) -> T:
    """Measure on a fresh directory and a fresh loop."""
    directory = Path(tempfile.mkdtemp(prefix="seawall-bench-"))
    disk = ThreadPoolDisk(directory, "bench-disk")
    broker = cast(Broker, SilentBroker())
    ports = Ports(disk, KeptObjects(), broker, SystemClock(), random.Random(0))
    watches = parts.Stopwatches(time.perf_counter, time.process_time)

    async def run() -> T:
        return await measure(ports, watches, **sizes)

    try:
        return asyncio.run(run())
    finally:
        disk.close()
        shutil.rmtree(directory)


def _latencies(reads: Reads) -> dict[str, float]:
    ordered_s = sorted(reads.latencies_s)
    count = len(ordered_s)
    return {
        "reads": count,
        "p50_us": round(ordered_s[count // 2] * 1e6, 1),
        "p99_us": round(ordered_s[min(count - 1, count * 99 // 100)] * 1e6, 1),
        "cpu_us": round(reads.cpu_s / count * 1e6, 1),
    }


def _growth(rows: Sequence[Mapping[str, float]]) -> dict[str, list[float]]:
    """By how much each figure grew from row to row."""
    return {
        name: [
            round(after[name] / before[name], 1) if before[name] else 0.0
            for before, after in pairwise(rows)
        ]
        for name in rows[0]
    }


def _rounded(row: Mapping[str, float]) -> dict[str, float]:
    return {name: round(value, 3) for name, value in row.items()}
