"""No spurious refusal: an operation is refused only for a reason that the client can understand.

A refusal without SQLSTATE never reached the server, or the connection broke. With one it must mean
"not now" (shutting down, not ready, out of resources, serialisation) or "not here" (a replica that
cannot write, an LSN it may no longer read). What exists is never unknown or out of scope to its
primary, and nothing is corrupt, unless a fault of the run altered a disk. A scenario that asks for
a refusal expects it, like a log line.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

from harness.backend import Event
from harness.checkers.logs import Allowance
from harness.errors import CheckFailed
from harness.history import History, Operation, Outcome

CHECKER = "refusals"

NOT_NOW = re.compile(r"(08...|40...|53...|57P0.)?\Z")
NOT_HERE = re.compile(r"(25006|22003)\Z")
CORRUPT = re.compile(r"XX...\Z")


def check_refusals(
    history: History, events: Iterable[Event] = (), allowances: Sequence[Allowance] = ()
) -> int:
    """Raise ``CheckFailed`` for the first refusal without excuse; returns how many answers
    there were."""
    refusals = Refusals(history, allowances)
    for event in events:
        refusals.observe(event)
    return sum(refusals.completed(index) for index in range(len(history)))


class Refusals:
    """Judges refusals as they come. ``allowances`` may grow; a fault excuses from its begin on."""

    def __init__(self, history: History, allowances: Sequence[Allowance]) -> None:
        self._history = history
        self._allowances = allowances
        self._is_damaged = False

    def observe(self, event: Event) -> bool:
        """Note whether disks lie from now on; no event refuses anything."""
        if event.kind == "fault" and event.fields.get("damage"):
            self._is_damaged = True
        return False

    def invoked(self, index: int) -> None:
        """Nothing is refused yet."""

    def completed(self, index: int) -> bool:
        """Judge an operation that ended; whether it was answered at all."""
        outcome = self._history.outcome(index)
        if outcome is not Outcome.FAILED:
            return outcome is Outcome.OK
        operation = self._history[index]
        if not _is_excused(operation, self._is_damaged) and not any(
            re.search(allowance.pattern, str(operation.result)) for allowance in self._allowances
        ):
            raise CheckFailed(f"{operation}: nothing excuses this refusal", checker=CHECKER)
        return True


def _is_excused(operation: Operation, is_damaged: bool) -> bool:
    sqlstate = str(operation.result).partition(":")[0]
    return (
        NOT_NOW.match(sqlstate) is not None
        or (operation.source.pinned and NOT_HERE.match(sqlstate) is not None)
        or (is_damaged and CORRUPT.match(sqlstate) is not None)
    )
