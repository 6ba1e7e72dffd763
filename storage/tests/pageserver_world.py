"""A pageserver's surroundings in the simulation: disk, bucket, broker, and WAL made to measure."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, Protocol

import sim
from sim.broker import SimBroker
from sim.clock import SimClock
from sim.disk import SimDisk
from sim.object_store import SimObjectStore
from storage.ids import TenantId, TenantTimelineId, TimelineId
from storage.kv import page as kv
from storage.kv.record import KV_DATABASE, KV_FORK, KV_RELATION, KV_SPACE, ChangedPage, transaction
from storage.lsn import INVALID_LSN, Lsn
from storage.node import NodeContext
from storage.pageserver import node
from storage.pageserver.creation import NewTimeline, create_timeline
from storage.pageserver.environment import Environment
from storage.pageserver.ingest import WalIngest
from storage.pageserver.keys import Key, Relation, relation_block
from storage.pageserver.tenant import Tenant
from storage.pageserver.tenants import Tenants
from storage.pageserver.timeline import Timeline
from storage.ports import Ports
from storage.wal.reader import WalReader
from storage.wal.writer import WalWriter, WriterOptions

START = Lsn(0x100000)
SEGMENT_SIZE = 1 << 20
TENANT = TenantId("a" * 32)
TIMELINE = TimelineId("b" * 32)
IDENT = TenantTimelineId(TENANT, TIMELINE)
KV = Relation(KV_SPACE, KV_DATABASE, KV_RELATION, KV_FORK)

QUIET: Mapping[str, Any] = {
    "node_id": 1,
    "checkpoint_timeout_s": 10_000.0,
    "compaction_period_s": 10_000.0,
    "gc_period_s": 0.0,
    "scrub_period_s": 10_000.0,
}
"""Options under which nothing is flushed or compacted unless the test says so."""


STORY_S_MAX = 3000.0
"""Virtual seconds after which a story that waits for ever fails instead."""


class KvHistory:
    """Writes key-value WAL and remembers every version of every page: the read model."""

    def __init__(self, start: Lsn = START, prev: Lsn = INVALID_LSN) -> None:
        self._writer = WalWriter(WriterOptions(15, SEGMENT_SIZE, 77), start, prev)
        self._pages: dict[int, kv.Page] = {}
        self.versions: dict[int, list[tuple[Lsn, bytes]]] = {}
        self.wal = b""
        self.start = start
        self.ends: list[Lsn] = []

    @property
    def end(self) -> Lsn:
        return self.ends[-1] if self.ends else self.start

    def put(self, *changes: tuple[int, bytes]) -> Lsn:
        """One transaction, one record; returns its end LSN."""
        by_block: dict[int, dict[int, bytes | None]] = {}
        for key, value in sorted(changes):
            by_block.setdefault(kv.block_of(key), {})[key] = value
        changed = []
        for block, values in by_block.items():
            page = self._pages.setdefault(block, kv.Page())
            kv.change(page, values)
            changed.append(ChangedPage(block, page, values))
        _, end = self._writer.append(transaction(changed))
        for block in by_block:
            page = self._pages[block]
            page.lsn = end
            self.versions.setdefault(block, []).append((end, kv.encode(page)))
        self.wal += self._writer.take()[1]
        self.ends.append(end)
        return end

    def fill(self, count: int, *, keys: int = 100, seed: int = 1) -> Lsn:
        """``count`` transactions on random keys."""
        generator = random.Random(seed)
        for number in range(count):
            self.put((generator.randrange(keys), b"%d" % number))
        return self.end

    def page(self, block: int, lsn: Lsn) -> bytes | None:
        """What the page must be at an LSN; ``None`` if it does not exist then."""
        older = [page for end, page in self.versions.get(block, []) if end <= lsn]
        return older[-1] if older else None

    def blocks(self, lsn: Lsn) -> list[int]:
        return [block for block in self.versions if self.page(block, lsn) is not None]


class Server(Protocol):
    """Something that a story started and that must end with it."""

    async def close(self) -> None: ...


class Rig:
    """One pageserver's parts without its front ends; ``restart`` begins a new incarnation."""

    def __init__(self, loop: sim.SimLoop, options: Mapping[str, Any], name: str = "ps0") -> None:
        self.loop = loop
        self.options = {**QUIET, **options}
        self.disk = SimDisk(loop, random.Random(1))
        self.store = SimObjectStore(loop, random.Random(2))
        self.broker = SimBroker(loop, random.Random(3))
        self.name = name
        self.servers: list[Server] = []
        self.begin()

    def begin(self) -> None:
        self.environment = make_environment(self, self.name, self.options)
        self.tenants = Tenants(self.environment)

    async def restart(self, *, crash: bool = False) -> Tenant:
        """End the incarnation in order, or let its host lose power; returns the loaded tenant."""
        if crash:
            await self.environment.registry.shutdown(within_s=0.0)
            self.disk.crash_host()
        else:
            await self.tenants.stop()
            await self.environment.registry.shutdown()
        self.begin()
        await node.load_tenants(self.tenants, self.environment)
        tenant = self.tenants.get(TENANT)
        await tenant.state.wait_active()
        return tenant

    async def timeline(self) -> Timeline:
        """A new tenant with one empty timeline."""
        await self.tenants.create(TENANT)
        return await create_timeline(self.tenants, TENANT, NewTimeline(TIMELINE, START, 15))

    async def written(self, count: int, *, flushed: bool = False) -> tuple[Timeline, KvHistory]:
        """The one timeline after so many commits, which are in S3 if ``flushed``."""
        history = KvHistory()
        timeline = await self.timeline()
        history.fill(count)
        await ingest(timeline, history)
        if flushed:
            await flush(timeline)
        return timeline, history

    @property
    def keys(self) -> list[str]:
        """Keys of every object in the bucket."""
        return [info.key for info in self.store.bucket.list("")]


def make_environment(rig: Rig, name: str, options: Mapping[str, Any]) -> Environment:
    ports = Ports(
        rig.disk.view(),
        rig.store.view(name),
        rig.broker.view(name),
        SimClock(rig.loop, random.Random(4)),
        random.Random(5),
    )
    return node.make_environment(NodeContext(name, ports, options))


async def ingest(
    timeline: Timeline, history: KvHistory, upto: Lsn | None = None, *, finish: bool = True
) -> None:
    """Feed the WAL that the timeline lacks, up to the end of a record."""
    ingestion = WalIngest(timeline, timeline.environment.postgres)
    begin = timeline.last_record_lsn
    reader = WalReader(begin, 15, SEGMENT_SIZE, check_prev=timeline.prev_record_lsn or None)
    end = history.end if upto is None else upto
    reader.feed(history.wal[begin - history.start : end - history.start])
    for raw in reader.records():
        await ingestion.ingest(raw)
    if finish:
        timeline.finish_batch()
    assert timeline.last_record_lsn == end


async def flush(timeline: Timeline) -> None:
    """Flush what is in memory and wait until it is uploaded."""
    timeline.freeze()
    await timeline.disk_consistent.wait_for(timeline.last_record_lsn)
    if not timeline.uploader.superseded:
        await timeline.remote_consistent.wait_for(timeline.last_record_lsn)


async def raise_cutoff(timeline: Timeline, lsn: Lsn) -> None:
    """Do what garbage collection does to readers, without removing anything."""
    timeline.gc_cutoff.plan(lsn)
    await timeline.gc_cutoff.apply()


async def check(timeline: Timeline, history: KvHistory, lsns: list[Lsn] | None = None) -> int:
    """Compare every page at many LSNs with the model; returns how many were compared."""
    compared = 0
    for lsn in lsns or history.ends:
        for block in history.versions:
            expected = history.page(block, lsn)
            found = await timeline.get(relation_block(KV, block), lsn)
            assert found == expected, f"block {block} at {lsn}"
            compared += 1
    assert compared
    return compared


def kv_key(block: int) -> Key:
    return relation_block(KV, block)


def play(story: Callable[[Rig], Awaitable[None]], **options: Any) -> None:
    """Run a story with a pageserver's parts under virtual time."""

    async def main() -> None:
        loop = asyncio.get_running_loop()
        assert isinstance(loop, sim.SimLoop)
        rig = Rig(loop, options)
        async with asyncio.timeout(STORY_S_MAX):
            await story(rig)
        await rig.tenants.stop()
        await rig.environment.registry.shutdown()
        for server in rig.servers:
            await server.close()
        assert rig.environment.registry.snapshot() == []

    sim.run(main, seed=3)
