"""Redo: a base and the deltas after it become a page. The vocabulary is a table, not code.

``storage.kv`` and ``storage.pageserver.postgres`` register their own opcodes; this module brings
the few that directories (sorted runs of fixed-size entries) and folding need.
"""

from __future__ import annotations

import struct
from bisect import bisect_left
from collections.abc import Callable, Iterable, Sequence

from storage.errors import CorruptData
from storage.lsn import Lsn
from storage.pageserver.values import Delta, Image, Removed, Value

RedoFunction = Callable[[bytes | None, bytes, Lsn], bytes]
"""``(value before or None, argument, LSN of the change) -> value after``; pure."""

RedoBatch = Callable[[bytes | None, Iterable[tuple[int, bytes]]], bytes]
"""``(value before or None, (LSN, argument) of each change, oldest first) -> value after``; pure."""

OPCODE_KV = 0
OPCODE_DIRECTORY_ADD = 1
OPCODE_DIRECTORY_REMOVE = 2
OPCODE_SEQUENCE = 3
OPCODE_POSTGRES_FIRST = 16
"""Opcodes from here to 255 belong to ``storage.pageserver.postgres``."""

_PART = struct.Struct(">BI")


class RedoTable:
    """Opcode → redo function. Registering an opcode twice is a programming error."""

    def __init__(self) -> None:
        self._functions: dict[int, RedoFunction] = {
            OPCODE_DIRECTORY_ADD: add_entry,
            OPCODE_DIRECTORY_REMOVE: remove_entry,
            OPCODE_SEQUENCE: self._apply_sequence,
        }
        self._batches: dict[int, RedoBatch] = {}

    def register(
        self, opcode: int, function: RedoFunction, *, batch: RedoBatch | None = None
    ) -> None:
        """Add a function to the vocabulary; ``batch`` does the same for a run of deltas, faster."""
        assert 0 <= opcode <= 255, f"opcode {opcode} does not fit a byte"
        assert opcode not in self._functions, f"opcode {opcode} is registered twice"
        self._functions[opcode] = function
        if batch is not None:
            self._batches[opcode] = batch

    def apply(self, base: bytes | None, delta: Delta, lsn: Lsn) -> bytes:
        """The value after one delta; ``CorruptData`` when its opcode is unknown."""
        function = self._functions.get(delta.opcode)
        if function is None:
            raise CorruptData(f"delta at {lsn} has the unknown redo opcode {delta.opcode}")
        return function(None if delta.initial else base, delta.data, lsn)

    def reconstruct(self, base: bytes | None, changes: Iterable[tuple[Lsn, Value]]) -> bytes | None:
        """Replay ``changes`` (oldest first) on ``base``; ``None`` means the key does not exist."""
        page = base
        run: list[tuple[int, bytes]] = []
        running = -1
        for lsn, value in changes:
            if run and (not isinstance(value, Delta) or value.opcode != running or value.initial):
                page = self._batches[running](page, run)
                run = []
            if not isinstance(value, Delta):
                page = value.data if isinstance(value, Image) else None
            elif value.opcode in self._batches:
                running = value.opcode
                page = None if value.initial else page
                run.append((lsn, value.data))
            else:
                page = self.apply(page, value, lsn)
        return self._batches[running](page, run) if run else page

    def fold(self, values: Sequence[Value], lsn: Lsn) -> Value:
        """One value with the effect of several changes of one key at one LSN, oldest first."""
        assert values, "nothing to fold"
        folded = values[0]
        for value in values[1:]:
            if not isinstance(value, Delta) or value.initial:
                folded = value
            elif isinstance(folded, Image):
                folded = Image(self.apply(folded.data, value, lsn))
            elif isinstance(folded, Removed):
                folded = Delta(value.opcode, value.data, True)
            else:
                folded = Delta(OPCODE_SEQUENCE, _parts(folded) + _part(value), folded.initial)
        return folded

    def _apply_sequence(self, base: bytes | None, data: bytes, lsn: Lsn) -> bytes:
        page = base
        position = 0
        while position < len(data):
            opcode, length = _PART.unpack_from(data, position)
            position += _PART.size
            page = self.apply(page, Delta(opcode, data[position : position + length]), lsn)
            position += length
        if page is None or position != len(data):
            raise CorruptData(f"delta sequence at {lsn} is cut short")
        return page


def _part(delta: Delta) -> bytes:
    return _PART.pack(delta.opcode, len(delta.data)) + delta.data


def _parts(delta: Delta) -> bytes:
    return delta.data if delta.opcode == OPCODE_SEQUENCE else _part(delta)


def add_entry(directory: bytes | None, entry: bytes, lsn: Lsn) -> bytes:
    """Insert a fixed-size entry into a sorted directory; harmless when it is there."""
    directory = directory or b""
    position, found = _find(directory, entry, lsn)
    return directory if found else directory[:position] + entry + directory[position:]


def remove_entry(directory: bytes | None, entry: bytes, lsn: Lsn) -> bytes:
    """Take a fixed-size entry out of a sorted directory; harmless when it is not there."""
    directory = directory or b""
    position, found = _find(directory, entry, lsn)
    return directory[:position] + directory[position + len(entry) :] if found else directory


def _find(directory: bytes, entry: bytes, lsn: Lsn) -> tuple[int, bool]:
    size = len(entry)
    if not size or len(directory) % size:
        raise CorruptData(
            f"directory of {len(directory)} bytes does not hold entries of {size} bytes, at {lsn}"
        )
    index = bisect_left(
        range(len(directory) // size), entry, key=lambda i: directory[i * size : (i + 1) * size]
    )
    position = index * size
    return position, directory[position : position + size] == entry
