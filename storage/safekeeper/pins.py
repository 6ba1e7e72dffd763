"""Pins: WAL that somebody reads from this disk right now and that must stay until he is done."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from storage.lsn import Lsn


class Pins:
    """The pins of one timeline, in order."""

    def __init__(self) -> None:
        self._pins: dict[int, Lsn] = {}
        self._added = 0

    @contextmanager
    def hold(self, lsn: Lsn) -> Iterator[None]:
        """Within the block WAL from ``lsn`` on stays on the disk."""
        self._added += 1
        number = self._added
        self._pins[number] = lsn
        try:
            yield
        finally:
            del self._pins[number]

    def lowest(self, lsn: Lsn) -> Lsn:
        """``lsn``, or the lowest pin if that is lower."""
        return min([lsn, *self._pins.values()])
