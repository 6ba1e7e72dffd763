"""LSNs agree with real time: what ended before another operation began has no higher LSN.

Holds on one timeline and across restarts of the compute, for every write that made a record and
every read but those at a pinned LSN or through a primary that may have been deposed. A write
acknowledged at an LSN that a later one gets again, or exceeds, means that history was rewritten; a
read at an LSN below one already acknowledged is stale.
"""

from __future__ import annotations

from harness.checkers.deposed import Deposed
from harness.errors import CheckFailed
from harness.history import History, Kind, Operation, Outcome

CHECKER = "commit_order"


def check_commit_order(history: History) -> int:
    """Check every answered operation that tells an LSN; returns how many there are."""
    return sum(
        check_operations(history.of(timeline), Deposed(history.lives.get(timeline, [])))
        for timeline in history.timelines()
    )


def check_operations(operations: list[Operation], deposed: Deposed) -> int:
    """Check the operations of one timeline."""
    answered = [
        operation
        for operation in operations
        if operation.outcome is Outcome.OK
        and operation.lsn is not None
        and not operation.source.pinned
        and (_makes_record(operation) or not deposed.possible(operation))
    ]
    _check_distinct(answered)
    by_end = sorted(answered, key=_end_s)
    ended = 0
    newest: Operation | None = None
    for operation in sorted(answered, key=lambda each: each.invoked_at_s):
        while ended < len(by_end) and _end_s(by_end[ended]) < operation.invoked_at_s:
            if newest is None or _lsn(by_end[ended]) > _lsn(newest):
                newest = by_end[ended]
            ended += 1
        if newest is not None and _lsn(operation) < _lsn(newest):
            raise CheckFailed(
                f"{operation} has a lower LSN than {newest}, which ended before it began",
                checker=CHECKER,
            )
    return len(answered)


def _makes_record(operation: Operation) -> bool:
    """Whether it is a write that cannot be acknowledged without a quorum."""
    return any(value is not None for value in operation.changes().values())


def _check_distinct(answered: list[Operation]) -> None:
    """Two puts never commit at one LSN. (A write that changed nothing has no LSN of its own.)"""
    seen: dict[int, Operation] = {}
    for operation in answered:
        if operation.kind is Kind.PUT:
            other = seen.setdefault(_lsn(operation), operation)
            if other is not operation:
                raise CheckFailed(
                    f"{other} and {operation} were acknowledged at one LSN", checker=CHECKER
                )


def _lsn(operation: Operation) -> int:
    assert operation.lsn is not None
    return int(operation.lsn)


def _end_s(operation: Operation) -> float:
    assert operation.completed_at_s is not None
    return operation.completed_at_s
