"""Reads in the past, again and again: the first answer at an LSN is the only right one.

Pages are read at the head, where no garbage collection can be, and the same pages at the same LSN
later, while it passes by: the same bytes, or a refusal that names the cutoff.
"""

from __future__ import annotations

import random
from typing import TYPE_CHECKING

from harness.checkers.pages_equal_wal import Wanted
from harness.errors import CheckFailed
from harness.storage_taps import PageTap
from storage.errors import LsnOutOfScope
from storage.wire.client import ServerError

if TYPE_CHECKING:
    from harness.nodes import PageserverHandle
    from storage.ids import TenantTimelineId
    from storage.lsn import Lsn

REMEMBERED_MAX = 60


class PastReads:
    """What pages of one timeline were at LSNs, by the first answer of its pageserver."""

    def __init__(
        self, pageserver: PageserverHandle, timeline: TenantTimelineId, chance: random.Random
    ) -> None:
        self.same = 0
        self.refused = 0
        self._timeline = timeline
        self._tap = PageTap(pageserver, timeline)
        self._chance = chance
        self._seen: dict[Lsn, dict[int, bytes]] = {}

    def move(self, pageserver: PageserverHandle) -> None:
        """Read from another pageserver from now on, where the timeline must be active."""
        self._tap = PageTap(pageserver, self._timeline)

    async def remember(self, lsn: Lsn, blocks: list[int]) -> None:
        """Read pages at an LSN that was the head just now, unless even that is collected."""
        pages = await self._read(lsn, blocks)
        if pages is None:
            return
        self._seen[lsn] = dict(zip(blocks, pages, strict=True))
        if len(self._seen) > REMEMBERED_MAX:
            del self._seen[min(self._seen)]

    async def again(self) -> None:
        """Read the pages of some remembered LSN again; ``CheckFailed`` if they have changed."""
        if not self._seen:
            return
        # The oldest that is left is the next that garbage collection may come for.
        oldest_first = sorted(self._seen)
        lsn = oldest_first[0] if self._chance.random() < 0.5 else self._chance.choice(oldest_first)
        expected = self._seen[lsn]
        pages = await self._read(lsn, list(expected))
        if pages is None:
            self._seen.pop(lsn, None)
            return
        for (block, before), now in zip(expected.items(), pages, strict=True):
            if before != now:
                raise CheckFailed(
                    f"block {block} at {lsn} is not what it was: {_difference(before, now)}",
                    checker="past_reads",
                )
        self.same += 1

    async def _read(self, lsn: Lsn, blocks: list[int]) -> list[bytes] | None:
        """Pages at an LSN; ``None`` if it is out of scope, which is counted."""
        try:
            return await self._tap.read([Wanted(block, lsn) for block in blocks])
        except ServerError as error:
            if error.sqlstate != LsnOutOfScope.sqlstate:
                raise CheckFailed(f"read at {lsn}: {error}", checker="past_reads") from error
            self.refused += 1
            return None


def _difference(before: bytes, now: bytes) -> str:
    at = next(
        offset for offset, pair in enumerate(zip(before, now, strict=True)) if len({*pair}) > 1
    )
    return f"{before[at : at + 16].hex()} became {now[at : at + 16].hex()} at byte {at}"
