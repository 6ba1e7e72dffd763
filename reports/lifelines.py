"""How each process lived: its states over time, from ``process`` events."""

from __future__ import annotations

import enum
from collections.abc import Iterable
from dataclasses import dataclass

from reports.evidence import TraceEvent


class State(enum.StrEnum):
    """What a process does; a dead one has no state."""

    STARTING = "starting"
    RUNNING = "running"
    PAUSED = "paused"
    STOPPING = "stopping"


_AFTER: dict[str, State | None] = {
    "started": State.STARTING,
    "ready": State.RUNNING,
    "paused": State.PAUSED,
    "resumed": State.RUNNING,
    "stopping": State.STOPPING,
    "stopped": None,
    "killed": None,
}
DEATHS = ("stopped", "killed")
SAME_MOMENT_S = 0.001


@dataclass(frozen=True, slots=True)
class Segment:
    """A node in one state, for a while; seconds from the run's start."""

    node: str
    state: State
    start_s: float
    end_s: float


def segments(events: Iterable[TraceEvent], end_s: float) -> list[Segment]:
    """Every node's states until ``end_s``; what is not covered, the node was dead."""
    found: list[Segment] = []
    now: dict[str, tuple[State, float]] = {}
    for event in events:
        state = event.fields.get("state")
        if event.kind != "process" or state not in _AFTER:
            continue
        if event.node in now:
            before, since_s = now.pop(event.node)
            found.append(Segment(event.node, before, since_s, event.at_s))
        following = _AFTER[state]
        if following is not None:
            now[event.node] = (following, event.at_s)
    found += [Segment(node, state, since_s, end_s) for node, (state, since_s) in now.items()]
    return [one for one in found if one.end_s > one.start_s]


def deaths(events: Iterable[TraceEvent]) -> dict[str, list[float]]:
    """When each node's incarnations ended, in order."""
    found: dict[str, list[float]] = {}
    for event in events:
        if event.kind == "process" and event.fields.get("state") in DEATHS:
            found.setdefault(event.node, []).append(event.at_s)
    return found


def teardown_s(events: list[TraceEvent]) -> float:
    """When the run began to stop everything: the first of the stops that nothing follows.

    The world's own end kills whatever still runs, all at the last moment: no fault either.
    """
    end_s = begun_s = max((event.at_s for event in events), default=0.0)
    for event in reversed(events):
        if event.kind == "fault":
            break
        if event.kind == "process":
            state = event.fields.get("state")
            swept_away = state == "killed" and event.at_s >= end_s - SAME_MOMENT_S
            if state not in ("stopping", "stopped") and not swept_away:
                break
            begun_s = event.at_s
    return begun_s
