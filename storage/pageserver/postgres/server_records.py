"""Resource managers XLOG and STANDBY: checkpoints, counters and parameters of the server.

Layouts: ``pg_control.h``, ``xlog_internal.h``, ``standbydefs.h``.
"""

from __future__ import annotations

from enum import IntEnum

from storage.errors import CorruptData
from storage.pageserver.postgres.change import Change
from storage.pageserver.postgres.control import CHECKPOINT, Checkpoint, ControlFile


class Operation(IntEnum):
    """Operations of the resource manager XLOG that do something (``pg_control.h``)."""

    CHECKPOINT_SHUTDOWN = 0x00
    CHECKPOINT_ONLINE = 0x10
    NEXTOID = 0x30
    PARAMETER_CHANGE = 0x60
    FPW_CHANGE = 0x80
    END_OF_RECOVERY = 0x90


class ServerRecords:
    """Handler of resource manager 0."""

    async def apply(self, change: Change) -> None:
        """See :class:`~storage.pageserver.postgres.change.RecordHandler`."""
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
        if values[-1]:
            raise change.unsupported("track_commit_timestamp is on; its files are not kept")
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
    """Operations of the resource manager STANDBY that do something (``standbydefs.h``)."""

    RUNNING_XACTS = 0x10


class StandbyRecords:
    """Handler of resource manager 8; locks and invalidations mean nothing to stored pages."""

    async def apply(self, change: Change) -> None:
        """See :class:`~storage.pageserver.postgres.change.RecordHandler`."""
        match change.record.info & 0xF0:
            case StandbyOperation.RUNNING_XACTS:
                (next_xid,) = change.unpack("<I", 12)
                change.note(change.checkpoint.advance_next_xid_to(next_xid))
            case info:
                raise change.unsupported(f"standby operation {info:#04x}")
