"""Search for an order that explains one register, whatever its values; exact but bounded.

Operations are walked in order of time. A configuration is the register's value and which of the
operations under way have taken effect; at the end of an operation, those that lack it take effects
of others until they have it. So work grows with concurrency, not with length. A read takes effect
as soon as it may, for that changes nothing; a write that may never have happened, and that no read
saw, is left out, for an order without it explains as much.
Sources: Wing and Gong, "Testing and Verifying Concurrent Objects", J. Parallel Distrib. Comput. 17
(1993); Lowe, "Testing for linearizability", Concurrency Comput. 29 (2017), section 3.
"""

from __future__ import annotations

import enum
from typing import NamedTuple

from harness.checkers.registers import NEVER, KeyRead, KeyWrite, Register

EFFORT_MAX = 100_000


class Order(enum.Enum):
    """What a search found out."""

    EXISTS = "some order explains every read"
    NONE = "no order does"
    UNKNOWN = "the effort was spent before the search ended"


class Found(NamedTuple):
    """``effort``: configurations looked at. ``stuck``: the operation that nothing explains."""

    order: Order
    effort: int
    stuck: KeyRead | KeyWrite | None = None


Configuration = tuple[str | None, int]
"""A value, and a bit for each operation under way that has taken effect."""


def search(register: Register, *, effort_max: int = EFFORT_MAX) -> Found:
    """Decide whether a register is linearizable, looking at ``effort_max`` configurations at most.

    Timeless reads are left out.
    """
    return _Search(register, effort_max).run()


class _Search:
    def __init__(self, register: Register, effort_max: int) -> None:
        self._events = _events(register)
        self._effort_max = effort_max
        self._effort = 0
        self._slots: dict[int, int] = {}
        self._free: list[int] = []
        self._used = 0
        self._writes: dict[int, str | None] = {}
        self._unsure: dict[str | None, list[int]] = {}
        self._reads: dict[str | None, int] = {}
        self._configurations: set[Configuration] = {(register.initial.value, 0)}

    def run(self) -> Found:
        for _, is_end, operation in self._events:
            if not is_end:
                self._begin(operation)
                continue
            bit = 1 << self._slots[operation.number]
            reached = self._reach(bit)
            if reached is None:
                return Found(Order.UNKNOWN, self._effort)
            if not reached:
                return Found(Order.NONE, self._effort, operation)
            self._configurations = {(value, done & ~bit) for value, done in reached}
            self._end(operation, bit)
        return Found(Order.EXISTS, self._effort)

    def _begin(self, operation: KeyRead | KeyWrite) -> None:
        if self._free:
            slot = self._free.pop()
        else:
            slot, self._used = self._used, self._used + 1
        self._slots[operation.number] = slot
        bit = 1 << slot
        if isinstance(operation, KeyWrite):
            if operation.acknowledged:
                self._writes[bit] = operation.value
            else:
                self._unsure.setdefault(operation.value, []).append(bit)
            return
        self._reads[operation.value] = self._reads.get(operation.value, 0) | bit
        self._configurations = {
            (value, done | bit if value == operation.value else done)
            for value, done in self._configurations
        }

    def _end(self, operation: KeyRead | KeyWrite, bit: int) -> None:
        self._free.append(self._slots.pop(operation.number))
        if isinstance(operation, KeyWrite):
            del self._writes[bit]
        else:
            self._reads[operation.value] &= ~bit

    def _reach(self, bit: int) -> set[Configuration] | None:
        """Configurations in which the operation of ``bit`` took effect; ``None`` if too many."""
        seen = set(self._configurations)
        reached = {each for each in seen if each[1] & bit}
        waiting = [each for each in seen if not each[1] & bit]
        self._effort += len(seen)
        while waiting:
            _, done = waiting.pop()
            for write, value in self._possible(done):
                after = (value, done | write | self._reads.get(value, 0))
                if after in seen:
                    continue
                seen.add(after)
                self._effort += 1
                if self._effort > self._effort_max:
                    return None
                if after[1] & bit:
                    reached.add(after)
                else:
                    waiting.append(after)
        return reached

    def _possible(self, done: int) -> list[tuple[int, str | None]]:
        """Writes that may take effect next. Those without end that write one value are alike, so
        the one that began first stands for all."""
        possible = [(write, value) for write, value in self._writes.items() if not done & write]
        for value, writes in self._unsure.items():
            write = next((write for write in writes if not done & write), None)
            if write is not None:
                possible.append((write, value))
        return possible


def _events(register: Register) -> list[tuple[float, bool, KeyRead | KeyWrite]]:
    """Begins and ends in order of time; at one instant begins come first: they are concurrent."""
    reads = [read for read in register.reads if not read.timeless]
    seen = {read.value for read in reads}
    operations: list[KeyRead | KeyWrite] = [*reads]
    operations += [w for w in register.writes if w.completed_at_s != NEVER or w.value in seen]
    events: list[tuple[float, bool, KeyRead | KeyWrite]] = []
    for operation in operations:
        events.append((operation.invoked_at_s, False, operation))
        if operation.completed_at_s != NEVER:
            events.append((operation.completed_at_s, True, operation))
    events.sort(key=lambda event: event[:2])
    return events
