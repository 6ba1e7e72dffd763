"""Finds the end of the WAL: the end of the last complete record, by walking the records.

File sizes and names say nothing: segments are pre-allocated, recycled, or torn. Only records with
a right CRC that link back to the one before count (``FindEndOfWAL`` walks likewise in recovery).
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Final

from storage.errors import CorruptData
from storage.lsn import Lsn
from storage.wal.format import PAGE_SIZE
from storage.wal.reader import WalReader

ReadSegment = Callable[[int, int, int], Awaitable[bytes]]
"""``(segment number, offset, length)`` → bytes; fewer, or none, when the segment has no more."""

_READ_SIZE: Final = 32 * PAGE_SIZE


@dataclass(frozen=True, slots=True)
class WalRange:
    """Where to begin: the end of a record known to be whole, and how the WAL is written.

    ``prev_lsn`` is the start of that record when it is known; it lets the very first record be
    checked against stale bytes as well.
    """

    start_lsn: Lsn
    version: int
    segment_size: int
    system_id: int | None = None
    prev_lsn: Lsn | None = None


@dataclass(frozen=True, slots=True)
class EndOfWal:
    """The end of the last complete record, its start (None: there is none), and what stopped us.

    ``torn``: behind the end there is something else than zeros.
    """

    end_lsn: Lsn
    last_lsn: Lsn | None
    reason: str
    torn: bool = False


async def find_end_of_wal(read_segment: ReadSegment, wal: WalRange) -> EndOfWal:
    """Walk from ``wal.start_lsn`` to the end of the last complete record.

    The result is never before the start: a start at the very end is the answer itself, also in a
    segment whose beginning is a hole. Errors of ``read_segment`` pass through.
    """
    reader = WalReader(
        wal.start_lsn, wal.version, wal.segment_size, wal.system_id, check_prev=wal.prev_lsn
    )
    reason, torn = "no more bytes", False
    while True:
        position = reader.position
        segment, offset = divmod(int(position), wal.segment_size)
        length = min(_READ_SIZE - position % PAGE_SIZE, wal.segment_size - offset)
        data = await read_segment(segment, offset, length)
        if not data:
            break
        reader.feed(data)
        try:
            for _ in reader.records():
                pass
        except CorruptData as error:
            reason = str(error)
            torn = reader.last_end_lsn < position or any(data[reader.last_end_lsn - position :])
            break
    assert reader.last_end_lsn >= wal.start_lsn, "the end of WAL is never before the start"
    return EndOfWal(reader.last_end_lsn, reader.last_lsn, reason, torn)
