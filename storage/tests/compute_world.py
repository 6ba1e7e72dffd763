"""A quorum and a pageserver in memory, for tests of the deterministic compute's core."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from storage.compute.commit_log import CommitLog
from storage.compute.engine import Engine
from storage.compute.page_cache import CacheOptions, PageCache
from storage.kv import page as kv
from storage.lsn import Lsn
from storage.tasks import TaskRegistry
from storage.wal.image import with_lsn
from storage.wal.reader import WalReader
from storage.wal.record import decode
from storage.wal.writer import WalWriter, WriterOptions

START = Lsn(0x100000)
SEGMENT_SIZE = 1 << 20
SYSTEM_ID = 77


class MemoryQuorum:
    """A proposer whose quorum has WAL when the test says so, or after one loop turn."""

    def __init__(self, *, commits_by_itself: bool = True) -> None:
        self.commit_lsn = START
        self.end_lsn = START
        self.runs: list[bytes] = []
        self._commits_by_itself = commits_by_itself
        self._callbacks: list[Callable[[Lsn], object]] = []

    @property
    def wal(self) -> bytes:
        return b"".join(self.runs)

    def append(self, begin_lsn: Lsn, data: bytes) -> None:
        assert begin_lsn == self.end_lsn
        self.runs.append(data)
        self.end_lsn = Lsn(begin_lsn + len(data))
        if self._commits_by_itself:
            asyncio.get_running_loop().call_soon(self.commit, self.end_lsn)

    def on_commit(self, callback: Callable[[Lsn], object]) -> None:
        self._callbacks.append(callback)

    def commit(self, lsn: Lsn | None = None) -> None:
        self.commit_lsn = max(self.commit_lsn, lsn or self.end_lsn)
        for callback in self._callbacks:
            callback(self.commit_lsn)


class MemoryPages:
    """A pageserver: redoes the quorum's committed WAL whenever it is asked for a page."""

    def __init__(self, quorum: MemoryQuorum) -> None:
        self._quorum = quorum
        self._reader = WalReader(START, 15, SEGMENT_SIZE)
        self._fed = 0
        self.pages: dict[int, bytes] = {}
        self.requests: list[tuple[int, Lsn]] = []
        self.prev_lsn = Lsn(0)
        self.gate = asyncio.Event()
        self.gate.set()

    async def fetch(self, block: int, hint_lsn: Lsn) -> bytes:
        assert hint_lsn <= self._quorum.commit_lsn, "asked for what may never exist"
        self.requests.append((block, hint_lsn))
        await self.gate.wait()
        self.redo()
        return self.pages.get(block, bytes(8192))

    def redo(self) -> None:
        end = self._quorum.commit_lsn - START
        self._reader.feed(self._quorum.wal[self._fed : end])
        self._fed = max(self._fed, end)
        for raw in self._reader.records():
            self.prev_lsn = raw.lsn
            record = decode(raw.raw, raw.lsn, raw.end_lsn, 15)
            for block in record.blocks:
                if block.image is not None:
                    self.pages[block.block] = with_lsn(block.image, record.end_lsn)
                else:
                    before = None if block.will_init else self.pages[block.block]
                    self.pages[block.block] = kv.apply(before, block.data, record.end_lsn)


class Compute:
    """An engine on a fresh timeline."""

    def __init__(self, *, capacity: int = 4, commits_by_itself: bool = True) -> None:
        self.quorum = MemoryQuorum(commits_by_itself=commits_by_itself)
        self.pageserver = MemoryPages(self.quorum)
        writer = WalWriter(WriterOptions(15, SEGMENT_SIZE, SYSTEM_ID), START, Lsn(0))
        self.log = CommitLog(writer, self.quorum)
        self.registry = TaskRegistry("main")
        self.cache = PageCache(
            self.pageserver.fetch,
            self.registry,
            lambda: self.quorum.commit_lsn,
            CacheOptions(start_lsn=START, blocks=0, capacity=capacity),
        )
        self.engine = Engine(self.log, self.cache)

    async def rows(self, first: int, end: int) -> dict[int, bytes]:
        return dict((await self.engine.scan(first, end)).rows)

    async def value(self, key: int) -> bytes | None:
        rows = (await self.engine.get(key)).rows
        return rows[0].value if rows else None


async def turns(count: int = 20) -> None:
    """Let everything that is ready run."""
    for _ in range(count):
        await asyncio.sleep(0)
