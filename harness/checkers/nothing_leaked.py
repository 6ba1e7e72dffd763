"""Nothing stays behind: tasks of a node, tasks of a detached tenant, anything after the stop."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from harness.errors import CheckFailed

CHECKER = "nothing_leaked"
SHOWN = 8

Task = Mapping[str, Any]
"""One row of ``GET /v1/tasks``: ``kind``, ``name``, ``tenant_id``, ``timeline_id`` …"""


def check_tasks_returned(node: str, before: Sequence[Task], after: Sequence[Task]) -> None:
    """Raise ``CheckFailed`` if a node has more tasks of a kind, tenant and timeline than before."""
    more = Counter(map(_group, after)) - Counter(map(_group, before))
    if more:
        raise CheckFailed(
            f"{node} kept {sum(more.values())} tasks more than before: "
            + ", ".join(f"{count} × {' '.join(group)}" for group, count in sorted(more.items())),
            checker=CHECKER,
        )


def check_tenant_gone(node: str, tasks: Sequence[Task], tenant_id: str) -> None:
    """Raise ``CheckFailed`` if a node still runs a task for a tenant that left it."""
    kept = [task for task in tasks if task.get("tenant_id") == tenant_id]
    if kept:
        shown = ", ".join(f"{task['kind']} {task['name']}" for task in kept[:SHOWN])
        raise CheckFailed(f"{node} still runs for tenant {tenant_id}: {shown}", checker=CHECKER)


def check_nothing_remains(leftovers: Mapping[str, Sequence[str]]) -> None:
    """Raise ``CheckFailed`` if a stopped node left anything: a task, process, port or file.

    ``leftovers``: what a world found, in words, by node.
    """
    found = {node: names for node, names in sorted(leftovers.items()) if names}
    if found:
        shown = "; ".join(f"{node}: {', '.join(names[:SHOWN])}" for node, names in found.items())
        raise CheckFailed(f"left behind after the stop: {shown}", checker=CHECKER)


def _group(task: Task) -> tuple[str, str, str]:
    return str(task["kind"]), str(task.get("tenant_id")), str(task.get("timeline_id"))
