"""PostgreSQL's control data: the ``CheckPoint`` structure and the file ``global/pg_control``.

Layouts: ``catalog/pg_control.h`` of 15, 16 and 18, on a 64-bit little-endian machine. The running
checkpoint is what a checkpoint taken just now would say; ingest keeps it up to date record by
record, so that a data directory built at any LSN continues with the right ids.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping
from dataclasses import dataclass, fields
from operator import attrgetter
from typing import Final

from storage.errors import BadRequest, CorruptData
from storage.lsn import Lsn
from storage.wal.format import crc32c

CHECKPOINT: Final = struct.Struct("<QIIB3xiQIIIIIII4xqIII4x")
CONTROL_FILE_SIZE: Final = 8192
STATE_SHUT_DOWN: Final = 1
FIRST_NORMAL_XID: Final = 3

_CONTROL_VERSION: Final = {15: 1300, 16: 1300, 18: 1800}
_CRC_OFFSET: Final = {15: 288, 16: 288, 18: 292}
_HALF: Final = 1 << 31
_MASK: Final = (1 << 32) - 1

_FIELDS: Final = {
    "system_id": ("<Q", 0),
    "control_version": ("<I", 8),
    "catalog_version": ("<I", 12),
    "state": ("<i", 16),
    "checkpoint_lsn": ("<Q", 32),
    "min_recovery_lsn": ("<Q", 136),
    "min_recovery_timeline": ("<I", 144),
    "backup_start_lsn": ("<Q", 152),
    "backup_end_lsn": ("<Q", 160),
    "backup_end_required": ("<?", 168),
    "wal_level": ("<i", 172),
    "wal_log_hints": ("<?", 176),
    "max_connections": ("<i", 180),
    "max_worker_processes": ("<i", 184),
    "max_wal_senders": ("<i", 188),
    "max_prepared_xacts": ("<i", 192),
    "max_locks_per_xact": ("<i", 196),
    "track_commit_timestamp": ("<?", 200),
    "block_size": ("<I", 216),
    "segment_blocks": ("<I", 220),
    "wal_segment_size": ("<I", 228),
    "data_checksum_version": ("<I", 252),
}
_CHECKPOINT_OFFSET: Final = 40


def precedes(left: int, right: int) -> bool:
    """Whether a 32-bit id is before another on the circle of ids (``TransactionIdPrecedes``)."""
    return ((left - right) & _MASK) >= _HALF


@dataclass(slots=True)
class Checkpoint:
    """The ``CheckPoint`` structure, 88 bytes. ``next_xid`` has the epoch in its upper half."""

    redo: int
    timeline: int
    previous_timeline: int
    full_page_writes: int
    wal_level: int
    next_xid: int
    next_oid: int
    next_multi: int
    next_multi_offset: int
    oldest_xid: int
    oldest_xid_database: int
    oldest_multi: int
    oldest_multi_database: int
    time_s: int
    oldest_commit_ts_xid: int
    newest_commit_ts_xid: int
    oldest_active_xid: int

    @classmethod
    def unpack(cls, data: bytes) -> Checkpoint:
        """From 88 bytes; ``CorruptData`` for another length."""
        if len(data) != CHECKPOINT.size:
            raise CorruptData(f"a checkpoint has {len(data)} bytes, expected {CHECKPOINT.size}")
        return cls(*CHECKPOINT.unpack(data))

    def pack(self) -> bytes:
        """The 88 bytes."""
        return CHECKPOINT.pack(*_CHECKPOINT_VALUES(self))

    def advance_next_xid(self, xid: int) -> bool:
        """Make ``next_xid`` follow a 32-bit xid that was seen; whether it changed."""
        if xid < FIRST_NORMAL_XID:
            return False
        ahead = (xid - self.next_xid) & _MASK
        if ahead >= _HALF:
            return False
        self._set_next_xid(self.next_xid + ahead + 1)
        return True

    def advance_next_xid_to(self, next_xid: int) -> bool:
        """Raise ``next_xid`` to a 32-bit next xid that was reported; whether it changed."""
        ahead = (next_xid - self.next_xid) & _MASK
        if ahead == 0 or ahead >= _HALF:
            return False
        self._set_next_xid(self.next_xid + ahead)
        return True

    def _set_next_xid(self, next_xid: int) -> None:
        if next_xid & _MASK < FIRST_NORMAL_XID:  # The ids 0 … 2 are skipped at each wraparound.
            next_xid = next_xid & ~_MASK | FIRST_NORMAL_XID
        assert next_xid > self.next_xid, f"next xid goes back from {self.next_xid} to {next_xid}"
        self.next_xid = next_xid

    def full_xid(self, xid: int) -> int:
        """The 64-bit id of a 32-bit xid that was assigned already."""
        return self.next_xid - ((self.next_xid - xid) & _MASK)

    def advance_next_multi(self, multi: int, offset: int) -> bool:
        """Raise the next multixact id and member offset; whether one changed."""
        changed = False
        if precedes(self.next_multi, multi):
            self.next_multi, changed = multi, True
        if precedes(self.next_multi_offset, offset):
            self.next_multi_offset, changed = offset, True
        return changed

    def advance_oldest_xid(self, xid: int, database: int) -> bool:
        """Raise the oldest xid still in the commit log; whether it changed."""
        if not precedes(self.oldest_xid, xid):
            return False
        self.oldest_xid, self.oldest_xid_database = xid, database
        return True

    def advance_oldest_multi(self, multi: int, database: int) -> bool:
        """Raise the oldest multixact still stored; whether it changed."""
        if not precedes(self.oldest_multi, multi):
            return False
        self.oldest_multi, self.oldest_multi_database = multi, database
        return True


_CHECKPOINT_VALUES: Final = attrgetter(*(field.name for field in fields(Checkpoint)))


class ControlFile:
    """The contents of ``pg_control``; immutable. Field names are those of ``_FIELDS``."""

    def __init__(self, data: bytes, pg_version: int) -> None:
        self.data = data
        self._pg_version = pg_version

    @classmethod
    def load(cls, data: bytes, pg_version: int) -> ControlFile:
        """Check a file's bytes: length, CRC, version; ``BadRequest`` if it cannot be used."""
        control = cls(data, pg_version)
        if len(data) != CONTROL_FILE_SIZE:
            raise BadRequest(f"pg_control has {len(data)} bytes, expected {CONTROL_FILE_SIZE}")
        version, expected = control["control_version"], _CONTROL_VERSION[pg_version]
        if version != expected:
            raise BadRequest(
                f"pg_control has version {version}; PostgreSQL {pg_version} writes {expected}"
            )
        end = _CRC_OFFSET[pg_version]
        if crc32c(data[:end]) != int.from_bytes(data[end : end + 4], "little"):
            raise BadRequest("pg_control does not match its CRC; copy the data directory again")
        return control

    def __getitem__(self, field: str) -> int:
        layout, offset = _FIELDS[field]
        return int(struct.unpack_from(layout, self.data, offset)[0])

    @property
    def checkpoint_lsn(self) -> Lsn:
        """Where the newest checkpoint record starts."""
        return Lsn(self["checkpoint_lsn"])

    @property
    def checkpoint(self) -> Checkpoint:
        """The copy of the newest checkpoint."""
        end = _CHECKPOINT_OFFSET + CHECKPOINT.size
        return Checkpoint.unpack(self.data[_CHECKPOINT_OFFSET:end])

    def replace(
        self, values: Mapping[str, int], checkpoint: Checkpoint | None = None
    ) -> ControlFile:
        """A file with other values and the CRC that belongs to them."""
        data = bytearray(self.data)
        for field, value in values.items():
            layout, offset = _FIELDS[field]
            struct.pack_into(layout, data, offset, value)
        if checkpoint is not None:
            data[_CHECKPOINT_OFFSET : _CHECKPOINT_OFFSET + CHECKPOINT.size] = checkpoint.pack()
        end = _CRC_OFFSET[self._pg_version]
        data[end : end + 4] = crc32c(bytes(data[:end])).to_bytes(4, "little")
        return ControlFile(bytes(data), self._pg_version)
