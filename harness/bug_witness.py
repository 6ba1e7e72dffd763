"""What else saw a bug: after a red run, every oracle that only reads the run's records is asked.

The first oracle ends a run, so the others never had their turn. Promises of safety that hold at
every moment can be judged of a run that broke off; whether something would have happened later
cannot, so oracles of liveness are not asked.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

from harness.bug_oracles import oracle_of
from harness.checkers.commit_order import check_commit_order
from harness.checkers.crash_order import check_crash_order
from harness.checkers.dependency_cycles import check_dependency_cycles
from harness.checkers.linearizable import check_linearizable
from harness.checkers.logs import check_logs
from harness.checkers.lsn_order import check_lsn_order
from harness.checkers.quorum_order import check_quorum_order
from harness.checkers.reads_equal_model import check_reads
from harness.errors import CheckFailed

if TYPE_CHECKING:
    from harness.world import World


def witnesses(world: World) -> list[str]:
    """The oracles, ``O1`` …, that see a broken promise in what a run left; each once."""
    seen: dict[str, None] = {}
    for ask in _questions(world):
        try:
            ask()
        except CheckFailed as error:
            seen[oracle_of(error)] = None
    return list(seen)


def _questions(world: World) -> Iterator[Callable[[], object]]:
    history, events, logs = world.history, world.backend.events(), world.backend.logs()
    yield lambda: check_reads(history)
    yield lambda: check_commit_order(history)
    yield lambda: check_dependency_cycles(history)
    yield lambda: check_linearizable(history)
    yield lambda: check_lsn_order(events)
    yield lambda: check_crash_order(events)
    yield lambda: check_logs(logs, world.allowances)
    sizes = {cluster.topology.safekeepers for cluster in world.clusters}
    if len(sizes) == 1 and world.backend.clock_error_s == 0:
        yield lambda: check_quorum_order(events, safekeepers=sizes.pop())
