"""What of a page may differ between replay and the primary's own image of it: hints, and holes.

The rules are those by which PostgreSQL itself compares pages under ``wal_consistency_checking``
(``bufmask.c`` and each access method's mask function), so nothing else may ever differ.
"""

from __future__ import annotations

import struct
from typing import Final

BLOCK: Final = 8192
_HEADER: Final = 24
_HINT_FLAGS: Final = 0x01 | 0x02 | 0x04  # PD_HAS_FREE_LINES, PD_PAGE_FULL, PD_ALL_VISIBLE
_BOUNDS: Final = struct.Struct("<HHH")  # lower, upper, special, at byte 12
_UINT16: Final = struct.Struct("<H")
_UINT32: Final = struct.Struct("<I")
_SEQUENCE_MAGIC: Final = 0x1717
_HASH, _GIST = 0xFF80, 0xFF81
_NORMAL, _DEAD = 1, 3
_GIN_DELETED: Final = 0x04
_COMBO: Final = 0x0020  # Means something to the backend only that wrote it.
_XMIN_FROZEN: Final = 0x0300
_XMAX_HINTS: Final = 0x0C00


def without_hints(page: bytes, fork: int) -> bytes:
    """The page with everything zeroed that its access method calls a hint; 8192 bytes."""
    if not any(page):
        return page
    masked = bytearray(page)
    masked[0:10] = bytes(10)  # LSN and checksum.
    if fork == 2:  # A visibility map: bits without line pointers.
        return bytes(masked)
    flags = _UINT16.unpack_from(masked, 10)[0] & ~_HINT_FLAGS
    _UINT16.pack_into(masked, 10, flags)
    masked[20:24] = bytes(4)  # The oldest xid worth pruning.
    lower, upper, special = _BOUNDS.unpack_from(masked, 12)
    if _HEADER <= lower <= upper <= special <= BLOCK:
        masked[lower:upper] = bytes(upper - lower)
        _mask_contents(masked, lower, special)
    return bytes(masked)


def _mask_contents(page: bytearray, lower: int, special: int) -> None:
    size = BLOCK - special
    last = _UINT16.unpack_from(page, BLOCK - 2)[0]
    if size == 0 or (size == 8 and _UINT32.unpack_from(page, special)[0] == _SEQUENCE_MAGIC):
        _mask_tuples(page, lower)
    elif size == 8 and last < 0x100 and last & _GIN_DELETED:
        page[12:16] = bytes(4)  # Replay leaves a deleted page empty, the primary as it was.
        page[_HEADER:] = bytes(BLOCK - _HEADER)  # The links of the page too.
    elif size == 16 and last == _HASH:
        _mask_line_flags(page, lower)
        page[special + 12] &= ~0x80 & 0xFF  # LH_PAGE_HAS_DEAD_TUPLES
    elif size == 16 and last == _GIST:
        _mask_line_flags(page, lower)
        page[special : special + 8] = bytes(8)  # NSN
        page[special + 12] &= ~(0x08 | 0x10) & 0xFF  # F_FOLLOW_RIGHT, F_HAS_GARBAGE
    elif size == 16:
        _mask_line_flags(page, lower)
        page[special + 12] &= ~0x40 & 0xFF  # BTP_HAS_GARBAGE
        page[special + 14 : special + 16] = bytes(2)  # The vacuum cycle.


def _line_pointers(page: bytearray, lower: int) -> list[tuple[int, int, int, int]]:
    """(place, flags, offset, length) of each."""
    found = []
    for at in range(_HEADER, lower - 3, 4):
        pointer = _UINT32.unpack_from(page, at)[0]
        found.append((at, pointer >> 15 & 3, pointer & 0x7FFF, pointer >> 17))
    return found


def _mask_line_flags(page: bytearray, lower: int) -> None:
    """Index tuples may have been found dead."""
    for at, flags, offset, length in _line_pointers(page, lower):
        if flags in (_NORMAL, _DEAD) and length:
            _UINT32.pack_into(page, at, offset | length << 17)


def _mask_tuples(page: bytearray, lower: int) -> None:
    for _, flags, offset, length in _line_pointers(page, lower):
        if flags != _NORMAL or offset + length > BLOCK or length < 23:
            continue
        bits = _UINT16.unpack_from(page, offset + 20)[0]
        hints = _XMAX_HINTS | _COMBO
        if bits & _XMIN_FROZEN != _XMIN_FROZEN:
            hints |= _XMIN_FROZEN
        _UINT16.pack_into(page, offset + 20, bits & ~hints)
        page[offset + 8 : offset + 12] = bytes(4)  # The command's number.
        end = offset + length
        page[end : (end + 7) & ~7] = bytes(((end + 7) & ~7) - end)
