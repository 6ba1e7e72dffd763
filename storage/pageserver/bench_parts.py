"""What a pageserver's parts cost: ingest, reads by depth of history, upkeep; no front end.

For benchmarks: the caller brings ports, whose disk it wants measured, and two stopwatches. Wall
time is what a client waits; processor time is what the code costs, on a busy machine too.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

from storage.ids import TenantId, TenantTimelineId, TimelineId
from storage.kv import page as kv
from storage.kv.record import INFO_TRANSACTION, KV_DATABASE, KV_FORK, KV_RELATION, KV_RMGR_ID
from storage.kv.record import KV_SPACE as SPACE
from storage.lsn import INVALID_LSN, Lsn
from storage.node import NodeContext
from storage.pageserver.creation import NewTimeline, create_timeline
from storage.pageserver.ingest import WalIngest
from storage.pageserver.keys import Relation
from storage.pageserver.node import make_environment
from storage.pageserver.page_protocol import LATEST_LSN
from storage.pageserver.read_view import ReadPoint, read_view
from storage.pageserver.retention import RetentionOptions
from storage.pageserver.tenants import Tenants
from storage.pageserver.timeline import Timeline
from storage.pageserver.walreceiver import RECORDS_BETWEEN_YIELDS
from storage.ports import Ports
from storage.wal.reader import WalReader
from storage.wal.record import BlockSpec, RecordSpec
from storage.wal.writer import WalWriter, WriterOptions

IDENT = TenantTimelineId(TenantId("a" * 32), TimelineId("b" * 32))
VERSION = 16
_START = Lsn(0x1000000)
_SEGMENT = 16 << 20
_VALUE = bytes(range(100))
_CHUNK = 128 * 1024
"""As a safekeeper sends."""

_RELATION = Relation(SPACE, KV_DATABASE, KV_RELATION, KV_FORK)
_QUIET: Mapping[str, Any] = {
    "node_id": 1,
    "discovery": "callmemaybe",
    "checkpoint_timeout_s": 10_000.0,
    "compaction_period_s": 10_000.0,
    "gc_period_s": 0.0,
    "scrub_period_s": 10_000.0,
    "lease_length_s": 0.0,
}
"""Nothing happens unless the benchmark says so."""


@dataclass(frozen=True, slots=True)
class Stopwatches:
    """Seconds since some moment: of the wall and of this process."""

    wall_s: Callable[[], float]
    cpu_s: Callable[[], float]


class KvWal:
    """WAL of a key-value relation; one record changes 100 bytes of one page, or pictures it."""

    def __init__(self) -> None:
        self._pages: dict[int, kv.Page] = {}
        self._writer = WalWriter(WriterOptions(VERSION, _SEGMENT, 1), _START, INVALID_LSN)

    def change(self, block: int, *, whole: bool = False) -> None:
        """One more version of a page, as a delta or as a full image."""
        page = self._pages.setdefault(block, kv.Page())
        key = block * kv.KEYS_PER_PAGE + page.version % kv.KEYS_PER_PAGE
        changes: dict[int, bytes | None] = {key: _VALUE}
        kv.change(page, changes)
        spec = BlockSpec(
            0, SPACE, KV_DATABASE, KV_RELATION, block, fork=KV_FORK,
            will_init=page.version == 1,
            image=kv.encode(kv.Page(0, page.version, page.entries)) if whole else None,
            data=b"" if whole else kv.encode_changes(page.version, changes),
        )  # fmt: skip
        self._writer.append(RecordSpec(KV_RMGR_ID, INFO_TRANSACTION, 0, b"", [spec]))

    def take(self) -> bytes:
        """The WAL since the last take."""
        return self._writer.take()[1]


class Bench:
    """One timeline of a pageserver on the caller's ports."""

    def __init__(self, tenants: Tenants, timeline: Timeline) -> None:
        self.tenants = tenants
        self.timeline = timeline
        self._ingest = WalIngest(timeline, timeline.environment.postgres)
        self._reader = WalReader(timeline.last_record_lsn, VERSION, _SEGMENT)

    @classmethod
    @asynccontextmanager
    async def started(cls, ports: Ports, **options: Any) -> AsyncIterator[Bench]:
        """Options as a node has them; nothing is flushed, merged or collected by itself, except
        by size."""
        environment = make_environment(NodeContext("bench", ports, {**_QUIET, **options}))
        tenants = Tenants(environment)
        await tenants.create(IDENT.tenant_id)
        wanted = NewTimeline(IDENT.timeline_id, _START, VERSION)
        timeline = await create_timeline(tenants, IDENT.tenant_id, wanted)
        try:
            yield cls(tenants, timeline)
        finally:
            await tenants.stop()
            await environment.registry.shutdown()

    async def ingest(self, wal: bytes) -> int:
        """As a walreceiver does, from the arrival of the bytes; returns the number of records."""
        timeline, count = self.timeline, 0
        for offset in range(0, len(wal), _CHUNK):
            self._reader.feed(wal[offset : offset + _CHUNK])
            for raw in self._reader.records():
                await self._ingest.ingest(raw)
                count += 1
                if count % RECORDS_BETWEEN_YIELDS == 0:
                    timeline.finish_batch()
                    await timeline.wait_for_room()
                    await asyncio.sleep(0)
            timeline.finish_batch()
            await timeline.wait_for_room()
        return count

    async def flush(self) -> None:
        """Write what is in memory, and wait until it is uploaded."""
        self.timeline.freeze()
        await self.timeline.remote_consistent.wait_for(self.timeline.last_record_lsn)

    async def read(self, block: int) -> bytes:
        """A page as of now, as a ``get_page`` request has it read."""
        async with read_view(self.timeline, ReadPoint(LATEST_LSN)) as view:
            return await view.directory.relation_block(_RELATION, block)

    async def compact(self) -> None:
        """One pass of the compaction."""
        tenant = self.tenants.get(IDENT.tenant_id)
        await tenant.compactors[IDENT.timeline_id].compact()

    async def collect(self) -> int:
        """One pass of the garbage collection that keeps nothing; returns how many layers went."""
        collector = self.tenants.get(IDENT.tenant_id).collectors[IDENT.timeline_id]
        return (await collector.collect(RetentionOptions(0, 0.0))).layers_removed


async def measure_ingest(
    ports: Ports, watches: Stopwatches, *, records: int, images: bool
) -> dict[str, float]:
    """Ingest of random changes to 2,000 pages with the default size of layers, until all is
    uploaded; ``images``: every 16th record of a page is a full image, else none is."""
    wal, chance = KvWal(), random.Random(1)
    for number in range(records):
        wal.change(chance.randrange(2000), whole=images and number % 16 == 0)
    data = wal.take()
    async with Bench.started(ports) as bench:
        wall_s, cpu_s = watches.wall_s(), watches.cpu_s()
        count = await bench.ingest(data)
        ingested_s, ingested_cpu_s = watches.wall_s() - wall_s, watches.cpu_s() - cpu_s
        await bench.flush()
        flushed_cpu_s = watches.cpu_s() - cpu_s
    assert count == records, f"{count} of {records} records were ingested"
    return {
        "records": count,
        "wal_bytes": len(data),
        "wall_s": ingested_s,
        "cpu_s": ingested_cpu_s,
        "cpu_s_until_uploaded": flushed_cpu_s,
    }


@dataclass(frozen=True, slots=True)
class Reads:
    """Seconds of wall of each read, and of this process for all together."""

    latencies_s: list[float]
    cpu_s: float


async def measure_reads(
    ports: Ports, watches: Stopwatches, *, pages: int, reads: int
) -> dict[int, Reads]:
    """Random reads of pages that are an image with so many deltas on top (the key): each is put
    together from layer files, for there is no cache of pages. Key -1: the cache has it."""
    depths = (0, 10, 100)
    chance = random.Random(1)
    found: dict[int, Reads] = {}
    options = {"compaction_threshold": 1, "image_creation_threshold": 1}
    async with Bench.started(ports, page_cache_size=0, **options) as bench:
        wal = await _pictured(bench, pages * len(depths))
        for number, depth in enumerate(depths):
            for _ in range(depth):
                for block in range(number * pages, (number + 1) * pages):
                    wal.change(block)
        await bench.ingest(wal.take())
        await bench.flush()
        for number, depth in enumerate(depths):
            blocks = [number * pages + chance.randrange(pages) for _ in range(reads)]
            found[depth] = await _read(bench, watches, blocks)
    return found


async def measure_cached_reads(
    ports: Ports, watches: Stopwatches, *, pages: int, reads: int
) -> Reads:
    """Random reads of pages that the cache of pages has."""
    chance = random.Random(1)
    async with Bench.started(ports) as bench:
        await _pictured(bench, pages)
        for block in range(pages):
            await bench.read(block)
        blocks = [chance.randrange(pages) for _ in range(reads)]
        return await _read(bench, watches, blocks)


async def _pictured(bench: Bench, pages: int) -> KvWal:
    """So many pages, all of them in image layers."""
    wal = KvWal()
    for block in range(pages):
        wal.change(block)
    await bench.ingest(wal.take())
    await bench.flush()
    await bench.compact()
    return wal


async def _read(bench: Bench, watches: Stopwatches, blocks: list[int]) -> Reads:
    latencies_s = []
    cpu_s = watches.cpu_s()
    for block in blocks:
        started_s = watches.wall_s()
        page = await bench.read(block)
        latencies_s.append(watches.wall_s() - started_s)
        assert len(page) == kv.PAGE_SIZE, f"block {block} has {len(page)} bytes"
    return Reads(latencies_s, watches.cpu_s() - cpu_s)


async def measure_upkeep(
    ports: Ports, watches: Stopwatches, *, flushes: int, records: int
) -> dict[str, float]:
    """Merging so many flushes of ``records`` changes each, picturing the result, and collecting
    what that leaves; then the seconds of each, of this process."""
    chance = random.Random(1)
    options = {"compaction_threshold": 2, "image_creation_threshold": 1}
    async with Bench.started(ports, compaction_target_size=1 << 20, **options) as bench:
        wal, flushing_s = KvWal(), 0.0
        for _ in range(flushes):
            for _ in range(records):
                wal.change(chance.randrange(2000))
            await bench.ingest(wal.take())
            started_s = watches.cpu_s()
            await bench.flush()
            flushing_s += watches.cpu_s() - started_s
        started_s = watches.cpu_s()
        await bench.compact()
        compacted_s = watches.cpu_s()
        removed = await bench.collect()
        collected_s = watches.cpu_s()
    assert removed, "nothing was garbage"
    return {
        "layers": flushes,
        "flush_ms_each": flushing_s / flushes * 1e3,
        "compaction_s": compacted_s - started_s,
        "gc_s": collected_s - compacted_s,
        "gc_layers_removed": removed,
    }
