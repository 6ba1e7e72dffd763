"""The visibility map: two bits a heap block, cleared by records that do not name its page.

Layout: ``visibilitymap.c``. A page has a 24-byte header, then one byte for four heap blocks.
``pd_lsn`` does not move when bits are cleared, neither here nor in PostgreSQL.
"""

from __future__ import annotations

import struct
from typing import Final, NamedTuple

from storage.errors import CorruptData
from storage.lsn import Lsn
from storage.pageserver.keys import BLOCK_SIZE
from storage.pageserver.redo import OPCODE_POSTGRES_FIRST, RedoTable
from storage.pageserver.values import Delta

ALL_VISIBLE: Final = 1
ALL_FROZEN: Final = 2
BOTH: Final = ALL_VISIBLE | ALL_FROZEN

_HEADER_SIZE: Final = 24
HEAP_BLOCKS_PER_PAGE: Final = (BLOCK_SIZE - _HEADER_SIZE) * 4

OPCODE_CLEAR: Final = OPCODE_POSTGRES_FIRST + 3
OPCODE_TRUNCATE: Final = OPCODE_POSTGRES_FIRST + 4

_CLEAR: Final = struct.Struct("<HB")
_TRUNCATE: Final = struct.Struct("<H")


class MapTruncation(NamedTuple):
    """What a heap cut to some length leaves of its map.

    ``pages`` remain; of the last of them all entries from ``keep`` on are cleared (None: none).
    """

    pages: int
    keep: int | None


def register(table: RedoTable) -> None:
    """Make the opcodes of this module known."""
    table.register(OPCODE_CLEAR, redo_clear)
    table.register(OPCODE_TRUNCATE, redo_truncate)


def clear_delta(heap_block: int, bits: int) -> tuple[int, Delta]:
    """(map page, change) that clears some of a heap block's bits."""
    page, index = divmod(heap_block, HEAP_BLOCKS_PER_PAGE)
    return page, Delta(OPCODE_CLEAR, _CLEAR.pack(index, bits))


def redo_clear(page: bytes | None, data: bytes, lsn: Lsn) -> bytes:
    """Clear the bits of one heap block; a page that was never written has none set."""
    if page is None:
        return bytes(BLOCK_SIZE)
    index, bits = _CLEAR.unpack(data)
    at = _check(page, lsn) + index // 4
    cleared = page[at] & ~(bits << index % 4 * 2)
    return page if cleared == page[at] else page[:at] + bytes((cleared,)) + page[at + 1 :]


def truncation(heap_blocks: int) -> MapTruncation:
    """What remains of the map of a heap that is cut to ``heap_blocks``."""
    page, keep = divmod(heap_blocks, HEAP_BLOCKS_PER_PAGE)
    return MapTruncation(page + 1, keep) if keep else MapTruncation(page, None)


def truncate_delta(keep: int) -> Delta:
    """The change that clears all entries of a map page from ``keep`` on."""
    return Delta(OPCODE_TRUNCATE, _TRUNCATE.pack(keep))


def redo_truncate(page: bytes | None, data: bytes, lsn: Lsn) -> bytes:
    """Clear the tail of a map page."""
    if page is None:
        return bytes(BLOCK_SIZE)
    (keep,) = _TRUNCATE.unpack(data)
    at = _check(page, lsn) + keep // 4
    kept = page[at] & (1 << keep % 4 * 2) - 1
    return page[:at] + bytes((kept,)) + bytes(BLOCK_SIZE - at - 1)


def _check(page: bytes, lsn: Lsn) -> int:
    """The size of the page's header; ``CorruptData`` for something that is no page."""
    if len(page) != BLOCK_SIZE:
        raise CorruptData(f"visibility map page of {len(page)} bytes is changed at {lsn}")
    return _HEADER_SIZE
