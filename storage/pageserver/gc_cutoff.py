"""latest_gc_cutoff_lsn and the guard that readers hold against it.

A pass of the garbage collection first *plans* a cutoff: from then on nothing new may come to rely
on what lies before it (leases, branches, base backups). Once the plan is durable it is *applied*:
readers before it are refused, those that came in under an older one are waited for, and only then
may anything be removed (BUGBANK ``gc-cutoff-check-not-held``).
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager

from storage.errors import LsnOutOfScope
from storage.lsn import Lsn


class GcCutoff:
    """The oldest LSN at which every page can be read (``lsn``), and the one planned next."""

    def __init__(self, lsn: Lsn) -> None:
        self._lsn = lsn
        self._planned = lsn
        self._readers: dict[Lsn, int] = {}
        self._left = asyncio.Event()

    @property
    def lsn(self) -> Lsn:
        """The present cutoff. To rely on it across an ``await``, use :meth:`hold`."""
        return self._lsn

    @property
    def planned(self) -> Lsn:
        """The cutoff to come; the present one if none is planned."""
        return self._planned

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

    def check_stays(self, lsn: Lsn) -> None:
        """Refuse an LSN that is not to be kept any longer: ``LsnOutOfScope`` names both."""
        if lsn < self._planned:
            raise LsnOutOfScope(f"LSN {lsn} is before latest_gc_cutoff_lsn {self._planned}")

    def plan(self, lsn: Lsn) -> None:
        """From now on nothing new may rely on what lies before ``lsn``."""
        assert lsn >= self._planned, f"the cutoff cannot go from {self._planned} back to {lsn}"
        self._planned = lsn

    async def apply(self) -> None:
        """Make the plan the cutoff, then wait until every reader of an older one has left."""
        self._lsn = self._planned
        await self._old_readers_left()

    async def _old_readers_left(self) -> None:
        while any(held < self._lsn for held in self._readers):
            self._left.clear()
            await self._left.wait()
