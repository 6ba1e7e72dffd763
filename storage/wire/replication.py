"""Messages inside the CopyData of streaming replication, packed and parsed.

Source: PostgreSQL documentation, "Streaming Replication Protocol". Timestamps are microseconds
since 2000-01-01 UTC and come from the caller; :data:`POSTGRES_EPOCH_US` turns Unix time into them.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass

from storage.errors import ProtocolError
from storage.lsn import Lsn
from storage.wire.session import Session, Value
from storage.wire.values import Column, TypeOid

POSTGRES_EPOCH_US = 946_684_800_000_000
"""Microseconds from the Unix epoch to the Postgres epoch."""

_XLOG_DATA = struct.Struct("!cQQq")
_KEEPALIVE = struct.Struct("!cQqc")
_STATUS = struct.Struct("!cQQQqc")
_FEEDBACK = struct.Struct("!cqIIII")


@dataclass(frozen=True, slots=True)
class XLogData:
    """WAL from ``start_lsn``; ``end_lsn`` is how far the server's WAL goes."""

    start_lsn: Lsn
    end_lsn: Lsn
    sent_at_us: int
    data: bytes


@dataclass(frozen=True, slots=True)
class Keepalive:
    """The server is alive and its WAL goes to ``end_lsn``; may ask for an answer at once."""

    end_lsn: Lsn
    sent_at_us: int
    reply_requested: bool


@dataclass(frozen=True, slots=True)
class StandbyStatus:
    """How far the receiver has written, flushed and applied (each: the next byte's LSN)."""

    write_lsn: Lsn
    flush_lsn: Lsn
    apply_lsn: Lsn
    sent_at_us: int
    reply_requested: bool = False


@dataclass(frozen=True, slots=True)
class HotStandbyFeedback:
    """Oldest transactions that a hot standby still needs; both 0 when it asks for nothing."""

    sent_at_us: int
    xmin: int
    xmin_epoch: int
    catalog_xmin: int
    catalog_xmin_epoch: int

    @property
    def asks(self) -> bool:
        """Whether anything is to be kept (``hot_standby_feedback`` is on)."""
        return self.xmin != 0 or self.catalog_xmin != 0


def xlog_data_header(start_lsn: int, end_lsn: int, sent_at_us: int) -> bytes:
    """Header of an XLogData message; send it and the WAL as the two parts of one message."""
    return _XLOG_DATA.pack(b"w", start_lsn, end_lsn, sent_at_us)


def keepalive(end_lsn: int, sent_at_us: int, *, reply_requested: bool) -> bytes:
    """A primary keepalive message."""
    return _KEEPALIVE.pack(b"k", end_lsn, sent_at_us, b"\1" if reply_requested else b"\0")


def standby_status(status: StandbyStatus) -> bytes:
    """A standby status update."""
    return _STATUS.pack(
        b"r",
        status.write_lsn,
        status.flush_lsn,
        status.apply_lsn,
        status.sent_at_us,
        b"\1" if status.reply_requested else b"\0",
    )


def hot_standby_feedback(feedback: HotStandbyFeedback) -> bytes:
    """A hot standby feedback message."""
    return _FEEDBACK.pack(
        b"h",
        feedback.sent_at_us,
        feedback.xmin,
        feedback.xmin_epoch,
        feedback.catalog_xmin,
        feedback.catalog_xmin_epoch,
    )


def parse_from_server(message: bytes) -> XLogData | Keepalive:
    """What a sender of WAL sent; ``ProtocolError`` for anything else."""
    kind = message[:1]
    if kind == b"w" and len(message) >= _XLOG_DATA.size:
        _, start, end, at = _XLOG_DATA.unpack_from(message)
        return XLogData(Lsn(start), Lsn(end), at, message[_XLOG_DATA.size :])
    if kind == b"k" and len(message) == _KEEPALIVE.size:
        _, end, at, reply = _KEEPALIVE.unpack(message)
        return Keepalive(Lsn(end), at, reply != b"\0")
    raise ProtocolError(f"not a replication message: {len(message)} bytes of type {kind!r}")


def parse_from_standby(message: bytes) -> StandbyStatus | HotStandbyFeedback:
    """What a receiver of WAL sent; ``ProtocolError`` for anything else."""
    kind = message[:1]
    if kind == b"r" and len(message) == _STATUS.size:
        _, write, flush, apply, at, reply = _STATUS.unpack(message)
        return StandbyStatus(Lsn(write), Lsn(flush), Lsn(apply), at, reply != b"\0")
    if kind == b"h" and len(message) == _FEEDBACK.size:
        return HotStandbyFeedback(*_FEEDBACK.unpack(message)[1:])
    raise ProtocolError(f"not a standby message: {len(message)} bytes of type {kind!r}")


IDENTIFY_SYSTEM_COLUMNS = (
    "systemid",
    Column("timeline", TypeOid.INT4),
    "xlogpos",
    "dbname",
)


async def answer_identify_system(
    session: Session, *, system_id: int, timeline: int, flush_lsn: Lsn
) -> None:
    """The one row of IDENTIFY_SYSTEM."""
    row: tuple[Value, ...] = (str(system_id), timeline, str(flush_lsn), None)
    await session.rows(IDENTIFY_SYSTEM_COLUMNS, [row], "IDENTIFY_SYSTEM")


async def complete_streaming(session: Session) -> None:
    """Complete START_REPLICATION after its copy is done.

    Stock walreceivers want two completions: the first ends the copy for ``PQendcopy``, the second
    is the command's (``exec_replication_command`` in ``walsender.c`` sends both).
    """
    await session.complete("START_STREAMING")
    await session.complete("START_REPLICATION")
