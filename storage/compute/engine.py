"""The primary's core: transactions and reads over cached pages.

A transaction loads the pages it touches, then changes them and adds its record to the log in one
step without a suspension: pages are locked by the loop itself, and two transactions on one page
follow each other in log order. Nothing is shown before a quorum has it: a read waits until the last
change of what it saw is committed. (A deposed compute may still answer reads from before it heard
of its successor, as any primary without read leases.)
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple, Protocol

from storage.compute.page_cache import PageCache
from storage.compute.snapshot import Snapshot
from storage.compute.transact import Executed, Step, keys_of, run_steps
from storage.errors import BadRequest
from storage.kv import record as kv_record
from storage.kv.page import KEY_MAX, KEYS_PER_PAGE, Page, block_of, change
from storage.kv.record import ChangedPage
from storage.lsn import Lsn
from storage.wal.record import RecordSpec

SCAN_AHEAD_PAGES = 16


class Row(NamedTuple):
    """A key and its value."""

    key: int
    value: bytes


class ReadResult(NamedTuple):
    """What a read saw and an LSN at which it holds."""

    rows: list[Row]
    lsn: Lsn


class Log(Protocol):
    """The end of the WAL: :class:`storage.compute.commit_log.CommitLog`, or a pinned LSN."""

    @property
    def commit_lsn(self) -> Lsn:
        """Everything below is on disk at a quorum."""
        ...

    def add(self, record: RecordSpec) -> Lsn:
        """Put a record into the WAL; returns its end."""
        ...

    async def committed(self, lsn: int) -> None:
        """Return once a quorum has everything below ``lsn``."""
        ...


def total(rows: list[Row]) -> int:
    """Sum of the values as integers; ``BadRequest`` names a key whose value is none."""
    result = 0
    for key, value in rows:
        try:
            result += int(value)
        except ValueError as error:
            raise BadRequest(f"sum: value {value[:40]!r} of key {key} is not an integer") from error
    return result


class Engine:
    """Transactions and reads of a primary. Safe for any number of concurrent callers."""

    def __init__(self, log: Log, cache: PageCache, now_us: Callable[[], int] | None = None) -> None:
        """``now_us`` stamps commits (Postgres epoch); without it they tell no time."""
        self._log = log
        self._now_us = now_us
        self._cache = cache
        self._snapshots: list[Snapshot] = []

    async def write(self, changes: Mapping[int, bytes | None]) -> Lsn:
        """Apply a transaction; returns its commit LSN once a quorum has it.

        A transaction that changes nothing (it deletes what is absent) writes no record and returns
        an LSN at which that is so. Raises ``BadRequest``, the cache's errors (no effect), or
        ``OutcomeUnknown``.
        """
        by_block = group_by_block(changes)
        kv_record.check_pages(len(by_block))
        await self._cache.load(list(by_block))
        lsn = self._log_changes(by_block)
        await self._log.committed(lsn)
        return Lsn(lsn)

    async def transact(self, steps: Sequence[Step]) -> tuple[Executed, Lsn]:
        """Run steps as one transaction; returns what they saw and changed, and its commit LSN.

        Pages stand still from the first step to the record, so the steps see one state and nothing
        comes between. Raises what :meth:`write` raises.
        """
        touched = group_by_block(dict.fromkeys(keys_of(steps)))
        kv_record.check_pages(len(touched))
        await self._cache.load(list(touched))
        executed = run_steps(steps, self._row)
        lsn = self._log_changes(group_by_block(executed.changes))
        await self._log.committed(lsn)
        return executed, Lsn(lsn)

    def _row(self, key: int) -> bytes | None:
        """A row of a page that is loaded."""
        return self._cache[block_of(key)].entries.get(key)

    def _log_changes(self, by_block: Mapping[int, dict[int, bytes | None]]) -> int:
        """Change the pages and log it; never suspends, so nothing comes between."""
        changed: list[ChangedPage] = []
        seen_lsn: int = self._log.commit_lsn
        for block, changes in by_block.items():
            page = self._cache[block]
            seen_lsn = max(seen_lsn, page.lsn)
            effective = effective_changes(page, changes)
            if effective:
                for snapshot in self._snapshots:
                    snapshot.save(block, page)
                change(page, effective)
                changed.append(ChangedPage(block, page, effective))
        if not changed:
            return seen_lsn
        end_lsn = self._log.add(kv_record.transaction(changed, self._commit_time()))
        for _, page, _ in changed:
            assert end_lsn > page.lsn, f"record ends at {end_lsn}, its page is at {page.lsn}"
            page.lsn = end_lsn
        self._cache.blocks = max(self._cache.blocks, changed[-1].block + 1)
        return end_lsn

    def _commit_time(self) -> int | None:
        return None if self._now_us is None else self._now_us()

    async def get(self, key: int) -> ReadResult:
        """The row of a key, if there is one."""
        block = block_of(key)
        if block >= self._cache.blocks:
            return ReadResult([], self._log.commit_lsn)
        await self._cache.load((block,))
        page = self._cache[block]
        value = page.entries.get(key)
        lsn = Lsn(max(page.lsn, self._log.commit_lsn))
        await self._log.committed(page.lsn)
        return ReadResult([] if value is None else [Row(key, value)], lsn)

    async def scan(self, first: int, end: int) -> ReadResult:
        """Rows of the keys ``first`` … ``end - 1``, all at one instant."""
        end_block = min(self._cache.blocks, (end + KEYS_PER_PAGE - 1) // KEYS_PER_PAGE)
        snapshot = Snapshot(range(first // KEYS_PER_PAGE, end_block), self._log.commit_lsn)
        self._snapshots.append(snapshot)
        try:
            await self._collect(snapshot)
        finally:
            self._snapshots.remove(snapshot)
        await self._log.committed(snapshot.lsn)
        return ReadResult([Row(*row) for row in snapshot.rows(first, end)], snapshot.lsn)

    async def sum(self) -> tuple[int, Lsn]:
        """Sum of every value at one instant, and an LSN at which it holds."""
        result = await self.scan(0, KEY_MAX + 1)
        return total(result.rows), result.lsn

    async def _collect(self, snapshot: Snapshot) -> None:
        blocks = snapshot.blocks
        for start in range(blocks.start, blocks.stop, SCAN_AHEAD_PAGES):
            ahead = range(start, min(start + SCAN_AHEAD_PAGES, blocks.stop))
            missing = snapshot.missing(ahead)
            await self._cache.load(missing)
            for block in missing:
                snapshot.save(block, self._cache[block])


def group_by_block(changes: Mapping[int, bytes | None]) -> dict[int, dict[int, bytes | None]]:
    """Changes of each block, in order of block number."""
    by_block: dict[int, dict[int, bytes | None]] = {}
    for key in sorted(changes):
        by_block.setdefault(block_of(key), {})[key] = changes[key]
    return by_block


def effective_changes(page: Page, changes: Mapping[int, bytes | None]) -> dict[int, bytes | None]:
    """Changes without deletions of what is absent, which must not make a version of a page."""
    entries = page.entries
    return {key: value for key, value in changes.items() if value is not None or key in entries}
