"""The recorded history of operations: the only thing that most oracles look at.

One list per column, because a load records 10⁵ operations and more: an operation costs a handful of
appends, and becomes an :class:`Operation` only when somebody reads it. An operation that was sent
and never answered is ``UNKNOWN``: it may have happened, may happen later, or never.
"""

from __future__ import annotations

import enum
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

from storage.lsn import Lsn


class Kind(enum.StrEnum):
    """What an operation does, with its arguments and the value of its answer."""

    PUT = "put"
    """(key, value) → None"""
    DELETE = "delete"
    """(key,) → None"""
    TXN = "txn"
    """({key: value or None to delete},), all or nothing → None"""
    TRANSACT = "transact"
    """((step, …),), all or nothing → [value of each step's key after the step]. A step is
    ``("read", key)``, ``("append", key, element)`` to a list, comma separated, or
    ``("add", key, amount)`` to a number; at least one is no read"""
    GET = "get"
    """(key,) → value or None"""
    SCAN = "scan"
    """(first key, end key exclusive) → [(key, value), …] in order of key"""
    SUM = "sum"
    """() → sum of every value as an integer"""


WRITES = frozenset({Kind.PUT, Kind.DELETE, Kind.TXN, Kind.TRANSACT})


class Outcome(enum.StrEnum):
    """How an operation ended; ``PENDING`` while it has not."""

    PENDING = "pending"
    OK = "ok"
    FAILED = "failed"
    """It certainly had no effect."""
    UNKNOWN = "unknown"
    """It may have an effect, now or later."""


@dataclass(frozen=True, slots=True)
class Source:
    """Who asked: a client's name, the timeline it works on, and whether it reads at a pinned LSN
    (such reads are old on purpose, so real time says nothing about them)."""

    process: str
    timeline: str = ""
    pinned: bool = False


@dataclass(frozen=True, slots=True)
class BranchPoint:
    """Where a timeline came from: its parent's state at ``lsn``, known to exist at ``at_s``."""

    parent: str
    lsn: Lsn
    at_s: float


@dataclass(frozen=True, slots=True)
class Conserved:
    """Keys ``first`` … ``end - 1`` are numbers that add up to ``total`` whatever is transferred,
    from when they were opened on."""

    first: int
    end: int
    total: int
    opened_at_s: float
    opened_lsn: Lsn | None


@dataclass(slots=True)
class ComputeLife:
    """One start of a primary, named like the processes of its clients. It was elected after
    ``began_at_s`` and before ``serving_at_s`` (``None``: not known to have served)."""

    process: str
    began_at_s: float
    serving_at_s: float | None = None


class Operation(NamedTuple):
    """One operation. Times in seconds since the run began; ``completed_at_s`` is ``None`` while
    pending. ``lsn``: where a write committed, or at which LSN a read's answer holds; ``None`` if
    the compute does not tell. ``result`` is the answer's value, or why there is none."""

    number: int
    source: Source
    kind: Kind
    args: tuple[Any, ...]
    invoked_at_s: float
    completed_at_s: float | None
    outcome: Outcome
    result: Any
    lsn: Lsn | None

    @property
    def is_write(self) -> bool:
        """Whether it is meant to change something."""
        return self.kind in WRITES

    def changes(self) -> Mapping[int, str | None]:
        """What a write sets; ``None`` deletes. Empty for a read, and for steps that were never
        answered: what they set depends on what they found."""
        if self.kind is Kind.PUT:
            return {self.args[0]: self.args[1]}
        if self.kind is Kind.DELETE:
            return {self.args[0]: None}
        if self.kind is Kind.TRANSACT:
            if self.outcome is not Outcome.OK:
                return {}
            found = zip(self.args[0], self.result, strict=True)
            return {step[1]: value for step, value in found if step[0] != "read"}
        return self.args[0] if self.kind is Kind.TXN else {}

    def __str__(self) -> str:
        end = "…" if self.completed_at_s is None else f"{self.completed_at_s:.6f}"
        at = "" if self.lsn is None else f" at {self.lsn}"
        arguments = " ".join(map(str, self.args))
        return (
            f"#{self.number} {self.source.process} {self.kind} {arguments} → {self.outcome} "
            f"{self.result!r}{at} [{self.invoked_at_s:.6f}, {end}]"
        )


class Follower(Protocol):
    """Is told of operations as they begin and end, by their index in the history."""

    def invoked(self, index: int) -> object:
        """An operation was sent."""
        ...

    def completed(self, index: int) -> object:
        """An operation ended."""
        ...


class History:
    """Every operation in order of its invocation. Append-only."""

    def __init__(self) -> None:
        self._sources: list[Source] = []
        self._kinds: list[Kind] = []
        self._args: list[tuple[Any, ...]] = []
        self._invoked_at_s: list[float] = []
        self._completed_at_s: list[float | None] = []
        self._outcomes: list[Outcome] = []
        self._results: list[Any] = []
        self._lsns: list[Lsn | None] = []
        self._commits = 0
        self._follower: Follower | None = None
        self.branches: dict[str, BranchPoint] = {}
        self.lives: dict[str, list[ComputeLife]] = {}
        self.conserved: dict[str, list[Conserved]] = {}
        self.derived: dict[str, Any] = {}
        """What readers made of it, by name, to share; forgotten when the history grows."""

    def branched(self, timeline: str, point: BranchPoint) -> None:
        """Record that a timeline began as a branch of another."""
        assert timeline not in self.branches, f"timeline {timeline} is branched twice"
        self._changed()
        self.branches[timeline] = point

    def conserve(self, timeline: str, accounts: Conserved) -> None:
        """Record that a timeline has accounts between which amounts are only transferred."""
        assert accounts.first < accounts.end, f"no accounts: {accounts}"
        self.conserved.setdefault(timeline, []).append(accounts)

    def compute_began(self, timeline: str, process: str, at_s: float) -> ComputeLife:
        """Record that a primary of a timeline is about to start; see :meth:`compute_serves`.

        Without such records every primary counts as the only one of its timeline.
        """
        self._changed()
        life = ComputeLife(process, at_s)
        self.lives.setdefault(timeline, []).append(life)
        return life

    def compute_serves(self, life: ComputeLife, at_s: float) -> None:
        """Record that a primary was elected and serves."""
        self._changed()
        life.serving_at_s = at_s

    def _changed(self) -> None:
        if self.derived:
            self.derived.clear()

    def invoke(self, source: Source, kind: Kind, args: tuple[Any, ...], at_s: float) -> int:
        """Record that an operation is about to be sent; returns its index."""
        self._changed()
        self._sources.append(source)
        self._kinds.append(kind)
        self._args.append(args)
        self._invoked_at_s.append(at_s)
        self._completed_at_s.append(None)
        self._outcomes.append(Outcome.PENDING)
        self._results.append(None)
        self._lsns.append(None)
        index = len(self._kinds) - 1
        if self._follower is not None:
            self._follower.invoked(index)
        return index

    def succeed(self, index: int, at_s: float, result: Any, lsn: Lsn | None) -> None:
        """Record the answer of an operation."""
        self._lsns[index] = lsn
        if self._kinds[index] in WRITES:
            self._commits += 1
        self._complete(index, at_s, Outcome.OK, result)

    def fail(self, index: int, at_s: float, outcome: Outcome, why: str) -> None:
        """Record that there is no answer; ``outcome`` is ``FAILED`` or ``UNKNOWN``."""
        assert outcome in (Outcome.FAILED, Outcome.UNKNOWN), outcome
        self._complete(index, at_s, outcome, why)

    def _complete(self, index: int, at_s: float, outcome: Outcome, result: Any) -> None:
        assert self._outcomes[index] is Outcome.PENDING, f"operation {index} completes twice"
        assert at_s >= self._invoked_at_s[index], f"operation {index} ends before it begins"
        self._changed()
        self._completed_at_s[index] = at_s
        self._outcomes[index] = outcome
        self._results[index] = result
        if self._follower is not None:
            self._follower.completed(index)

    def follow(self, follower: Follower) -> None:
        """Have a follower told of every operation from now on."""
        assert self._follower is None, "a history has one follower"
        self._follower = follower

    def source(self, index: int) -> Source:
        """Who asked for an operation."""
        return self._sources[index]

    def outcome(self, index: int) -> Outcome:
        """How an operation ended, if it did."""
        return self._outcomes[index]

    def commits(self) -> int:
        """Number of acknowledged writes."""
        return self._commits

    def committed_timelines(self) -> set[str]:
        """Timelines on which a write was acknowledged."""
        return {
            source.timeline
            for source, kind, outcome in zip(
                self._sources, self._kinds, self._outcomes, strict=True
            )
            if outcome is Outcome.OK and kind in WRITES
        }

    def acknowledged_lsn(self, timeline: str) -> Lsn:
        """The highest LSN at which a write on this timeline was acknowledged, or 0."""
        return max(
            (
                lsn
                for lsn, kind, source in zip(self._lsns, self._kinds, self._sources, strict=True)
                if lsn is not None and kind in WRITES and source.timeline == timeline
            ),
            default=Lsn(0),
        )

    def __len__(self) -> int:
        return len(self._kinds)

    def __getitem__(self, index: int) -> Operation:
        return Operation(
            index,
            self._sources[index],
            self._kinds[index],
            self._args[index],
            self._invoked_at_s[index],
            self._completed_at_s[index],
            self._outcomes[index],
            self._results[index],
            self._lsns[index],
        )

    def __iter__(self) -> Iterator[Operation]:
        for index in range(len(self)):
            yield self[index]

    def transacted(self, timeline: str) -> frozenset[int]:
        """Keys that steps of transactions change, on a timeline or before it was branched."""
        name = f"transacted {timeline}"
        if name not in self.derived:
            self.derived[name] = self._transacted(timeline)
        known: frozenset[int] = self.derived[name]
        return known

    def _transacted(self, timeline: str) -> frozenset[int]:
        point = self.branches.get(timeline)
        found = set() if point is None else set(self.transacted(point.parent))
        for source, kind, args in zip(self._sources, self._kinds, self._args, strict=True):
            if kind is Kind.TRANSACT and source.timeline == timeline:
                found.update(step[1] for step in args[0] if step[0] != "read")
        return frozenset(found)

    def timelines(self) -> list[str]:
        """Timelines that operations name, sorted; each is a key space of its own."""
        return sorted({source.timeline for source in self._sources})

    def of(self, timeline: str) -> list[Operation]:
        """The operations on one timeline; not to be changed."""
        name = f"operations of {timeline}"
        if name not in self.derived:
            self.derived[name] = [each for each in self if each.source.timeline == timeline]
        known: list[Operation] = self.derived[name]
        return known


def replay(
    history: History, invoked: Callable[[int], object], completed: Callable[[int], bool]
) -> Iterator[bool]:
    """Tell of a recorded history as of one that happens; yields what each end is worth.

    What ends and begins at one instant counts as concurrent.
    """
    moments = [(each.invoked_at_s, False, each.number) for each in history]
    moments += [
        (each.completed_at_s, True, each.number)
        for each in history
        if each.completed_at_s is not None
    ]
    for _, is_end, index in sorted(moments):
        if is_end:
            yield completed(index)
        else:
            invoked(index)
