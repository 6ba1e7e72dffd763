"""Writes records into WAL pages: headers, continuation, alignment, segment switch.

The bytes are those PostgreSQL itself would write (``CopyXLogRecordToWAL`` and
``AdvanceXLInsertBuffer`` in ``access/transam/xlog.c``); ``pg_waldump`` reads them.
"""

from __future__ import annotations

from dataclasses import dataclass

from storage.lsn import Lsn
from storage.wal import format as wal_format
from storage.wal.encode import encode
from storage.wal.format import (
    LONG_PAGE_HEADER,
    PAGE_SIZE,
    RMGR_XLOG,
    SHORT_PAGE_HEADER,
    XLOG_SWITCH,
    PageFlag,
    align8,
)
from storage.wal.record import RecordSpec

_LONG_HEADER = int(PageFlag.LONG_HEADER)
_CONTRECORD = int(PageFlag.FIRST_IS_CONTRECORD)
_SWITCH = RecordSpec(rmid=RMGR_XLOG, info=XLOG_SWITCH, xid=0)


@dataclass(frozen=True, slots=True)
class WriterOptions:
    """What the page headers say: major version, segment size in bytes, system id, timeline."""

    version: int
    segment_size: int
    system_id: int
    timeline: int = 1

    def __post_init__(self) -> None:
        wal_format.page_magic(self.version)
        wal_format.check_segment_size(self.segment_size)


def page_header(options: WriterOptions, page: int, remaining: int = 0) -> bytes:
    """The header of the page at ``page``, which begins with ``remaining`` bytes of a record."""
    magic = wal_format.page_magic(options.version)
    flags = _CONTRECORD if remaining else 0
    if page % options.segment_size:
        return SHORT_PAGE_HEADER.pack(magic, flags, options.timeline, page, remaining)
    return LONG_PAGE_HEADER.pack(
        magic, flags | _LONG_HEADER, options.timeline, page, remaining,
        options.system_id, options.segment_size, PAGE_SIZE,
    )  # fmt: skip


class WalWriter:
    """Appends records from ``position`` on, where the record at ``prev_lsn`` ended.

    A position on a page boundary means that the page header is still to be written.
    """

    def __init__(self, options: WriterOptions, position: Lsn, prev_lsn: Lsn) -> None:
        if position % 8 or prev_lsn > position:
            raise ValueError(
                f"cannot write WAL at {position} after the record at {prev_lsn}: "
                "records begin at multiples of 8, each after the one before"
            )
        self._options = options
        self._at = int(position)
        self._prev = int(prev_lsn)
        self._taken = int(position)
        self._chunks: list[bytes] = []

    @property
    def position(self) -> Lsn:
        """End of the last record: where the next record, or its page's header, goes."""
        return Lsn(self._at)

    @property
    def prev_lsn(self) -> Lsn:
        """Start of the last record."""
        return Lsn(self._prev)

    @property
    def next_record_lsn(self) -> Lsn:
        """Where the next record will start: after its page's header, written or not."""
        at = self._at
        if at % PAGE_SIZE == 0:
            at += wal_format.page_header_size(at, self._options.segment_size)
        return Lsn(at)

    def append(self, record: RecordSpec) -> tuple[Lsn, Lsn]:
        """Write one record; returns where it starts and its end (the next one's position)."""
        raw = encode(record, self._prev)
        if self._at % PAGE_SIZE == 0:
            self._begin_page(0)
        start = self._at
        room = PAGE_SIZE - start % PAGE_SIZE
        if len(raw) <= room:
            self._chunks.append(raw)
            self._at += len(raw)
        else:
            self._append_across_pages(raw, room)
        padding = align8(self._at) - self._at
        if padding:
            self._chunks.append(bytes(padding))
            self._at += padding
        assert self._at % 8 == 0, "a record ends where the next one may begin"
        self._prev = start
        return Lsn(start), Lsn(self._at)

    def switch(self) -> tuple[Lsn, Lsn]:
        """Close the segment: an XLOG_SWITCH record, then zeros up to the segment's end.

        Returns the record's start and the segment's end. At a segment's start nothing is
        written, as in PostgreSQL, and both are the present position.
        """
        if self._at % self._options.segment_size == 0:
            return self.position, self.position
        start, _ = self.append(_SWITCH)
        rest = -self._at % self._options.segment_size
        self._chunks.append(bytes(rest))
        self._at += rest
        return start, self.position

    def take(self) -> tuple[Lsn, bytes]:
        """The bytes written since the last take, and the LSN of the first of them."""
        begin, data = self._taken, b"".join(self._chunks)
        assert begin + len(data) == self._at, "every byte written is handed out once"
        self._chunks.clear()
        self._taken = self._at
        return Lsn(begin), data

    def _append_across_pages(self, raw: bytes, room: int) -> None:
        done = 0
        while done < len(raw):
            if room == 0:
                room = PAGE_SIZE - self._begin_page(len(raw) - done)
            piece = raw[done : done + room]
            self._chunks.append(piece)
            self._at += len(piece)
            done += len(piece)
            room = 0

    def _begin_page(self, remaining: int) -> int:
        """Write the header of the page at the present position; returns its size."""
        header = page_header(self._options, self._at, remaining)
        self._chunks.append(header)
        self._at += len(header)
        return len(header)
