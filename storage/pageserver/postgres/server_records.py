"""Resource managers XLOG and STANDBY: checkpoints, counters and parameters of the server.

Layouts: ``pg_control.h``, ``xlog_internal.h``, ``standbydefs.h``.
"""

from __future__ import annotations

from enum import IntEnum

from storage.errors import CorruptData
from storage.pageserver.postgres.change import Change
from storage.pageserver.postgres.control import CHECKPOINT, Checkpoint, ControlFile
from storage.wal.format import RMGR_XLOG
from storage.wal.record import WalRecord


class Operation(IntEnum):
    """Operations of the resource manager XLOG (``pg_control.h``)."""

    CHECKPOINT_SHUTDOWN = 0x00
    CHECKPOINT_ONLINE = 0x10
    NOOP = 0x20
    NEXTOID = 0x30
    SWITCH = 0x40
    BACKUP_END = 0x50
    PARAMETER_CHANGE = 0x60
    RESTORE_POINT = 0x70
    FPW_CHANGE = 0x80
    END_OF_RECOVERY = 0x90
    FPI_FOR_HINT = 0xA0
    FPI = 0xB0
    OVERWRITE_CONTRECORD = 0xD0
    CHECKPOINT_REDO = 0xE0


_IMAGES_ONLY = frozenset(
    (
        Operation.NOOP, Operation.SWITCH, Operation.BACKUP_END, Operation.RESTORE_POINT,
        Operation.FPI_FOR_HINT, Operation.FPI, Operation.OVERWRITE_CONTRECORD,
        Operation.CHECKPOINT_REDO,
    )
)  # fmt: skip


def is_image_only(record: WalRecord) -> bool:
    """Whether it is a record of the XLOG manager with no effect besides its images, if any."""
    return record.rmid == RMGR_XLOG and record.info & 0xF0 in _IMAGES_ONLY


class ServerRecords:
    """Handler of resource manager 0."""

    async def apply(self, change: Change) -> None:
        """See :class:`~storage.pageserver.postgres.change.RecordHandler`."""
        if is_image_only(change.record):
            return
        match change.record.info & 0xF0:
            case Operation.CHECKPOINT_SHUTDOWN:
                self._checkpoint(change, shutdown=True)
            case Operation.CHECKPOINT_ONLINE:
                self._checkpoint(change, shutdown=False)
            case Operation.NEXTOID:
                (change.checkpoint.next_oid,) = change.unpack("<I")
                change.note(True)
            case Operation.PARAMETER_CHANGE:
                await self._parameters(change)
            case Operation.FPW_CHANGE:
                (change.checkpoint.full_page_writes,) = change.unpack("<B")
                change.note(True)
            case Operation.END_OF_RECOVERY:
                self._end_of_recovery(change)
            case info:
                raise change.unsupported(f"server operation {info:#04x}")

    def _checkpoint(self, change: Change, *, shutdown: bool) -> None:
        """Take over the counters that are ahead; only a shutdown knows the next oid for sure."""
        seen = Checkpoint.unpack(change.record.main_data[: CHECKPOINT.size])
        running = change.checkpoint
        self._check_timeline(change, seen.timeline)
        running.advance_next_xid_to(seen.next_xid & 0xFFFFFFFF)
        running.advance_next_multi(seen.next_multi, seen.next_multi_offset)
        running.advance_oldest_xid(seen.oldest_xid, seen.oldest_xid_database)
        running.advance_oldest_multi(seen.oldest_multi, seen.oldest_multi_database)
        if shutdown:
            running.next_oid = seen.next_oid
        running.full_page_writes = seen.full_page_writes
        running.wal_level = seen.wal_level
        running.time_s = seen.time_s
        change.note(True)

    def _end_of_recovery(self, change: Change) -> None:
        self._check_timeline(change, change.unpack("<I", 8)[0])

    def _check_timeline(self, change: Change, timeline: int) -> None:
        if timeline != change.checkpoint.timeline:
            raise change.unsupported(
                f"WAL switches from timeline {change.checkpoint.timeline} to {timeline}; "
                "a promoted standby cannot be followed"
            )

    async def _parameters(self, change: Change) -> None:
        """Keep ``pg_control`` as the server keeps it: a later start compares its settings."""
        values = change.unpack("<6i??")
        data = await change.modification.directory.control_file()
        if data is None:
            raise CorruptData("no pg_control: import a data directory first")
        control = ControlFile(data, change.pg_version)
        names = (
            "max_connections", "max_worker_processes", "max_wal_senders", "max_prepared_xacts",
            "max_locks_per_xact", "wal_level", "wal_log_hints", "track_commit_timestamp",
        )  # fmt: skip
        changed = control.replace(dict(zip(names, values, strict=True)))
        change.modification.put_control_file(changed.data)


class StandbyOperation(IntEnum):
    """Operations of the resource manager STANDBY (``standbydefs.h``)."""

    LOCK = 0x00
    RUNNING_XACTS = 0x10
    INVALIDATIONS = 0x20


class StandbyRecords:
    """Handler of resource manager 8; locks and invalidations mean nothing to stored pages."""

    async def apply(self, change: Change) -> None:
        """See :class:`~storage.pageserver.postgres.change.RecordHandler`."""
        match change.record.info & 0xF0:
            case StandbyOperation.RUNNING_XACTS:
                (next_xid,) = change.unpack("<I", 12)
                change.note(change.checkpoint.advance_next_xid_to(next_xid))
            case StandbyOperation.LOCK | StandbyOperation.INVALIDATIONS:
                pass
            case info:
                raise change.unsupported(f"standby operation {info:#04x}")
