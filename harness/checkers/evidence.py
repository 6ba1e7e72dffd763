"""What the other oracles rest on was recorded at all: they find nothing wrong in nothing.

A world that lost its events or its logs, or a node that stopped reporting, would let every run
pass. That is a defect of ours, not of the system, so it is a ``HarnessError``.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from harness.backend import Event, LogLine
from harness.errors import HarnessError
from storage.ids import TenantTimelineId

BY_ANYBODY = ("elected", "commit_lsn")
BY_EACH = ("vote", "flush_lsn")
"""A quorum is counted from these, so one report would not do."""


@dataclass(frozen=True)
class Expected:
    """Who must have been heard of: ``nodes`` became ready, ``timelines`` committed something.

    ``reporters``: how many safekeepers must have told of a timeline's votes and flushes.
    """

    nodes: Sequence[str]
    timelines: Sequence[TenantTimelineId]
    reporters: int


def check_evidence(events: Iterable[Event], logs: Iterable[LogLine], expected: Expected) -> None:
    """Raise ``HarnessError`` naming what nobody reported."""
    ready: set[str] = set()
    reporters: dict[tuple[str, str, str], set[str]] = {}
    for event in events:
        if event.kind == "process" and event.fields["state"] == "ready":
            ready.add(event.node)
        elif event.kind in ("elected", "vote", "lsn"):
            what = str(event.fields.get("name", event.kind))
            key = (str(event.fields["tenant"]), str(event.fields["timeline"]), what)
            reporters.setdefault(key, set()).add(event.node)
    logged = {line.node for line in logs}
    for node in expected.nodes:
        if node not in ready:
            raise HarnessError(f"no event says that {node} became ready, but it did")
        if node not in logged:
            raise HarnessError(f"the log of {node} is empty; it logs that it is ready")
    for timeline in expected.timelines:
        for what in (*BY_ANYBODY, *BY_EACH):
            found = reporters.get((timeline.tenant_id, timeline.timeline_id, what), set())
            needed = expected.reporters if what in BY_EACH else 1
            if len(found) < needed:
                raise HarnessError(
                    f"timeline {timeline} committed, but only {len(found)} nodes of at least "
                    f"{needed} reported {what}: {', '.join(sorted(found)) or 'nobody'}"
                )
