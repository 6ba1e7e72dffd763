"""latest_gc_cutoff_lsn and the guard that readers hold against it.

A reader takes the guard, then checks its LSN, and keeps the guard until the page is rebuilt.
Whoever raises the cutoff waits for the readers that came in under an older one before it removes
anything (BUGBANK ``gc-cutoff-check-not-held``).
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager

from storage.errors import LsnOutOfScope
from storage.lsn import Lsn


class GcCutoff:
    """The oldest LSN at which every page can be read."""

    def __init__(self, lsn: Lsn) -> None:
        self._lsn = lsn
        self._readers: dict[Lsn, int] = {}
        self._left = asyncio.Event()

    @property
    def lsn(self) -> Lsn:
        """The present cutoff. To rely on it across an ``await``, use :meth:`hold`."""
        return self._lsn

    @contextmanager
    def hold(self) -> Iterator[Lsn]:
        """Keep what the present cutoff promises readable while the block runs."""
        lsn = self._lsn
        self._readers[lsn] = self._readers.get(lsn, 0) + 1
        try:
            yield lsn
        finally:
            self._readers[lsn] -= 1
            if not self._readers[lsn]:
                del self._readers[lsn]
                self._left.set()

    def check(self, lsn: Lsn, cutoff: Lsn) -> None:
        """Refuse an LSN before a cutoff that is being held: ``LsnOutOfScope`` names both."""
        if lsn < cutoff:
            raise LsnOutOfScope(f"LSN {lsn} is before latest_gc_cutoff_lsn {cutoff}")

    async def raise_to(self, lsn: Lsn) -> None:
        """Advance, then wait until every reader of an older cutoff has left."""
        assert lsn >= self._lsn, f"the cutoff cannot go from {self._lsn} back to {lsn}"
        self._lsn = lsn
        while any(held < lsn for held in self._readers):
            self._left.clear()
            await self._left.wait()
