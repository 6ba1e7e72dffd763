"""Key-value pages: 8 KiB, laid out as PostgreSQL lays out a page of tuples.

Header of 24 bytes, line pointers growing up, items (key u64, value) growing down from a special
space of 8 bytes, all little endian. Items stand in key order and free space is zero, so the bytes
are a function of (LSN, version, entries) alone: an image in the WAL, a page rebuilt from deltas
and a page in a compute's cache are equal byte for byte.

The special space holds the *version*: how many changes the page has seen. A delta names the version
that it makes, so redo notices a change that is missing, stale or applied twice.
Layout source: PostgreSQL ``src/include/storage/bufpage.h`` and ``itemid.h``.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from storage.errors import BadRequest, CorruptData
from storage.lsn import Lsn

PAGE_SIZE = 8192
KEYS_PER_PAGE = 32
VALUE_BYTES_MAX = 240
BLOCK_MAX = 0xFFFFFFFE
KEY_MAX = (BLOCK_MAX + 1) * KEYS_PER_PAGE - 1

_HEADER = struct.Struct("<IIHHHHHHI")
_HEADER_SIZE = 24
_SPECIAL = PAGE_SIZE - 8
_VERSION = struct.Struct("<Q")
_SIZE_AND_LAYOUT = PAGE_SIZE | 4
_LINE_POINTER_SIZE = 4
_NORMAL = 1 << 15
_KEY = struct.Struct("<Q")
_CHANGE_HEAD = struct.Struct("<QB")
_DELETED = 0xFF
_EMPTY = bytes(PAGE_SIZE)
_POINTERS = [struct.Struct(f"<{count}I") for count in range(KEYS_PER_PAGE + 1)]

Changes = Mapping[int, bytes | None]
"""New value of each changed key of one page; ``None`` deletes the key."""


@dataclass(slots=True)
class Page:
    """A page taken apart. ``lsn`` is the end of the last record that changed it (0: none yet),
    ``version`` counts its changes; keys of ``entries`` may be in any order."""

    lsn: int = 0
    version: int = 0
    entries: dict[int, bytes] = field(default_factory=dict)


def block_of(key: int) -> int:
    """Number of the block that holds a key; ``BadRequest`` when no block can."""
    if not 0 <= key <= KEY_MAX:
        raise BadRequest(f"key {key} is outside 0 … {KEY_MAX}")
    return key // KEYS_PER_PAGE


def check_value(value: bytes) -> bytes:
    """Give the value back if a page with every key present can hold it, else ``BadRequest``."""
    if len(value) > VALUE_BYTES_MAX:
        raise BadRequest(
            f"value of {len(value)} bytes starting {value[:16]!r} is too large; "
            f"at most {VALUE_BYTES_MAX} bytes fit"
        )
    return value


def encode(page: Page) -> bytes:
    """The 8 KiB of a page."""
    assert len(page.entries) <= KEYS_PER_PAGE, f"{len(page.entries)} entries in one page"
    position = _SPECIAL
    pointers: list[int] = []
    items: list[bytes] = []
    for key, value in sorted(page.entries.items()):
        length = 8 + len(value)
        padding = -length % 8
        position -= length + padding
        pointers.append(position | _NORMAL | length << 17)
        items.append(_KEY.pack(key) + value + bytes(padding))
    lower = _HEADER_SIZE + _LINE_POINTER_SIZE * len(pointers)
    assert lower <= position, f"page overflows: lower {lower}, upper {position}"
    header = _HEADER.pack(
        page.lsn >> 32,
        page.lsn & 0xFFFFFFFF,
        0,
        0,
        lower,
        position,
        _SPECIAL,
        _SIZE_AND_LAYOUT,
        0,
    )
    items.reverse()
    line_pointers = _POINTERS[len(pointers)].pack(*pointers)
    hole = bytes(position - lower)
    return b"".join((header, line_pointers, hole, *items, _VERSION.pack(page.version)))


def decode(data: bytes) -> Page | None:
    """Take a page apart; ``None`` for a page never written (all zero).

    Raises ``CorruptData`` naming the first field that no encoder writes.
    """
    if len(data) != PAGE_SIZE:
        raise CorruptData(f"key-value page of {len(data)} bytes; {PAGE_SIZE} expected")
    high, low, _, _, lower, upper, special, size, _ = _HEADER.unpack_from(data)
    if size != _SIZE_AND_LAYOUT:
        if data == _EMPTY:
            return None
        raise CorruptData(f"key-value page has size and layout {size:#x}, not 0x2004")
    count, odd = divmod(lower - _HEADER_SIZE, _LINE_POINTER_SIZE)
    if odd or not 0 <= count <= KEYS_PER_PAGE or special != _SPECIAL or not lower <= upper:
        raise CorruptData(f"key-value page has lower {lower}, upper {upper}, special {special}")
    entries: dict[int, bytes] = {}
    for pointer in _POINTERS[count].unpack_from(data, _HEADER_SIZE):
        start = pointer & 0x7FFF
        end = start + (pointer >> 17)
        if start < upper or end > special or end - start < 8:
            raise CorruptData(f"key-value page has an item at {start} … {end}, outside the page")
        entries[_KEY.unpack_from(data, start)[0]] = data[start + 8 : end]
    if len(entries) != count:
        raise CorruptData(f"key-value page has {count} items but {len(entries)} keys")
    return Page(high << 32 | low, _VERSION.unpack_from(data, special)[0], entries)


def encode_changes(version: int, changes: Changes) -> bytes:
    """A delta that makes version ``version`` of a page: what one WAL record says of one block."""
    assert version > 0, "the first change makes version 1"
    parts = [_VERSION.pack(version)]
    for key, value in sorted(changes.items()):
        if value is None:
            parts.append(_CHANGE_HEAD.pack(key, _DELETED))
        else:
            parts += (_CHANGE_HEAD.pack(key, len(value)), value)
    return b"".join(parts)


def decode_changes(data: bytes) -> tuple[int, dict[int, bytes | None]]:
    """Version and changes of a delta; ``CorruptData`` when it is cut off or too long."""
    changes: dict[int, bytes | None] = {}
    try:
        version: int = _VERSION.unpack_from(data)[0]
        position = _VERSION.size
        while position < len(data):
            key, length = _CHANGE_HEAD.unpack_from(data, position)
            position += _CHANGE_HEAD.size
            if length == _DELETED:
                changes[key] = None
                continue
            changes[key] = data[position : position + length]
            position += length
    except struct.error as error:
        raise CorruptData(f"key-value delta of {len(data)} bytes is cut off") from error
    if position != len(data):
        raise CorruptData(f"key-value delta of {len(data)} bytes lacks {position - len(data)}")
    return version, changes


def change(page: Page, changes: Changes) -> None:
    """Make the next version of a page in place; the caller then sets ``lsn`` to the end of the
    record that says so."""
    assert changes, "a change that changes nothing makes no version"
    entries = page.entries
    for key, value in changes.items():
        if value is None:
            entries.pop(key, None)
        else:
            entries[key] = value
    page.version += 1


def apply_all(page: bytes | None, deltas: Iterable[tuple[int, bytes]]) -> bytes:
    """Redo: the page after deltas, each with the end LSN of its record, in order of LSN.

    Start from ``None`` when the first delta initialises the page. ``CorruptData`` when a delta does
    not follow the page it meets (see the module's second paragraph).
    """
    state = (None if page is None else decode(page)) or Page()
    for lsn, data in deltas:
        version, changes = decode_changes(data)
        if version != state.version + 1 or lsn <= state.lsn:
            raise CorruptData(
                f"delta at {Lsn(lsn)} makes version {version} of a key-value page, "
                f"but the page before it is version {state.version} at {Lsn(state.lsn)}"
            )
        change(state, changes)
        state.lsn = lsn
    return encode(state)


def apply(page: bytes | None, data: bytes, lsn: Lsn) -> bytes:
    """Redo of one delta: :func:`apply_all` for a single one."""
    return apply_all(page, ((lsn, data),))
