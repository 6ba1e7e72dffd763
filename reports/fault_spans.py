"""Faults from cause to heal, from ``fault`` events (``sim/network.py``, ``real/network.py``).

``cut``, ``hold`` and ``delay`` last until ``heal`` has named each of their directions; an
``outage`` of a service lasts until ``restore``, ``disturb`` until ``calm``, and whatever an event
``end`` names until then. Any other verb is a moment. Of a run with a plan, its steps are shown, not
the verbs by which they were carried out.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from reports.evidence import TraceEvent
from reports.lifelines import SAME_MOMENT_S

LASTING = ("cut", "hold", "delay", "outage", "disturb")
HEALING = ("heal", "restore", "calm")
END = "end"
_NAMED = ("verb", "source", "target", "both", "node", "step", "damage")


@dataclass(frozen=True, slots=True)
class FaultSpan:
    """One fault; ``healed`` is false for one that lasted to the end, ``nodes`` are its ends."""

    label: str
    start_s: float
    end_s: float
    healed: bool
    nodes: tuple[str, ...]

    @property
    def lasting(self) -> bool:
        """Whether the fault took time; others are moments."""
        return self.end_s > self.start_s


@dataclass
class _Fault:
    fields: dict[str, Any]
    start_s: float
    directions: set[tuple[str, str]] = field(default_factory=set)
    end_s: float | None = None
    effect: int | None = None

    def is_ended_by(self, end: dict[str, Any]) -> bool:
        """Whether an ``end`` event names this fault."""
        if "step" in end or "step" in self.fields:
            return self.fields.get("step") == end.get("step")
        names = ("source", "target")
        same = all(self.fields.get(name) == end.get(name) for name in names)
        return same and self.fields.get("verb") == end.get("fault")


def fault_spans(events: Iterable[TraceEvent], end_s: float) -> list[FaultSpan]:
    """Every fault in order of its cause; like ones of one node at one moment are one span."""
    faults: list[_Fault] = []
    told = [event for event in events if event.kind == "fault"]
    steps = [event for event in told if "step" in event.fields]
    for event in steps or told:
        verb = str(event.fields.get("verb", ""))
        if verb in HEALING:
            _heal(faults, event)
        elif verb == END:
            _end(faults, event)
        else:
            lasting = verb in LASTING and not steps
            directions = _directions(event.fields) if lasting else set()
            end = None if lasting else event.at_s
            faults.append(_Fault(event.fields, event.at_s, directions, end))
    return [_span(group, end_s) for group in _groups(faults)]


def _directions(fields: dict[str, Any]) -> set[tuple[str, str]]:
    source, target = str(fields.get("source", "")), str(fields.get("target", ""))
    return {(source, target), (target, source)} if fields.get("both") else {(source, target)}


def _heal(faults: list[_Fault], event: TraceEvent) -> None:
    mended = _directions(event.fields)
    for fault in faults:
        if fault.end_s is None:
            fault.directions -= mended
            if not fault.directions:
                fault.end_s = event.at_s


def _end(faults: list[_Fault], event: TraceEvent) -> None:
    for fault in reversed(faults):
        if fault.is_ended_by(event.fields):
            fault.end_s = event.at_s
            fault.effect = event.fields.get("effect")
            return


def _groups(faults: list[_Fault]) -> list[list[_Fault]]:
    """Faults that a scenario made as one, e.g. the cuts which isolate a node."""
    groups: list[list[_Fault]] = []
    for fault in faults:
        if groups and _alike(groups[-1][-1], fault):
            groups[-1].append(fault)
        else:
            groups.append([fault])
    return groups


def _alike(one: _Fault, other: _Fault) -> bool:
    if one.fields | {"target": ""} != other.fields | {"target": ""} or "source" not in one.fields:
        return False
    ends = (one.end_s, other.end_s)
    if None in ends and ends != (None, None):
        return False
    apart_s = max(abs((a or 0) - (b or 0)) for a, b in ((one.start_s, other.start_s), ends))
    return apart_s <= SAME_MOMENT_S


def _span(group: list[_Fault], run_end_s: float) -> FaultSpan:
    first = group[0]
    fields = first.fields
    source, targets = str(fields.get("source", "")), [str(f.fields.get("target")) for f in group]
    label = str(fields.get("verb", "fault"))
    if "source" in fields:
        label += f" {source} {'⇄' if fields.get('both', True) else '→'} {', '.join(targets)}"
    elif "target" in fields:
        label += f" {targets[0]}"
    label += "".join(f" {name}={fields[name]}" for name in fields if name not in _NAMED)
    if first.effect is not None:
        label += f", effect {first.effect}"
    ends = [fault.end_s for fault in group]
    healed = [end for end in ends if end is not None]
    end_s = max(healed) if len(healed) == len(ends) else run_end_s
    nodes = [source, *targets] if source else [one for each in targets for one in each.split()]
    return FaultSpan(label, first.start_s, end_s, len(healed) == len(ends), tuple(nodes))
