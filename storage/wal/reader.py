"""Push parser of WAL: bytes go in by any chunking, checked whole records come out.

Refuses the first byte that is wrong (page header, length, CRC, ``xl_prev``) by a ``CorruptData``
that names its LSN; the records before it are still delivered. Rules: PostgreSQL
``access/transam/xlogreader.c``, versions 15 to 18.
"""

from __future__ import annotations

import struct
from collections import deque
from collections.abc import Iterator
from typing import NamedTuple

from storage.errors import CorruptData
from storage.lsn import Lsn
from storage.wal import format as wal_format
from storage.wal.format import (
    LONG_PAGE_HEADER,
    PAGE_FLAGS_ALL,
    PAGE_SIZE,
    RECORD_HEADER,
    RECORD_HEADER_SIZE,
    RECORD_SIZE_MAX,
    RMGR_XLOG,
    SHORT_PAGE_HEADER,
    XLOG_SWITCH,
    PageFlag,
    align8,
)

_LENGTH = struct.Struct("<I")
_LONG_HEADER = int(PageFlag.LONG_HEADER)
_CONTRECORD = int(PageFlag.FIRST_IS_CONTRECORD)
_OVERWRITE = int(PageFlag.FIRST_IS_OVERWRITE_CONTRECORD)


class RawRecord(NamedTuple):
    """A whole record whose CRC holds: first byte, end (as PostgreSQL's ``EndRecPtr``), bytes."""

    lsn: Lsn
    end_lsn: Lsn
    raw: bytes


class WalReader:
    """Splits a WAL byte stream that begins at ``start_lsn`` into records.

    ``start_lsn`` is where a record begins: the end of the one before it, or just after a page
    header. ``check_prev`` is the LSN of that preceding record; without it the first record's link
    is only required to point back.
    """

    def __init__(
        self,
        start_lsn: Lsn,
        version: int,
        segment_size: int,
        system_id: int | None = None,
        *,
        check_prev: Lsn | None = None,
    ) -> None:
        if start_lsn % 8:
            raise ValueError(
                f"WAL cannot be read from {start_lsn}: records begin at multiples of 8"
            )
        self._magic = wal_format.page_magic(version)
        self._segment_size = wal_format.check_segment_size(segment_size)
        self._system_id = system_id
        self._previous = check_prev
        self._buffer = b""
        self._base = int(start_lsn)  # LSN of _buffer[0]
        self._at = int(start_lsn)  # LSN of the next byte to interpret; beyond the buffer: ignored
        self._pieces: list[bytes] = []  # of a record that crosses pages
        self._record_at = 0
        self._needed = 0  # bytes that the record, or the skipped remainder, still lacks
        self._skip_allowed = False
        self._skipping = False
        self._ready: deque[RawRecord] = deque()
        self._failure: CorruptData | None = None
        self._last_end = start_lsn

    @classmethod
    def at_page(cls, page_lsn: Lsn, version: int, segment_size: int) -> WalReader:
        """A reader from the start of a page, which skips the end of a record begun before it."""
        if page_lsn % PAGE_SIZE:
            raise ValueError(f"{page_lsn} is not the start of a WAL page")
        reader = cls(page_lsn, version, segment_size)
        reader._skip_allowed = True
        return reader

    @property
    def position(self) -> Lsn:
        """The LSN of the next byte to feed."""
        return Lsn(self._base + len(self._buffer))

    @property
    def last_end_lsn(self) -> Lsn:
        """End of the newest whole record fed so far; the start position before there is one."""
        return self._last_end

    @property
    def last_lsn(self) -> Lsn | None:
        """Start of the newest whole record: what the next one's ``xl_prev`` must say."""
        return self._previous

    def feed(self, data: bytes) -> None:
        """Take the bytes that follow all those fed before. Never raises for what they say."""
        used = min(self._at - self._base, len(self._buffer))
        self._buffer = self._buffer[used:] + data if used < len(self._buffer) else bytes(data)
        self._base += used
        if self._failure is None:
            self._advance()

    def records(self) -> Iterator[RawRecord]:
        """Deliver, once, each record that is whole; then raise ``CorruptData`` if one was wrong.

        A reader that met a wrong byte stays where it is: it raises each time from then on.
        """
        ready = self._ready
        while ready:
            yield ready.popleft()
        if self._failure is not None:
            raise self._failure

    def _advance(self) -> None:
        try:
            while self._at < self._base + len(self._buffer):
                if self._at % PAGE_SIZE == 0:
                    if not self._take_page_header():
                        return
                elif self._needed:
                    self._collect()
                elif not self._take_records():
                    return
        except CorruptData as failure:
            self._failure = failure

    def _take_records(self) -> bool:
        """Split off the records that lie in the present page; False when more bytes are needed."""
        buffer, base, at = self._buffer, self._base, self._at
        page_end = at - at % PAGE_SIZE + PAGE_SIZE
        limit = min(page_end, base + len(buffer))
        while at + 4 <= limit:
            (length,) = _LENGTH.unpack_from(buffer, at - base)
            if not RECORD_HEADER_SIZE <= length <= RECORD_SIZE_MAX:
                raise CorruptData(f"record length {length} at {Lsn(at)} is not possible")
            end = at + length
            if end > limit:
                if limit < page_end and end <= page_end:
                    return False  # The rest of this page is still to come.
                self._record_at, self._needed = at, length
                return True
            self._accept(at, (end + 7) & -8, buffer[at - base : end - base])
            at = self._at
        return at >= page_end

    def _accept(self, at: int, end: int, raw: bytes) -> None:
        """Check a whole record and make it ready."""
        _, _, previous, info, rmid, crc = RECORD_HEADER.unpack_from(raw)
        if previous != self._previous:
            self._check_first_link(at, previous)
        if wal_format.record_crc(raw) != crc:
            raise CorruptData(
                f"record at {Lsn(at)}: CRC is {wal_format.record_crc(raw):08X}, stored {crc:08X}"
            )
        if not wal_format.is_valid_rmgr(rmid):
            raise CorruptData(f"record at {Lsn(at)}: resource manager id {rmid} does not exist")
        if rmid == RMGR_XLOG and info & 0xF0 == XLOG_SWITCH:
            end += -end % self._segment_size
        lsn, end_lsn = Lsn(at), Lsn(end)
        self._previous, self._skip_allowed = lsn, False
        self._last_end = end_lsn
        self._at = end
        self._ready.append(RawRecord(lsn, end_lsn, raw))

    def _check_first_link(self, at: int, previous: int) -> None:
        if self._previous is not None:
            raise CorruptData(
                f"record at {Lsn(at)}: previous record is {Lsn(previous)}, not {self._previous}"
            )
        if previous >= at:
            raise CorruptData(f"record at {Lsn(at)}: previous record {Lsn(previous)} is not before")

    def _collect(self) -> None:
        """Move what this page has of a record that crosses pages; accept it when it is whole."""
        begin = self._at - self._base
        room = PAGE_SIZE - self._at % PAGE_SIZE
        piece = self._buffer[begin : begin + min(self._needed, room)]
        assert piece, "collecting requires bytes in the buffer"
        self._at += len(piece)
        self._needed -= len(piece)
        if self._skipping:
            self._skipping = self._needed > 0
            if not self._skipping:
                self._at = align8(self._at)
            return
        self._pieces.append(piece)
        if self._needed == 0:
            raw = b"".join(self._pieces)
            self._pieces = []
            self._accept(self._record_at, align8(self._at), raw)

    def _take_page_header(self) -> bool:
        """Check the header of the page that starts here; False when it is not all there yet."""
        page = self._at
        size = wal_format.page_header_size(page, self._segment_size)
        begin = page - self._base
        if len(self._buffer) - begin < size:
            return False
        magic, flags, _, address, remaining = SHORT_PAGE_HEADER.unpack_from(self._buffer, begin)
        if magic != self._magic or address != page or flags & ~PAGE_FLAGS_ALL:
            raise CorruptData(
                f"page at {Lsn(page)}: header has magic {magic:04X}, flags {flags:04X}, address "
                f"{Lsn(address)}; expected magic {self._magic:04X} and its own address"
            )
        is_long = size == LONG_PAGE_HEADER.size
        if bool(flags & _LONG_HEADER) != is_long:
            raise CorruptData(f"page at {Lsn(page)}: long header flag is wrong (flags {flags:04X})")
        if is_long:
            self._check_long_header(page, begin)
        self._continue_record(page, flags, remaining)
        self._at += size
        return True

    def _check_long_header(self, page: int, begin: int) -> None:
        fields = LONG_PAGE_HEADER.unpack_from(self._buffer, begin)
        system_id, segment_size, page_size = fields[5:]
        if segment_size != self._segment_size or page_size != PAGE_SIZE:
            raise CorruptData(
                f"page at {Lsn(page)}: segment size {segment_size}, page size {page_size}; "
                f"expected {self._segment_size} and {PAGE_SIZE}"
            )
        if self._system_id is not None and system_id != self._system_id:
            raise CorruptData(
                f"page at {Lsn(page)}: written by system {system_id}, not {self._system_id}"
            )

    def _continue_record(self, page: int, flags: int, remaining: int) -> None:
        """Match the header's remaining length with the record that the page before began."""
        if flags & _OVERWRITE and self._needed:
            # The record begun before was abandoned in a crash; this page starts over (PG 15+).
            self._needed, self._pieces, self._skipping = 0, [], False
        if flags & _CONTRECORD and self._skip_allowed and not self._needed:
            self._needed, self._skipping = remaining, remaining > 0
        if remaining != self._needed or bool(flags & _CONTRECORD) != (remaining > 0):
            raise CorruptData(
                f"page at {Lsn(page)}: continues {remaining} bytes of a record (flags "
                f"{flags:04X}), expected {self._needed}"
            )
        self._skip_allowed = False
