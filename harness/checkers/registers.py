"""A history cut into registers: for each key, the writes that may have happened and the reads.

A branch begins with its parent's state at the branch point. What real time says of a key: a write
*certainly happened before* another operation if it was acknowledged before the other began. Equal
instants are taken as concurrent. Writes that failed are left out; those of unknown outcome may take
effect at any time after they began, or never. Reads at a pinned LSN, or through a primary that may
have been deposed, are ``timeless``: real time does not bind them, their LSN does.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import NamedTuple

from harness.checkers.deposed import Deposed
from harness.history import History, Kind, Operation, Outcome
from storage.lsn import Lsn

NEVER = float("inf")
BEFORE_ALL = float("-inf")


class KeyWrite(NamedTuple):
    """A write of one key; ``None`` is a deletion. ``completed_at_s`` is ``NEVER`` unless it was
    acknowledged; ``number`` is the operation's, -1 for the initial state."""

    value: str | None
    invoked_at_s: float
    completed_at_s: float
    lsn: Lsn | None
    number: int

    @property
    def acknowledged(self) -> bool:
        """Whether it certainly happened."""
        return self.completed_at_s != NEVER

    @property
    def position(self) -> int:
        """Its LSN, as a number; it must be known."""
        assert self.lsn is not None, f"{self} tells no LSN"
        return int(self.lsn)


class KeyRead(NamedTuple):
    """What one answered read said of one key; ``None`` is absent."""

    value: str | None
    invoked_at_s: float
    completed_at_s: float
    lsn: Lsn | None
    number: int
    timeless: bool


INITIAL = KeyWrite(None, BEFORE_ALL, BEFORE_ALL, Lsn(0), -1)
"""A timeline without parent starts empty."""


@dataclass(slots=True)
class Register:
    """Everything a history says of one key, in order of invocation; ``initial`` comes first."""

    key: int
    initial: KeyWrite = INITIAL
    writes: list[KeyWrite] = field(default_factory=list)
    reads: list[KeyRead] = field(default_factory=list)

    def placed_writes(self) -> PlacedWrites | None:
        """The writes by what is known of their LSN; ``None`` if an acknowledged one tells none."""
        known = [self.initial]
        unknown: dict[str | None, list[KeyWrite]] = {}
        for write in self.writes:
            if not write.acknowledged:
                unknown.setdefault(write.value, []).append(write)
            elif write.lsn is None:
                return None
            else:
                known.append(write)
        return PlacedWrites(known, unknown)


class PlacedWrites(NamedTuple):
    """Writes of one key: the initial and the acknowledged ones, whose LSN is known; those of
    unknown outcome by value."""

    known: list[KeyWrite]
    unknown: dict[str | None, list[KeyWrite]]


def registers_of(history: History, timeline: str) -> list[Register]:
    """The registers of one timeline, by ascending key; made once for all oracles that ask.

    Keys that steps of transactions change are none: what such a write sets depends on what it
    found (:mod:`harness.checkers.list_append`, :mod:`harness.checkers.conservation`).
    """
    name = f"registers of {timeline}"
    known: list[Register] | None = history.derived.get(name)
    if known is None:
        known = history.derived[name] = _cut(history, timeline)
    return known


def _cut(history: History, timeline: str) -> list[Register]:
    operations = history.of(timeline)
    transacted = history.transacted(timeline)
    deposed = Deposed(history.lives.get(timeline, []))
    found = _Registers(_inherited(history, timeline))
    for operation in operations:
        if operation.is_write and operation.outcome is not Outcome.FAILED:
            _take_write(found, operation, deposed)
    written = sorted(found)
    for operation in operations:
        if operation.outcome is Outcome.OK and not operation.is_write:
            _take_read(found, operation, written, deposed)
    return [found[key] for key in sorted(found) if key not in transacted]


class _Registers(dict[int, Register]):
    """Registers by key, made when they are asked for."""

    def __missing__(self, key: int) -> Register:
        register = self[key] = Register(key)
        return register


def _inherited(history: History, timeline: str) -> dict[int, Register]:
    """Registers with what a branch has of its parent, by key; those of no branch are empty."""
    point = history.branches.get(timeline)
    if point is None:
        return {}
    found: dict[int, Register] = {}
    for parent in registers_of(history, point.parent):
        known = [parent.initial]
        unsure: list[KeyWrite] = []
        for write in parent.writes:
            if not write.acknowledged or write.lsn is None:
                if write.invoked_at_s <= point.at_s:
                    unsure.append(write)
            elif write.lsn <= point.lsn:
                known.append(write)
        newest = sorted(known, key=lambda write: write.position)[-1]
        # A write of the parent whose place is unknown may be in the branch, like one of its own.
        found[parent.key] = Register(
            parent.key,
            newest._replace(invoked_at_s=BEFORE_ALL, completed_at_s=BEFORE_ALL),
            [write._replace(invoked_at_s=BEFORE_ALL, completed_at_s=NEVER) for write in unsure],
        )
    return found


def _take_write(found: _Registers, operation: Operation, deposed: Deposed) -> None:
    if operation.kind is Kind.TRANSACT:
        return
    end_s = operation.completed_at_s if operation.outcome is Outcome.OK else NEVER
    assert end_s is not None, f"{operation} is complete but has no end"
    changes = operation.changes()
    deletes_only = all(value is None for value in changes.values())
    if deposed.has_rivals and deletes_only and deposed.possible(operation):
        end_s = NEVER  # What is absent in an old state is deleted without record and quorum.
    begin_s, lsn, number = operation.invoked_at_s, operation.lsn, operation.number
    for key, value in changes.items():
        found[key].writes.append(KeyWrite(value, begin_s, end_s, lsn, number))


def _take_read(
    found: _Registers, operation: Operation, written: list[int], deposed: Deposed
) -> None:
    """What an answered read says; a scan also says which written keys were absent."""
    end_s = operation.completed_at_s
    assert end_s is not None, f"{operation} is answered but has no end"
    rows: dict[int, str | None]
    if operation.kind is Kind.GET:
        rows = {operation.args[0]: operation.result}
    elif operation.kind is Kind.SCAN:
        first, end = operation.args
        rows = dict.fromkeys(written[bisect_left(written, first) : bisect_left(written, end)])
        rows.update(operation.result)
    else:
        return
    begin_s, lsn, number = operation.invoked_at_s, operation.lsn, operation.number
    timeless = operation.source.pinned or (deposed.has_rivals and deposed.possible(operation))
    for key, value in rows.items():
        found[key].reads.append(KeyRead(value, begin_s, end_s, lsn, number, timeless))


class Overwritten:
    """Answers which writes of a register cannot be current any more at an instant."""

    def __init__(self, writes: Iterable[KeyWrite]) -> None:
        acknowledged = sorted(
            (write.completed_at_s, write.invoked_at_s) for write in writes if write.acknowledged
        )
        self._completed_at_s = [completed_at_s for completed_at_s, _ in acknowledged]
        self._newest_s = [BEFORE_ALL]
        for _, invoked_at_s in acknowledged:
            self._newest_s.append(max(self._newest_s[-1], invoked_at_s))

    def before(self, instant_s: float) -> float:
        """A write that completed before the instant returned is overwritten for every operation
        that begins at ``instant_s``."""
        return self._newest_s[bisect_left(self._completed_at_s, instant_s)]


def may_be_current(
    register: Register, overwritten: Overwritten, began_s: float, ended_s: float
) -> list[KeyWrite]:
    """Writes whose value an operation from ``began_s`` to ``ended_s`` may see, initial included."""
    horizon_s = overwritten.before(began_s)
    return [
        write
        for write in (register.initial, *register.writes)
        if write.invoked_at_s <= ended_s and write.completed_at_s >= horizon_s
    ]
