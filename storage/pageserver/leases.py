"""LSN leases: who reads at a fixed LSN says so, and garbage collection stays behind it.

A lease lives in memory only, for a limited time, and is renewed by its holder. What makes it
outlive restarts and migrations is that a timeline collects nothing after loading until every lease
that a former attachment may have granted was renewed here or has ended (``Leases.settled_at_s``).
Times are seconds of the loop's clock, which no jump of the wall clock touches.
"""

from __future__ import annotations

from storage.lsn import Lsn


class Leases:
    """The leases of one timeline: LSN → when the last one at it ends."""

    def __init__(self, settled_at_s: float) -> None:
        self.settled_at_s = settled_at_s
        self._end_s: dict[Lsn, float] = {}

    def grant(self, lsn: Lsn, until_s: float) -> None:
        """Hold ``lsn`` until then; a lease that ends later stays as it is."""
        self._end_s[lsn] = max(until_s, self._end_s.get(lsn, until_s))

    def live(self, now_s: float) -> list[Lsn]:
        """LSNs that are leased now, ascending; what has ended is forgotten."""
        self._end_s = {lsn: end_s for lsn, end_s in self._end_s.items() if end_s > now_s}
        return sorted(self._end_s)

    def oldest(self, now_s: float) -> Lsn | None:
        """The lowest LSN that is leased now."""
        return min(self.live(now_s), default=None)

    def may_be_incomplete(self, now_s: float) -> bool:
        """Whether a lease of a former attachment may still be unknown here."""
        return now_s < self.settled_at_s
