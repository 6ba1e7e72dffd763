"""The state of a key-value timeline at every LSN, redone from its WAL alone.

It shares no code with the system's own redo, so that an error there is seen. Layout of a page and
of a change, little endian: ``storage/kv/page.py`` and ``storage/kv/record.py`` describe them. A
record whose change does not follow the page it meets fails the check: the WAL itself is wrong.
"""

from __future__ import annotations

import struct
from bisect import bisect_right
from collections.abc import Iterable, Iterator, Mapping
from typing import NamedTuple, Protocol

from harness.errors import CheckFailed
from storage.lsn import Lsn

CHECKER = "wal_model"
KV_RELATION = (1663, 16384, 16385, 0)
"""Space, database, relation and fork of the key-value relation."""

KEYS_PER_PAGE = 32
_PAGE_BYTES = 8192
_SPECIAL = _PAGE_BYTES - 8
_POINTERS_START = 24


class BlockChange(Protocol):
    """What a WAL record says of one block, like :class:`storage.wal.record.BlockRef`."""

    space: int
    database: int
    relation: int
    fork: int
    block: int
    image: bytes | None
    data: bytes


class PageState(NamedTuple):
    """A page taken apart: end of the last record that changed it, number of its changes, rows."""

    lsn: int
    version: int
    rows: dict[int, str]


def read_page(page: bytes) -> PageState:
    """Take a page apart; an all-zero one was never written. ``CheckFailed`` if it is no page."""
    high, low = struct.unpack_from("<II", page)
    lower, _, special = struct.unpack_from("<HHH", page, 12)
    if len(page) != _PAGE_BYTES or (any(page) and special != _SPECIAL):
        raise CheckFailed(f"{len(page)} bytes with special {special} are no page", checker=CHECKER)
    rows: dict[int, str] = {}
    for offset in range(_POINTERS_START, lower, 4):
        (pointer,) = struct.unpack_from("<I", page, offset)
        start, end = pointer & 0x7FFF, (pointer & 0x7FFF) + (pointer >> 17)
        (key,) = struct.unpack_from("<Q", page, start)
        rows[key] = page[start + 8 : end].decode()
    (version,) = struct.unpack_from("<Q", page, _SPECIAL)
    return PageState(high << 32 | low, version, rows)


def read_change(data: bytes) -> tuple[int, dict[int, str | None]]:
    """The version that a change makes, and the new value of each key it names."""
    (version,) = struct.unpack_from("<Q", data)
    rows: dict[int, str | None] = {}
    position = 8
    while position < len(data):
        key, length = struct.unpack_from("<QB", data, position)
        position += 9
        if length == 0xFF:
            rows[key] = None
        else:
            rows[key] = data[position : position + length].decode()
            position += length
    return version, rows


class _Past:
    """Values of one thing in order of LSN."""

    __slots__ = ("lsns", "values")

    def __init__(self) -> None:
        self.lsns: list[int] = []
        self.values: list[str | int | None] = []

    def set(self, lsn: int, value: str | int | None) -> None:
        self.lsns.append(lsn)
        self.values.append(value)


class WalModel:
    """A timeline from ``start_lsn`` to ``end_lsn``; before that it is its parent."""

    def __init__(self, start_lsn: Lsn, parent: WalModel | None = None) -> None:
        self.start_lsn = start_lsn
        self.end_lsn = start_lsn
        self.records: dict[int, dict[int, str | None]] = {}
        """End of each record → the rows that it changed."""
        self._parent = parent
        self._rows: dict[int, _Past] = {}
        self._versions: dict[int, _Past] = {}

    def take(self, end_lsn: Lsn, blocks: Iterable[BlockChange]) -> None:
        """Redo one record."""
        changed: dict[int, str | None] = {}
        for block in blocks:
            if (block.space, block.database, block.relation, block.fork) == KV_RELATION:
                changed.update(self._change(end_lsn, block))
        self.put(end_lsn, changed)

    def put(self, end_lsn: Lsn, changed: dict[int, str | None]) -> None:
        """Take the rows that a record changed."""
        assert end_lsn > self.end_lsn, f"record at {end_lsn} after {self.end_lsn}"
        for key, value in changed.items():
            past = self._rows.get(key)
            if past is None:
                past = self._rows[key] = _Past()
            past.set(end_lsn, value)
        if changed:
            self.records[end_lsn] = changed
        self.end_lsn = end_lsn

    def _change(self, end_lsn: Lsn, block: BlockChange) -> Mapping[int, str | None]:
        number = block.block
        if block.image is None:
            version, changed = read_change(block.data)
        else:
            page = read_page(block.image)
            version, changed = page.version, self._difference(number, page.rows)
        before = self.version(number, self.end_lsn)
        if version != before + 1:
            raise CheckFailed(
                f"the record that ends at {end_lsn} makes version {version} of block {number}, "
                f"which is at version {before}",
                checker=CHECKER,
            )
        strangers = [key for key in changed if key // KEYS_PER_PAGE != number]
        if strangers:
            raise CheckFailed(
                f"the record that ends at {end_lsn} puts keys {strangers[:5]} into block {number}",
                checker=CHECKER,
            )
        past = self._versions.get(number)
        if past is None:
            past = self._versions[number] = _Past()
        past.set(end_lsn, version)
        return changed

    def _difference(self, block: int, rows: Mapping[int, str]) -> dict[int, str | None]:
        before = self.rows(block * KEYS_PER_PAGE, (block + 1) * KEYS_PER_PAGE, self.end_lsn)
        gone: dict[int, str | None] = {key: None for key in before if key not in rows}
        return gone | {key: value for key, value in rows.items() if before.get(key) != value}

    # Questions, all as of an LSN between the root's start and ``end_lsn``.

    def value(self, key: int, lsn: int) -> str | None:
        """The value of a key; ``None`` if it is absent."""
        found = _at(self._rows.get(key), lsn)
        if found is None and self._parent is not None:
            return self._parent.value(key, min(lsn, self.start_lsn))
        value = None if found is None else found[1]
        assert not isinstance(value, int), "rows hold text"
        return value

    def rows(self, first: int, end: int, lsn: int) -> dict[int, str]:
        """Every row with ``first`` ≤ key < ``end``."""
        rows: dict[int, str] = {}
        keys = self.keys() if end - first > KEYS_PER_PAGE else range(first, end)
        for key in keys:
            if first <= key < end:
                value = self.value(key, lsn)
                if value is not None:
                    rows[key] = value
        return rows

    def keys(self) -> list[int]:
        """Every key that ever had a value, ascending."""
        inherited = [] if self._parent is None else self._parent.keys()
        return sorted({*self._rows, *inherited})

    def version(self, block: int, lsn: int) -> int:
        """How often a block was changed; 0 for one never written."""
        return self.page(block, lsn)[1]

    def page(self, block: int, lsn: int) -> tuple[int, int]:
        """LSN of the last change of a block, and its version; zeros for one never written."""
        found = _at(self._versions.get(block), lsn)
        if found is None:
            if self._parent is not None:
                return self._parent.page(block, min(lsn, self.start_lsn))
            return 0, 0
        assert isinstance(found[1], int), "versions are numbers"
        return found[0], found[1]

    def page_state(self, block: int, lsn: int) -> PageState:
        """The whole page."""
        first = block * KEYS_PER_PAGE
        return PageState(*self.page(block, lsn), self.rows(first, first + KEYS_PER_PAGE, lsn))

    def changes_of_blocks(self) -> Iterator[tuple[int, list[int]]]:
        """Each block that this timeline itself changed, and the LSNs at which it did."""
        for block, past in sorted(self._versions.items()):
            yield block, past.lsns


def _at(past: _Past | None, lsn: int) -> tuple[int, str | int | None] | None:
    """The newest entry at or below an LSN: where it was made, and its value."""
    if past is None:
        return None
    position = bisect_right(past.lsns, lsn) - 1
    return None if position < 0 else (past.lsns[position], past.values[position])
