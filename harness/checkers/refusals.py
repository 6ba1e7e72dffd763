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
    """Raise ``CheckFailed`` for the first refusal without excuse; returns how many there were."""
    refused = [each for each in history if each.outcome is Outcome.FAILED]
    if not refused:
        return 0
    is_damaged = any(event.kind == "fault" and event.fields.get("damage") for event in events)
    for operation in refused:
        if not _is_excused(operation, is_damaged) and not any(
            re.search(allowance.pattern, str(operation.result)) for allowance in allowances
        ):
            raise CheckFailed(f"{operation}: nothing excuses this refusal", checker=CHECKER)
    return len(refused)


def _is_excused(operation: Operation, is_damaged: bool) -> bool:
    sqlstate = str(operation.result).partition(":")[0]
    return (
        NOT_NOW.match(sqlstate) is not None
        or (operation.source.pinned and NOT_HERE.match(sqlstate) is not None)
        or (is_damaged and CORRUPT.match(sqlstate) is not None)
    )
