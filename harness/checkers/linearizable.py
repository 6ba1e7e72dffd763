"""Each key behaves as one register: some order of its operations explains every read.

Keys whose written values are all different are decided in O(n log n): the write of a
value and its reads form a zone of time. If one of them ended before another began, the value was
certainly current in between (a forward zone); else it was current at some instant of the zone
(backward). A history is linearizable exactly if no two forward zones overlap and no backward zone
lies inside a forward one. The other keys (absence repeats wherever a key was deleted) are searched,
with bounded effort: what it does not suffice for is counted as undecided, and no failure.
Source: Gibbons and Korach, "Testing Shared Memories", SIAM J. Comput. 26 (1997), section 4.1.
"""

from __future__ import annotations

from bisect import bisect_left
from itertools import pairwise
from typing import NamedTuple

from harness.checkers.linearization_search import EFFORT_MAX, Order, search
from harness.checkers.registers import (
    NEVER,
    KeyRead,
    KeyWrite,
    Register,
    registers_of,
)
from harness.errors import CheckFailed
from harness.history import History

CHECKER = "linearizable"


class Zone(NamedTuple):
    """From the first end to the last beginning of the operations on one value; times in seconds.

    ``first`` and ``last`` are the numbers of those two operations.
    """

    first_end_s: float
    last_begin_s: float
    value: str | None
    first: int
    last: int

    @property
    def is_forward(self) -> bool:
        """Whether the value was certainly current all through the zone."""
        return self.first_end_s < self.last_begin_s


class Decided(NamedTuple):
    """How many keys were decided, and how many the effort did not suffice for."""

    keys: int
    undecided: int


def check_linearizable(history: History) -> Decided:
    """Check every key of every timeline."""
    keys = undecided = 0
    for timeline in history.timelines():
        for register in registers_of(history, timeline):
            if check_key(register):
                keys += 1
            else:
                undecided += 1
    return Decided(keys, undecided)


def check_key(register: Register, *, effort_max: int = EFFORT_MAX) -> bool:
    """Decide one key; false when ``effort_max`` configurations did not suffice."""
    if has_distinct_values(register):
        check_register(register)
        if sum(write.value is None for write in (register.initial, *register.writes)) <= 1:
            return True
    found = search(register, effort_max=effort_max)
    if found.order is Order.NONE:
        assert found.stuck is not None, "a search without order ends at an operation"
        raise CheckFailed(
            f"key {register.key}: no order of the operations that began before "
            f"{found.stuck.completed_at_s:.6f} s explains operation #{found.stuck.number}, which "
            f"ended then, of value {found.stuck.value!r}",
            checker=CHECKER,
        )
    return found.order is Order.EXISTS


def has_distinct_values(register: Register) -> bool:
    """Whether a value names its write; deletions do not count, see :func:`zones_of`."""
    writes = (register.initial, *register.writes)
    values = [write.value for write in writes if write.value is not None]
    return len(set(values)) == len(values)


def check_register(register: Register) -> None:
    """Raise ``CheckFailed`` if no order of the operations on this key explains its reads."""
    zones = zones_of(register)
    forward = sorted((zone for zone in zones if zone.is_forward), key=_first_end_s)
    for before, after in pairwise(forward):
        if after.first_end_s < before.last_begin_s:
            raise _failure(register, before, after)
    begins_s = [zone.first_end_s for zone in forward]
    for zone in zones:
        if not zone.is_forward:
            position = bisect_left(begins_s, zone.last_begin_s) - 1
            if position >= 0 and zone.first_end_s < forward[position].last_begin_s:
                raise _failure(register, forward[position], zone)


def zones_of(register: Register) -> list[Zone]:
    """A zone for each value but ``None`` (absent), which several deletions may have written,
    unless only one did. Leaving values out weakens the check, soundly.
    Raises ``CheckFailed`` for a value read before it was written."""
    reads: dict[str | None, list[KeyRead]] = {}
    for read in register.reads:
        if not read.timeless:
            reads.setdefault(read.value, []).append(read)
    every = [register.initial, *register.writes]
    absences = sum(write.value is None for write in every)
    writes = [write for write in every if write.value is not None or absences == 1]
    zones: list[Zone] = []
    for write in writes:
        seen_by = reads.get(write.value, [])
        if not seen_by and write.completed_at_s == NEVER:
            continue  # Perhaps it never happened.
        for read in seen_by:
            if read.completed_at_s < write.invoked_at_s:
                raise CheckFailed(
                    f"key {register.key}: operation #{read.number} read {read.value!r} before "
                    f"#{write.number} wrote it",
                    checker=CHECKER,
                )
        operations: list[KeyWrite | KeyRead] = [write, *seen_by]
        first = min(operations, key=lambda each: each.completed_at_s)
        last = max(operations, key=lambda each: each.invoked_at_s)
        zones.append(
            Zone(first.completed_at_s, last.invoked_at_s, write.value, first.number, last.number)
        )
    return zones


def _first_end_s(zone: Zone) -> float:
    return zone.first_end_s


def _failure(register: Register, certain: Zone, other: Zone) -> CheckFailed:
    return CheckFailed(
        f"key {register.key}: {certain.value!r} was current from the end of operation "
        f"#{certain.first} at {certain.first_end_s:.6f} s to the beginning of #{certain.last} at "
        f"{certain.last_begin_s:.6f} s, yet operations #{other.first} and #{other.last} need "
        f"{other.value!r} to be current in between",
        checker=CHECKER,
    )
