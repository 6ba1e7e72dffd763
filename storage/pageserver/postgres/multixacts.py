"""Resource managers CLOG and MULTIXACT: pages of the SLRUs, new multixacts, truncation.

Layouts: ``clog.c``, ``multixact.c``, ``multixact.h``. Page numbers are 64-bit from 17 on.
"""

from __future__ import annotations

from enum import IntEnum

from storage.pageserver.datadir import ZERO_PAGE
from storage.pageserver.keys import Slru
from storage.pageserver.postgres import slru_pages
from storage.pageserver.postgres.change import Change
from storage.pageserver.postgres.control import precedes
from storage.pageserver.postgres.slru_pages import (
    MEMBERS_PER_PAGE,
    OFFSETS_PER_PAGE,
    SEGMENT_PAGES,
    XIDS_PER_PAGE,
    Member,
)
from storage.pageserver.values import Image

_ZERO = Image(ZERO_PAGE)
_FIRST_MULTI = 1


def _page_number(change: Change) -> int:
    return change.unpack("<q" if change.pg_version >= 17 else "<i")[0]


async def _truncate(change: Change, slru: Slru, cutoff_page: int, ids_per_page: int) -> None:
    """Remove the segments that lie before a page altogether (``SimpleLruTruncate``)."""
    cutoff = cutoff_page * ids_per_page
    for segment in await change.modification.directory.slru_segments(slru):
        first = segment * SEGMENT_PAGES * ids_per_page
        last = first + (SEGMENT_PAGES - 1) * ids_per_page
        if precedes(first, cutoff) and precedes(last, cutoff):
            await change.modification.drop_slru_segment(slru, segment)


class CommitLogOperation(IntEnum):
    """Operations of the resource manager CLOG (``clog.h``)."""

    ZERO_PAGE = 0x00
    TRUNCATE = 0x10


class MultixactOperation(IntEnum):
    """Operations of the resource manager MULTIXACT (``multixact.h``)."""

    ZERO_OFFSETS_PAGE = 0x00
    ZERO_MEMBERS_PAGE = 0x10
    CREATE = 0x20
    TRUNCATE = 0x30


class CommitLogRecords:
    """Handler of resource manager 3."""

    async def apply(self, change: Change) -> None:
        """See :class:`~storage.pageserver.postgres.change.RecordHandler`."""
        match change.record.info & 0xF0:
            case CommitLogOperation.ZERO_PAGE:
                await change.put_slru_page(Slru.CLOG, _page_number(change), _ZERO)
            case CommitLogOperation.TRUNCATE:
                await self._truncate(change)
            case info:
                raise change.unsupported(f"commit log operation {info:#04x}")

    async def _truncate(self, change: Change) -> None:
        size = 8 if change.pg_version >= 17 else 4
        oldest_xid, database = change.unpack("<II", size)
        change.note(change.checkpoint.advance_oldest_xid(oldest_xid, database))
        await _truncate(change, Slru.CLOG, _page_number(change), XIDS_PER_PAGE)


class MultixactRecords:
    """Handler of resource manager 6."""

    async def apply(self, change: Change) -> None:
        """See :class:`~storage.pageserver.postgres.change.RecordHandler`."""
        match change.record.info & 0xF0:
            case MultixactOperation.ZERO_OFFSETS_PAGE:
                await change.put_slru_page(Slru.MULTIXACT_OFFSETS, _page_number(change), _ZERO)
            case MultixactOperation.ZERO_MEMBERS_PAGE:
                await change.put_slru_page(Slru.MULTIXACT_MEMBERS, _page_number(change), _ZERO)
            case MultixactOperation.CREATE:
                await self._create(change)
            case MultixactOperation.TRUNCATE:
                await self._truncate(change)
            case info:
                raise change.unsupported(f"multixact operation {info:#04x}")

    async def _create(self, change: Change) -> None:
        """Store a multixact. The next one's offset is stored too, as PostgreSQL now does."""
        multi, offset, count = change.unpack("<IIi")
        fields = change.unpack(f"<{2 * count}I", 12)
        members = [Member(*pair) for pair in zip(fields[::2], fields[1::2], strict=True)]
        next_multi = (multi + 1) & 0xFFFFFFFF
        next_offset = (offset + count) & 0xFFFFFFFF
        entries = ((multi, offset), (max(next_multi, _FIRST_MULTI), next_offset or 1))
        for page, delta in (slru_pages.multixact_offset_delta(*entry) for entry in entries):
            await change.put_slru_page(Slru.MULTIXACT_OFFSETS, page, delta)
        for page, delta in slru_pages.multixact_member_deltas(offset, members):
            await change.put_slru_page(Slru.MULTIXACT_MEMBERS, page, delta)
        change.note(change.checkpoint.advance_next_multi(next_multi, next_offset))
        for member in members:
            change.note(change.checkpoint.advance_next_xid(member.xid))

    async def _truncate(self, change: Change) -> None:
        database, _, oldest, first_member, end_member = change.unpack("<5I")
        change.note(change.checkpoint.advance_oldest_multi(oldest, database))
        per_segment = MEMBERS_PER_PAGE * SEGMENT_PAGES
        start, end = first_member // per_segment, end_member // per_segment
        modification = change.modification
        for segment in await modification.directory.slru_segments(Slru.MULTIXACT_MEMBERS):
            if slru_pages.is_between(segment, start, end):
                await modification.drop_slru_segment(Slru.MULTIXACT_MEMBERS, segment)
        previous = oldest - 1 if oldest > _FIRST_MULTI else 0xFFFFFFFF
        cutoff = previous // OFFSETS_PER_PAGE
        await _truncate(change, Slru.MULTIXACT_OFFSETS, cutoff, OFFSETS_PER_PAGE)
