"""Data checksums of relation pages (``storage/checksum_impl.h``): 32 parallel FNV-1a hashes.

All 32 lanes live in one integer, 64 bits apart, so that CPython's arithmetic on long integers does
the work of SIMD: about 60 µs for a page instead of some milliseconds.
"""

from __future__ import annotations

from array import array
from typing import Final

from storage.wal.format import PAGE_SIZE

_LANES: Final = 32
_PRIME: Final = 16777619
_CHECKSUM_OFFSET: Final = 8
_UPPER_OFFSET: Final = 14
_OFFSET_BASIS: Final = (
    0x5B1F36E9, 0xB8525960, 0x02AB50AA, 0x1DE66D2A, 0x79FF467A, 0x9BB9F8A3, 0x217E7CD2, 0x83E13D2C,
    0xF8D4474F, 0xE39EB970, 0x42C6AE16, 0x993216FA, 0x7B093B5D, 0x98DAFF3C, 0xF718902A, 0x0B1C9CDB,
    0xE58F764B, 0x187636BC, 0x5D7B3BB1, 0xE73DE7DE, 0x92BEC979, 0xCCA6C0B2, 0x304A0979, 0x85AA43D4,
    0x783125BB, 0x6CA8EAA2, 0xE407EAC6, 0x4B5CFC3E, 0x9FBF8C76, 0x15CA20BE, 0xF2CA9FD3, 0x959BD756,
)  # fmt: skip
_ROW_SIZE: Final = _LANES * 8


def _lanes(values: tuple[int, ...]) -> int:
    return int.from_bytes(array("Q", values).tobytes(), "little")


_BASIS: Final = _lanes(_OFFSET_BASIS)
_LOW: Final = _lanes((0xFFFFFFFF,) * _LANES)


def page_checksum(page: bytes, block: int) -> int:
    """The 16-bit checksum of an 8192-byte page at ``block`` of its fork, its own field aside."""
    words = array("I", page)
    words[2] &= 0xFFFF0000  # pd_checksum is the lower half of the third word.
    rows = array("Q", words).tobytes()
    state = _BASIS
    for begin in range(0, PAGE_SIZE * 2, _ROW_SIZE):
        state ^= int.from_bytes(rows[begin : begin + _ROW_SIZE], "little")
        state = (state * _PRIME ^ state >> 17 & _SHIFTED) & _LOW
    for _ in range(2):
        state = (state * _PRIME ^ state >> 17 & _SHIFTED) & _LOW
    folded = 0
    for lane in array("Q", state.to_bytes(_ROW_SIZE, "little")):
        folded ^= lane
    return (folded ^ block) % 65535 + 1


_SHIFTED: Final = _lanes((0xFFFFFFFF >> 17,) * _LANES)


def is_new(page: bytes) -> bool:
    """Whether a page was never initialised (``PageIsNew``): it carries no checksum."""
    return page[_UPPER_OFFSET : _UPPER_OFFSET + 2] == b"\0\0"


def with_checksum(page: bytes, block: int) -> bytes:
    """The page with ``pd_checksum`` set; a new page stays as it is."""
    if is_new(page):
        return page
    checksum = page_checksum(page, block).to_bytes(2, "little")
    return page[:_CHECKSUM_OFFSET] + checksum + page[_CHECKSUM_OFFSET + 2 :]


def has_right_checksum(page: bytes, block: int) -> bool:
    """Whether a page's stored checksum is the one computed; true for a new page."""
    stored = int.from_bytes(page[_CHECKSUM_OFFSET : _CHECKSUM_OFFSET + 2], "little")
    return is_new(page) or (stored != 0 and stored == page_checksum(page, block))
