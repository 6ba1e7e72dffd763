"""Tasks end when they are asked to: a registry that must cancel one reports it (``deaf_task``).

A task may be late for reasons of its machine: what happens within a while of a freeze or of a disk
fault on that node is not judged, nor is anything where time is real and cores are shared.
Work for a client may be cut short. Source of the rule: receivers that look at the stop flag only
between messages, shutdowns that leave a detach behind (bugs ``receiver-stop-only-on-message``,
``shutdown-does-not-join-detach``).
"""

from __future__ import annotations

from collections.abc import Iterable

from harness.backend import Event
from harness.errors import CheckFailed

CHECKER = "tasks_heed"
EXCUSED_FOR_S = 15.0
FOR_CLIENTS = frozenset({"http_request", "wire_connection"})


def check_tasks_heed(events: Iterable[Event]) -> int:
    """Check the events of a run, in order of time; returns how many ends were judged."""
    order = TasksHeed()
    return sum(order.observe(event) for event in events)


class TasksHeed:
    """Whom something hindered last, and when."""

    def __init__(self) -> None:
        self._hindered_at_s: dict[str, float] = {}

    def observe(self, event: Event) -> bool:
        """Judge the end of a task that had to be cancelled, or of a node that had none."""
        if event.kind == "process":
            if event.fields["state"] in ("paused", "resumed"):
                self._hindered_at_s[str(event.fields.get("node") or event.node)] = event.at_s
            return event.fields["state"] == "stopped"
        if event.kind == "fault":
            for node in str(event.fields.get("target", "")).split():
                self._hindered_at_s[node] = event.at_s
        elif event.kind == "deaf_task" and event.fields["task"] not in FOR_CLIENTS:
            since_s = event.at_s - self._hindered_at_s.get(event.node, -EXCUSED_FOR_S)
            if since_s >= EXCUSED_FOR_S:
                raise CheckFailed(
                    f"at {event.at_s:.6f} s on {event.node}: task {event.fields['task']} "
                    f"{event.fields['name']} was asked to stop, did not, and had to be cancelled",
                    checker=CHECKER,
                )
            return True
        return False
