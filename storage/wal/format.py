"""Layout of PostgreSQL WAL pages and records, little endian, block size 8192.

Sources: PostgreSQL ``access/xlog_internal.h`` (page headers) and ``access/xlogrecord.h`` (record
and block headers), versions 15, 16 and 18, whose layouts differ in the page magic only.
"""

from __future__ import annotations

import struct
from enum import IntFlag
from typing import Final

import google_crc32c

from storage.errors import BadRequest

PAGE_SIZE: Final = 8192
"""Bytes in a WAL page and in a relation page."""

PAGE_MAGIC: Final = {15: 0xD110, 16: 0xD113, 18: 0xD118}
"""``xlp_magic`` of each supported major version."""

SHORT_PAGE_HEADER: Final = struct.Struct("<HHIQI4x")
"""magic, info, timeline, page address, bytes remaining of the record begun on an earlier page."""

LONG_PAGE_HEADER: Final = struct.Struct("<HHIQI4xQII")
"""The short header, then system id, segment size, block size: first page of each segment."""

RECORD_HEADER: Final = struct.Struct("<IIQBB2xI")
"""``XLogRecord``: total length, xid, previous record's LSN, info, resource manager id, CRC."""

RECORD_HEADER_SIZE: Final = RECORD_HEADER.size
RECORD_SIZE_MAX: Final = 1020 * 1024 * 1024
"""Largest total length of a record (``XLogRecordMaxSize``)."""

SEGMENT_SIZE_MIN: Final = 1024 * 1024
SEGMENT_SIZE_MAX: Final = 1024 * 1024 * 1024

RMGR_XLOG: Final = 0
XLOG_SWITCH: Final = 0x40
"""Info of the record after which the rest of the segment is unused (resource manager XLOG)."""

RMGR_CUSTOM_MIN: Final = 128
"""Extensions' resource managers have ids from here to 255."""

_RMGR_BUILTIN_MAX: Final = 21
_CRC_OFFSET: Final = 20


class PageFlag(IntFlag):
    """Bits of ``xlp_info``."""

    FIRST_IS_CONTRECORD = 1
    LONG_HEADER = 2
    BKP_REMOVABLE = 4
    FIRST_IS_OVERWRITE_CONTRECORD = 8


PAGE_FLAGS_ALL: Final = 15


class BlockFlag(IntFlag):
    """Bits of a block reference's ``fork_flags`` above the fork number (low four bits)."""

    HAS_IMAGE = 0x10
    HAS_DATA = 0x20
    WILL_INIT = 0x40
    SAME_RELATION = 0x80


class ImageFlag(IntFlag):
    """Bits of ``bimg_info``, equal in 15, 16 and 18."""

    HAS_HOLE = 0x01
    APPLY = 0x02
    PGLZ = 0x04
    LZ4 = 0x08
    ZSTD = 0x10


BLOCK_ID_MAX: Final = 32
BLOCK_ID_DATA_SHORT: Final = 255
BLOCK_ID_DATA_LONG: Final = 254
BLOCK_ID_ORIGIN: Final = 253
BLOCK_ID_TOPLEVEL_XID: Final = 252


def crc32c(data: bytes) -> int:
    """CRC-32C (Castagnoli) of ``data``."""
    checksum: int = google_crc32c.value(data)
    return checksum


def record_crc(raw: bytes) -> int:
    """The CRC a whole record must carry: of all after the header, then of the header before it."""
    checksum: int = google_crc32c.value(raw[RECORD_HEADER_SIZE:] + raw[:_CRC_OFFSET])
    return checksum


def align8(position: int) -> int:
    """The next multiple of eight at or after ``position`` (``MAXALIGN``)."""
    return (position + 7) & ~7


def page_header_size(position: int, segment_size: int) -> int:
    """Bytes of the header of the page that starts at ``position``."""
    return LONG_PAGE_HEADER.size if position % segment_size == 0 else SHORT_PAGE_HEADER.size


def record_end(start: int, length: int, segment_size: int) -> int:
    """Where a record of ``length`` bytes that starts at ``start`` ends, aligned: its end LSN."""
    at = start
    left = length
    while left > (room := PAGE_SIZE - at % PAGE_SIZE):
        left -= room
        at += room
        at += page_header_size(at, segment_size)
    return align8(at + left)


def page_magic(version: int) -> int:
    """``xlp_magic`` of a major version; raises ``BadRequest`` for one we do not support."""
    magic = PAGE_MAGIC.get(version)
    if magic is None:
        known = ", ".join(map(str, PAGE_MAGIC))
        raise BadRequest(f"PostgreSQL version {version} is not supported; use one of {known}")
    return magic


def check_segment_size(segment_size: int) -> int:
    """Return a valid segment size in bytes; ``BadRequest`` unless a power of two, 1 MiB … 1 GiB."""
    power_of_two = segment_size > 0 and segment_size & (segment_size - 1) == 0
    if not power_of_two or not SEGMENT_SIZE_MIN <= segment_size <= SEGMENT_SIZE_MAX:
        raise BadRequest(
            f"WAL segment size {segment_size} is not a power of two from 1 MiB to 1 GiB"
        )
    return segment_size


def is_valid_rmgr(rmid: int) -> bool:
    """Whether a resource manager id is PostgreSQL's own or in the range for extensions."""
    return rmid <= _RMGR_BUILTIN_MAX or rmid >= RMGR_CUSTOM_MIN


def segment_name(timeline: int, segment: int, segment_size: int) -> str:
    """File name of a segment: timeline, then the number split at 4 GiB, in hex."""
    per_id = 0x1_0000_0000 // segment_size
    return f"{timeline:08X}{segment // per_id:08X}{segment % per_id:08X}"
