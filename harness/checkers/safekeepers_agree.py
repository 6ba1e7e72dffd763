"""Safekeepers hold the same WAL, byte for byte, as far as the protocol promises.

Below what each of two knows to be committed; and, when the newest entries of both logs are of one
term, all that both have: logs that agree on an entry's term agree on everything before it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from harness.errors import CheckFailed
from storage.ids import TenantTimelineId
from storage.lsn import Lsn

CHECKER = "safekeepers_agree"


class TimelineState(Protocol):
    """What a safekeeper says of a timeline, as far as it matters here."""

    @property
    def commit_lsn(self) -> Lsn:
        """What it knows to be committed."""
        ...

    @property
    def flush_lsn(self) -> Lsn:
        """What it has on disk."""
        ...

    @property
    def last_log_term(self) -> int:
        """The term of the newest entry of its log."""
        ...

    @property
    def timeline_start_lsn(self) -> Lsn:
        """Where the timeline begins."""
        ...


class Safekeeper(Protocol):
    """A safekeeper's API, like :class:`harness.nodes.SafekeeperHandle`."""

    @property
    def name(self) -> str:
        """The node's name."""
        ...

    async def timeline(self, timeline: TenantTimelineId) -> TimelineState:
        """Terms and LSNs of a timeline."""
        ...

    async def digest(self, timeline: TenantTimelineId, start: Lsn, end: Lsn) -> str:
        """A digest of the WAL bytes in [start, end)."""
        ...


async def check_safekeepers_agree(
    safekeepers: Sequence[Safekeeper], timeline: TenantTimelineId, *, from_lsn: Lsn | None = None
) -> Lsn:
    """Compare each with the one that knows most, from ``from_lsn`` (by default the timeline's
    start) on; returns up to where all were compared.

    Raises ``CheckFailed`` naming two safekeepers and the LSN of the first byte that differs.
    """
    states = [(await safekeeper.timeline(timeline), safekeeper) for safekeeper in safekeepers]
    if not states:
        return from_lsn or Lsn(0)
    start = from_lsn if from_lsn is not None else max(s.timeline_start_lsn for s, _ in states)
    reference, first = max(states, key=lambda each: _committed(each[0]))
    ends = [_committed(reference)]
    for state, other in states:
        if other is first:
            continue
        end = min(_committed(state), _committed(reference))
        if state.last_log_term == reference.last_log_term:
            end = min(state.flush_lsn, reference.flush_lsn)
        ends.append(end)
        if end > start and await first.digest(timeline, start, end) != await other.digest(
            timeline, start, end
        ):
            lsn = await first_difference((first, other), timeline, start, end)
            raise CheckFailed(
                f"{first.name} and {other.name} differ at {lsn}, below {end} up to which "
                f"they must agree, on timeline {timeline}",
                checker=CHECKER,
            )
    return max(start, min(ends))


def _committed(state: TimelineState) -> Lsn:
    """What it has of what it knows to be committed."""
    return min(state.commit_lsn, state.flush_lsn)


async def first_difference(
    pair: tuple[Safekeeper, Safekeeper], timeline: TenantTimelineId, start: Lsn, end: Lsn
) -> Lsn:
    """LSN of the first byte in [start, end) on which a pair differs, by bisection."""
    one, other = pair
    low, high = start, end
    while high - low > 1:
        middle = Lsn((low + high) // 2)
        equal = await one.digest(timeline, low, middle) == await other.digest(timeline, low, middle)
        low, high = (middle, high) if equal else (low, middle)
    return low
