"""The in-memory layer: the newest stretch of a timeline, written by ingest, read by everybody.

It holds every version with ``start_lsn`` ≤ LSN < ``end_lsn``; ``end_lsn`` is fixed when the layer
is frozen, and a frozen layer never changes again.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from storage.lsn import Lsn
from storage.pageserver.keys import Key
from storage.pageserver.values import Delta, Image, Value

VERSION_OVERHEAD = 100
"""Bytes that one version costs besides its data: tuple, key, list slot (CPython, 64-bit)."""

Version = tuple[Lsn, Value]


class MemoryLayer:
    """Versions by key, in the order of LSN they were put."""

    def __init__(self, start_lsn: Lsn) -> None:
        self.start_lsn = start_lsn
        self.end_lsn: Lsn | None = None
        self.size_bytes = 0
        self._versions: dict[Key, list[Version]] = {}

    def __len__(self) -> int:
        return len(self._versions)

    def put(self, lsn: Lsn, changes: Iterable[tuple[Key, Value]]) -> None:
        """Add the changes of one record that ends at ``lsn``; one value for each key."""
        assert self.end_lsn is None, f"layer from {self.start_lsn} is frozen"
        assert lsn >= self.start_lsn, f"{lsn} lies before the layer's start {self.start_lsn}"
        versions = self._versions
        size = 0
        for key, value in changes:
            known = versions.get(key)
            if known is None:
                versions[key] = [(lsn, value)]
            else:
                assert known[-1][0] < lsn, f"{key} has a version at {known[-1][0]} already"
                known.append((lsn, value))
            size += VERSION_OVERHEAD
            if isinstance(value, (Image, Delta)):
                size += len(value.data)
        self.size_bytes += size

    def freeze(self, end_lsn: Lsn) -> None:
        """Fix the end (exclusive); nothing can be put from now on."""
        assert self.end_lsn is None, f"layer from {self.start_lsn} is frozen already"
        assert end_lsn >= self.start_lsn, f"end {end_lsn} before start {self.start_lsn}"
        self.end_lsn = end_lsn

    def collect(self, key: Key, above: Lsn, upto: Lsn, into: list[Version]) -> bool:
        """Append versions of ``key`` with ``above`` < LSN ≤ ``upto``, newest first, to ``into``.

        Stops at the first version that hides all older ones and then returns ``True``.
        """
        for version in reversed(self._versions.get(key, ())):
            lsn, value = version
            if lsn > upto:
                continue
            if lsn <= above:
                return False
            into.append(version)
            if not isinstance(value, Delta) or value.initial:
                return True
        return False

    def __iter__(self) -> Iterator[Key]:
        """Every key that has a version here, in order of its first."""
        return iter(self._versions)

    def key_range(self) -> tuple[Key, Key]:
        """Smallest and largest key; the layer must not be empty."""
        assert self._versions, f"layer from {self.start_lsn} is empty"
        return min(self._versions), max(self._versions)

    def sorted_versions(self) -> Iterator[tuple[Key, Lsn, Value]]:
        """Every version in order of (key, LSN), as a delta layer stores them."""
        for key in sorted(self._versions):
            for lsn, value in self._versions[key]:
                yield key, lsn, value
