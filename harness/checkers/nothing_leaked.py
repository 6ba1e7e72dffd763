"""Nothing stays behind: connections whose client has gone, tasks of a tenant that was detached.

Tasks and sockets that outlive a node's main, and processes that do not end, are logged by the
worlds themselves (:mod:`harness.leftovers`), so the log oracle finds them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from harness.errors import CheckFailed, NotYet

CHECKER = "nothing_leaked"
SHOWN = 8
CONNECTION = "wire_connection"

Task = Mapping[str, Any]
"""One row of ``GET /v1/tasks``: ``kind``, ``name``, ``tenant_id``, ``timeline_id`` …"""


def check_tenant_gone(node: str, tasks: Sequence[Task], tenant_id: str) -> None:
    """Raise ``CheckFailed`` if a node still runs a task for a tenant that left it."""
    kept = [task for task in tasks if task.get("tenant_id") == tenant_id]
    if kept:
        raise CheckFailed(
            f"{node} still runs for tenant {tenant_id}: {_shown(kept)}", checker=CHECKER
        )


def check_connections_gone(node: str, tasks: Sequence[Task]) -> None:
    """Raise ``NotYet`` while a node whose clients have all stopped still serves a connection."""
    kept = [task for task in tasks if task["kind"] == CONNECTION]
    if kept:
        raise NotYet(f"{node} still serves, although its clients have stopped: {_shown(kept)}")


def check_streams_gone(node: str, status: Mapping[str, Any]) -> None:
    """Raise ``NotYet`` while a safekeeper still serves a proposer or reader of a timeline, all of
    which have ended: it has to notice their silence. ``status`` is the timeline's."""
    if status["proposers"] or status["readers"]:
        raise NotYet(
            f"{node} still serves {status['proposers']} proposers and readers {status['readers']}"
        )


def _shown(tasks: Sequence[Task]) -> str:
    names = [f"{task['kind']} {task['name']}" for task in tasks[:SHOWN]]
    return ", ".join(names) + (f" and {len(tasks) - SHOWN} more" if len(tasks) > SHOWN else "")
