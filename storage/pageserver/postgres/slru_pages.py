"""Commit log and multixact pages: where an id is stored, and the redo of changes to a page.

Layouts: ``clog.c`` and ``multixact.c`` of PostgreSQL 15 to 18. Positions are in ids' own 32-bit
circles; a page number is the id divided by the ids in a page.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from typing import Final, NamedTuple

from storage.errors import CorruptData
from storage.lsn import Lsn
from storage.pageserver.keys import BLOCK_SIZE
from storage.pageserver.redo import OPCODE_POSTGRES_FIRST, RedoTable
from storage.pageserver.values import Delta

SEGMENT_PAGES: Final = 32
XIDS_PER_PAGE: Final = BLOCK_SIZE * 4
OFFSETS_PER_PAGE: Final = BLOCK_SIZE // 4
MEMBERS_PER_PAGE: Final = BLOCK_SIZE // 20 * 4

STATUS_COMMITTED: Final = 1
STATUS_ABORTED: Final = 2

OPCODE_XID_STATUS: Final = OPCODE_POSTGRES_FIRST
OPCODE_MULTIXACT_OFFSETS: Final = OPCODE_POSTGRES_FIRST + 1
OPCODE_MULTIXACT_MEMBERS: Final = OPCODE_POSTGRES_FIRST + 2

_OFFSET_ENTRY: Final = struct.Struct("<HI")
_MEMBER_ENTRY: Final = struct.Struct("<HIB")
_INDEX: Final = struct.Struct("<H")
_UINT32: Final = struct.Struct("<I")


class SlruPage(NamedTuple):
    """A page's place: the segment file and the page within it."""

    segment: int
    block: int

    @classmethod
    def of(cls, page: int) -> SlruPage:
        """The place of the page with a number."""
        return cls(*divmod(page, SEGMENT_PAGES))


class Member(NamedTuple):
    """One member of a multixact: transaction and lock status."""

    xid: int
    status: int


def register(table: RedoTable) -> None:
    """Make the opcodes of this module known."""
    for opcode, change in _CHANGES.items():
        table.register(opcode, partial(_redo_one, change), batch=partial(_redo_run, change))


def xid_status_deltas(xids: Iterable[int], status: int) -> list[tuple[int, Delta]]:
    """(page, change) for each commit log page that holds one of the transactions."""
    pages: dict[int, list[int]] = {}
    for xid in xids:
        page, index = divmod(xid, XIDS_PER_PAGE)
        pages.setdefault(page, []).append(index)
    return [
        (page, Delta(OPCODE_XID_STATUS, struct.pack(f"<B{len(indexes)}H", status, *indexes)))
        for page, indexes in pages.items()
    ]


def change_xid_status(page: bytearray, data: bytes) -> None:
    """Set the two status bits of each transaction named in ``data``."""
    status = data[0]
    for (index,) in _INDEX.iter_unpack(data[1:]):
        shift = index % 4 * 2
        page[index // 4] = page[index // 4] & ~(3 << shift) | status << shift


def multixact_offset_delta(multi: int, offset: int) -> tuple[int, Delta]:
    """(page, change) that stores where a multixact's members begin."""
    page, index = divmod(multi, OFFSETS_PER_PAGE)
    return page, Delta(OPCODE_MULTIXACT_OFFSETS, _OFFSET_ENTRY.pack(index, offset))


def change_multixact_offsets(page: bytearray, data: bytes) -> None:
    """Store each (index, offset) of ``data``."""
    for index, offset in _OFFSET_ENTRY.iter_unpack(data):
        _UINT32.pack_into(page, index * 4, offset)


def multixact_member_deltas(offset: int, members: Sequence[Member]) -> list[tuple[int, Delta]]:
    """(page, change) for each page that holds one of the members, stored from ``offset`` on."""
    pages: dict[int, list[bytes]] = {}
    for number, member in enumerate(members):
        page, index = divmod((offset + number) & 0xFFFFFFFF, MEMBERS_PER_PAGE)
        pages.setdefault(page, []).append(_MEMBER_ENTRY.pack(index, *member))
    return [
        (page, Delta(OPCODE_MULTIXACT_MEMBERS, b"".join(entries)))
        for page, entries in pages.items()
    ]


def change_multixact_members(page: bytearray, data: bytes) -> None:
    """Store each (index, xid, status): groups of four status bytes, then four transactions."""
    for index, xid, status in _MEMBER_ENTRY.iter_unpack(data):
        group = index // 4 * 20
        page[group + index % 4] = status
        _UINT32.pack_into(page, group + 4 + index % 4 * 4, xid)


def is_between(segment: int, start: int, end: int) -> bool:
    """Whether a member segment lies in [start, end) on the circle of segments."""
    count = 0xFFFFFFFF // MEMBERS_PER_PAGE // SEGMENT_PAGES + 1
    return (segment - start) % count < (end - start) % count


_PageChange = Callable[[bytearray, bytes], None]
_CHANGES: Final[dict[int, _PageChange]] = {
    OPCODE_XID_STATUS: change_xid_status,
    OPCODE_MULTIXACT_OFFSETS: change_multixact_offsets,
    OPCODE_MULTIXACT_MEMBERS: change_multixact_members,
}


def _redo_one(change: _PageChange, page: bytes | None, data: bytes, lsn: Lsn) -> bytes:
    return _redo_run(change, page, ((lsn, data),))


def _redo_run(change: _PageChange, page: bytes | None, run: Iterable[tuple[int, bytes]]) -> bytes:
    """One copy of the page for any number of changes; a page never written holds zeros."""
    changed = bytearray(BLOCK_SIZE) if page is None else bytearray(page)
    if len(changed) != BLOCK_SIZE:
        raise CorruptData(f"an SLRU page has {len(changed)} bytes instead of {BLOCK_SIZE}")
    for _, data in run:
        change(changed, data)
    return bytes(changed)
