"""Resource manager XACT: commit log bits, dropped relations, prepared transactions.

Layout: ``ParseCommitRecord`` and ``ParsePrepareRecord`` (``xactdesc.c``), ``xact.h``.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from enum import IntEnum
from typing import Final

from storage.errors import CorruptData
from storage.pageserver.keys import Relation, Slru
from storage.pageserver.postgres import origins, slru_pages
from storage.pageserver.postgres.change import Change
from storage.wal.format import align8, crc32c


class Operation(IntEnum):
    """Operations of the resource manager XACT that do something (``xact.h``)."""

    COMMIT = 0x00
    PREPARE = 0x10
    ABORT = 0x20
    COMMIT_PREPARED = 0x30
    ABORT_PREPARED = 0x40
    ASSIGNMENT = 0x50


_OPERATION_MASK: Final = 0x70
_HAS_INFO: Final = 0x80
_HAS_DATABASE: Final = 1 << 0
_HAS_SUBXACTS: Final = 1 << 1
_HAS_RELATIONS: Final = 1 << 2
_HAS_INVALIDATIONS: Final = 1 << 3
_HAS_TWOPHASE: Final = 1 << 4
_HAS_ORIGIN: Final = 1 << 5
_HAS_GID: Final = 1 << 7
_HAS_DROPPED_STATS: Final = 1 << 8

_INVALIDATION_SIZE: Final = 16
_RELATION_SIZE: Final = 12
_PREPARE_HEADER_SIZE: Final = 72
FORKS: Final = 4


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a commit or abort record says.

    ``origin_lsn`` is where the transaction ended at its replication origin, if it has one.
    """

    xid: int
    subxids: tuple[int, ...]
    dropped: tuple[tuple[int, int, int], ...]
    origin_lsn: int | None = None


def parse_outcome(change: Change) -> Outcome:
    """Take a commit or abort record apart; ``CorruptData`` if it is too short."""
    record, data = change.record, change.record.main_data
    xid = record.xid
    subxids: tuple[int, ...] = ()
    dropped: tuple[tuple[int, int, int], ...] = ()
    at = 8  # The time comes first.
    info = 0
    origin_lsn = None
    try:
        if record.info & _HAS_INFO:
            (info,) = struct.unpack_from("<I", data, at)
            at += 4
        if info & _HAS_DATABASE:
            at += 8
        if info & _HAS_SUBXACTS:
            (count,) = struct.unpack_from("<i", data, at)
            subxids = struct.unpack_from(f"<{count}I", data, at + 4)
            at += 4 + 4 * count
        if info & _HAS_RELATIONS:
            (count,) = struct.unpack_from("<i", data, at)
            end = at + 4 + _RELATION_SIZE * count
            dropped = tuple(struct.iter_unpack("<III", data[at + 4 : end]))
            at = end
        if info & _HAS_DROPPED_STATS:
            (count,) = struct.unpack_from("<i", data, at)
            at += 4 + (16 if change.pg_version >= 18 else 12) * count
        if info & _HAS_INVALIDATIONS:
            (count,) = struct.unpack_from("<i", data, at)
            at += 4 + _INVALIDATION_SIZE * count
        if info & _HAS_TWOPHASE:
            (xid,) = struct.unpack_from("<I", data, at)
            at += 4
            if info & _HAS_GID:
                at = data.index(b"\0", at) + 1
        if info & _HAS_ORIGIN:
            (origin_lsn,) = struct.unpack_from("<Q", data, at)
    except (struct.error, ValueError):
        raise CorruptData(f"commit or abort record at {record.lsn} is too short") from None
    return Outcome(xid, subxids, dropped, origin_lsn)


class TransactionRecords:
    """Handler of resource manager 1."""

    async def apply(self, change: Change) -> None:
        """See :class:`~storage.pageserver.postgres.change.RecordHandler`."""
        match change.record.info & _OPERATION_MASK:
            case Operation.COMMIT:
                await self._note_time(change)
                await self._finish(change, slru_pages.STATUS_COMMITTED, prepared=False)
            case Operation.ABORT:
                await self._finish(change, slru_pages.STATUS_ABORTED, prepared=False)
            case Operation.COMMIT_PREPARED:
                await self._note_time(change)
                await self._finish(change, slru_pages.STATUS_COMMITTED, prepared=True)
            case Operation.ABORT_PREPARED:
                await self._finish(change, slru_pages.STATUS_ABORTED, prepared=True)
            case Operation.PREPARE:
                await self._prepare(change)
            case Operation.ASSIGNMENT:
                self._assign(change)
            case operation:
                raise change.unsupported(f"transaction operation {operation:#04x}")

    async def _note_time(self, change: Change) -> None:
        """``xact_time`` comes first (``xl_xact_commit``)."""
        (time_us,) = change.unpack("<q")
        await change.modification.put_commit_time(time_us)

    async def _finish(self, change: Change, status: int, *, prepared: bool) -> None:
        outcome = parse_outcome(change)
        for xid in (outcome.xid, *outcome.subxids):
            change.note(change.checkpoint.advance_next_xid(xid))
        await self._set_status(change, outcome, status)
        for space, database, relation in outcome.dropped:
            await self._drop(change, space, database, relation)
        if outcome.origin_lsn is not None:
            await origins.advance(change.modification, change.record.origin, outcome.origin_lsn)
        if prepared:
            full_xid = change.checkpoint.full_xid(outcome.xid)
            await change.modification.drop_twophase_file(full_xid)

    async def _set_status(self, change: Change, outcome: Outcome, status: int) -> None:
        xids = [xid for xid in (outcome.xid, *outcome.subxids) if xid]
        for page, delta in slru_pages.xid_status_deltas(xids, status):
            await change.put_slru_page(Slru.CLOG, page, delta)

    async def _drop(self, change: Change, space: int, database: int, relation: int) -> None:
        for fork in range(FORKS):
            await change.modification.drop_relation(Relation(space, database, relation, fork))

    async def _prepare(self, change: Change) -> None:
        """The state file is the record's main data followed by its CRC (``twophase.c``)."""
        data = change.record.main_data
        xid, subxids = change.unpack("<I", 8)[0], change.unpack("<i", 28)[0]
        gid_length, origin_lsn = change.unpack("<HQ", 54)
        at = _PREPARE_HEADER_SIZE + align8(gid_length)
        for subxid in (xid, *change.unpack(f"<{subxids}I", at)):
            change.note(change.checkpoint.advance_next_xid(subxid))
        content = data + crc32c(data).to_bytes(4, "little")
        full_xid = change.checkpoint.full_xid(xid)
        await change.modification.put_twophase_file(full_xid, content)
        if change.record.origin:
            await origins.advance(change.modification, change.record.origin, origin_lsn)

    def _assign(self, change: Change) -> None:
        top_xid, count = change.unpack("<Ii")
        for xid in (top_xid, *change.unpack(f"<{count}I", 8)):
            change.note(change.checkpoint.advance_next_xid(xid))
