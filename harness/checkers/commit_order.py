"""LSNs agree with real time: what ended before another operation began has no higher LSN.

Holds on one timeline and across restarts of the compute, for every write that made a record and
every read but those at a pinned LSN or through a primary that may have been deposed. A write
acknowledged at an LSN that a later one gets again, or exceeds, means that history was rewritten; a
read at an LSN below one already acknowledged is stale.
"""

from __future__ import annotations

from harness.checkers.deposed import Deposed
from harness.errors import CheckFailed
from harness.history import History, Kind, Operation, Outcome, replay

CHECKER = "commit_order"


def check_commit_order(history: History) -> int:
    """Check every answered operation that tells an LSN; returns how many there are."""
    order = CommitOrder(history)
    return sum(replay(history, order.invoked, order.completed))


class CommitOrder:
    """The newest operation of each timeline, and which one that was when others began."""

    def __init__(self, history: History) -> None:
        self._history = history
        self._newest: dict[str, int] = {}
        self._floors: dict[int, int] = {}
        self._puts: dict[tuple[str, int], int] = {}

    def invoked(self, index: int) -> None:
        """What has ended by now bounds this operation from below."""
        newest = self._newest.get(self._history.source(index).timeline)
        if newest is not None:
            self._floors[index] = newest

    def completed(self, index: int) -> bool:
        """Compare an operation with what had ended before it began; whether it counts."""
        operation = self._history[index]
        floor = self._floors.pop(index, None)
        if not self._is_bound(operation):
            return False
        timeline, lsn = operation.source.timeline, _lsn(operation)
        self._check_distinct(operation)
        if floor is not None and lsn < _lsn(self._history[floor]):
            raise CheckFailed(
                f"{operation} has a lower LSN than {self._history[floor]}, which ended before it "
                "began",
                checker=CHECKER,
            )
        newest = self._newest.get(timeline)
        if newest is None or lsn > _lsn(self._history[newest]):
            self._newest[timeline] = index
        return True

    def _is_bound(self, operation: Operation) -> bool:
        if operation.outcome is not Outcome.OK or operation.lsn is None or operation.source.pinned:
            return False
        if makes_record(operation):
            return True
        lives = self._history.lives.get(operation.source.timeline, [])
        return len(lives) < 2 or not Deposed(lives).possible(operation)

    def _check_distinct(self, operation: Operation) -> None:
        """Two puts never commit at one LSN. (A write that changed nothing has none of its own.)"""
        if operation.kind is Kind.PUT:
            key = (operation.source.timeline, _lsn(operation))
            other = self._puts.setdefault(key, operation.number)
            if other != operation.number:
                raise CheckFailed(
                    f"{self._history[other]} and {operation} were acknowledged at one LSN",
                    checker=CHECKER,
                )


def makes_record(operation: Operation) -> bool:
    """Whether it is a write that cannot be acknowledged without a quorum."""
    return any(value is not None for value in operation.changes().values())


def _lsn(operation: Operation) -> int:
    assert operation.lsn is not None
    return int(operation.lsn)
