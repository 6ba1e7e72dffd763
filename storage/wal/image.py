"""Full page images inside records: the hole in the middle of a page, and compression.

Source: ``XLogRecordBlockImageHeader`` and ``XLogCompressBackupBlock`` of PostgreSQL 15 to 18.
"""

from __future__ import annotations

import struct
from enum import Enum
from typing import Final

import lz4.block
import zstandard

from storage.errors import CorruptData
from storage.wal import pglz
from storage.wal.format import PAGE_SIZE, ImageFlag

_BOUNDS: Final = struct.Struct("<HH")  # pd_lower, pd_upper
_BOUNDS_OFFSET: Final = 12
_PAGE_HEADER_SIZE: Final = 24
_LSN: Final = struct.Struct("<II")
_HAS_HOLE: Final = int(ImageFlag.HAS_HOLE)
COMPRESSED: Final = int(ImageFlag.PGLZ | ImageFlag.LZ4 | ImageFlag.ZSTD)


class Compression(Enum):
    """How an image is stored; the value is its bit in ``bimg_info``."""

    NONE = 0
    PGLZ = int(ImageFlag.PGLZ)
    LZ4 = int(ImageFlag.LZ4)
    ZSTD = int(ImageFlag.ZSTD)


def restore(stored: bytes, flags: int, hole_offset: int, hole_size: int) -> bytes:
    """The 8192-byte page of a stored image, as it was when logged: its LSN is not yet set."""
    if flags & COMPRESSED:
        stored = _decompress(stored, flags & COMPRESSED, PAGE_SIZE - hole_size)
    if not hole_size:
        return stored
    return b"".join((stored[:hole_offset], bytes(hole_size), stored[hole_offset:]))


def _decompress(stored: bytes, method: int, size: int) -> bytes:
    try:
        if method == Compression.LZ4.value:
            page: bytes = lz4.block.decompress(stored, uncompressed_size=size)
        elif method == Compression.ZSTD.value:
            page = zstandard.decompress(stored, max_output_size=size)
        elif method == Compression.PGLZ.value:
            page = pglz.decompress(stored, size)
        else:
            raise CorruptData(f"page image has compression bits {method:#04x}")
    except (lz4.block.LZ4BlockError, zstandard.ZstdError, ValueError) as error:
        raise CorruptData(f"page image of {len(stored)} bytes does not decompress") from error
    if len(page) != size:
        raise CorruptData(f"page image decompresses to {len(page)} bytes, expected {size}")
    return page


def find_hole(page: bytes) -> tuple[int, int]:
    """Offset and size of the unused middle of a standard page; ``(0, 0)`` if it has none."""
    lower, upper = _BOUNDS.unpack_from(page, _BOUNDS_OFFSET)
    if _PAGE_HEADER_SIZE <= lower < upper <= PAGE_SIZE:
        return lower, upper - lower
    return 0, 0


def compress(page: bytes, method: Compression) -> bytes:
    """Compress what remains of a page without its hole; the caller checks that it got smaller."""
    if method is Compression.LZ4:
        stored: bytes = lz4.block.compress(page, store_size=False)
        return stored
    if method is Compression.ZSTD:
        return zstandard.compress(page)
    raise ValueError(f"images are not written with compression {method.name}; use LZ4 or ZSTD")


def with_lsn(page: bytes, lsn: int) -> bytes:
    """The page with ``pd_lsn`` set to a record's end, except for a page that is not initialised.

    An all-zero page has no header, so PostgreSQL leaves it alone (``XLogReadBufferForRedo``).
    """
    if page[14:16] == b"\0\0":
        return page
    return _LSN.pack(lsn >> 32, lsn & 0xFFFFFFFF) + page[8:]
