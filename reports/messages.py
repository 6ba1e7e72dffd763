"""Messages between nodes, and which stretches of a run are worth drawing message by message.

A run has far more messages than a picture can hold. The scale makes the median latency (where send
times are known) ``LATENCY_PX`` wide; windows of at most ``WINDOW_PX_MAX`` are laid around what
happened: the moment a verdict names and faults, else restarts, migrations and elections, else the
beginning.
"""

from __future__ import annotations

import re
from bisect import bisect_left
from collections.abc import Iterable
from dataclasses import dataclass
from itertools import pairwise
from statistics import median

from reports.evidence import TraceEvent
from reports.fault_spans import END, HEALING
from reports.lifelines import teardown_s

LATENCY_PX = 18.0
GAP_PX = 4.0
"""Without send times: how far apart neighbours are that are closer than most (one in four)."""
WINDOW_PX_MAX = 8_000
WINDOWS_MAX = 3
MESSAGES_MAX = 900
BEFORE_MOMENT = 0.25
"""Share of a window that precedes the moment it was chosen for."""
ALARMING_STATES = ("killed", "paused", "wiped")


@dataclass(frozen=True, slots=True)
class Message:
    """A message between two nodes; seconds from the run's start; ``lost`` ones never arrived."""

    sent_s: float
    received_s: float
    source: str
    target: str
    size: int
    lost: bool


@dataclass(frozen=True, slots=True)
class Moment:
    """Something that happened, worth a window of its own."""

    at_s: float
    what: str


@dataclass(frozen=True, slots=True)
class Scale:
    """Pixels for a second; ``timed`` tells whether send times are known, so that lines slant."""

    px_per_s: float
    timed: bool


@dataclass(frozen=True, slots=True)
class Window:
    """A stretch of the run to draw, and the messages under way in it."""

    start_s: float
    end_s: float
    moment: Moment
    messages: list[Message]


def messages_of(events: Iterable[TraceEvent]) -> list[Message]:
    """Every message, in order of arrival."""
    found = []
    for event in events:
        if event.kind == "message":
            fields = event.fields
            sent_s = min(fields["sent_us"] / 1e6, event.at_s) if "sent_us" in fields else event.at_s
            ends = (fields["src"], fields["dst"])
            size, lost = fields.get("bytes", 0), bool(fields.get("lost"))
            found.append(Message(sent_s, event.at_s, *ends, size, lost))
    return sorted(found, key=lambda message: message.received_s)


def scale_of(messages: list[Message]) -> Scale:
    """The scale at which single messages can be told apart."""
    latencies = [m.received_s - m.sent_s for m in messages if m.received_s > m.sent_s]
    if latencies:
        return Scale(LATENCY_PX / median(latencies), timed=True)
    gaps = [later.received_s - one.received_s for one, later in pairwise(messages)]
    ordered = sorted(gap for gap in gaps if gap > 0) or [1.0]
    return Scale(GAP_PX / ordered[len(ordered) // 4], timed=False)


def moments(events: list[TraceEvent]) -> list[Moment]:
    """The most telling things that happened, in order: all of the first sort that occurred."""
    over_s = teardown_s(events)
    sorts: tuple[list[Moment], ...] = ([], [], [])
    seen: set[tuple[str, str]] = set()
    for event in events:
        if event.at_s >= over_s or (sort := _sort(event, seen)) is None:
            continue
        sorts[sort].append(Moment(event.at_s, describe(event)))
    return next((found for found in sorts if found), [])


def failure_moment(message: str, events: list[TraceEvent]) -> Moment:
    """The moment that a verdict names (``at 2.658672 s``), else that at which the run gave up."""
    found = re.search(r"\bat (\d+\.\d{3,}) s\b", message)
    if found:
        return Moment(float(found[1]), "what the verdict names")
    return Moment(teardown_s(events), "the run gives up")


def _sort(event: TraceEvent, seen: set[tuple[str, str]]) -> int | None:
    """0 for faults, 1 for planned changes, 2 for beginnings, ``None`` for what is no moment."""
    state = str(event.fields.get("state"))
    if event.kind == "fault":
        return None if event.fields.get("verb") in (*HEALING, END) else 0
    if event.kind == "process" and state in ALARMING_STATES:
        return 0
    if event.kind == "elected":
        return 1 if event.fields.get("term", 1) > 1 else 2
    if event.kind == "process" and state == "started":
        again = ("process", event.node) in seen
        seen.add(("process", event.node))
        return 1 if again else None
    if event.kind == "tenant_state" and state == "Active":
        tenant = ("tenant", str(event.fields.get("tenant")))
        again = tenant in seen
        seen.add(tenant)
        return 1 if again else None
    return 1 if event.kind == "tenant_state" else None


def describe(event: TraceEvent) -> str:
    """An event in a few words: ``sk0 killed``, ``cut sk0 ⇄ main``, ``main elected in term 2``."""
    fields = event.fields
    state = fields.get("state")
    match event.kind:
        case "fault":
            both = "⇄" if fields.get("both", True) else "→"
            ends = f" {both} ".join(str(fields[n]) for n in ("source", "target") if n in fields)
            return f"{fields.get('verb', 'fault')} {ends}".rstrip()
        case "process":
            return f"{event.node} {state}"
        case "elected":
            return f"{event.node} elected in term {fields.get('term')}"
        case "tenant_state":
            return f"{event.node} tenant {state}"
        case "walreceiver":
            return f"{event.node} {state} WAL of {fields.get('safekeeper')}"
    return f"{event.node} {event.kind}"


def windows(
    messages: list[Message], found: list[Moment], scale: Scale, end_s: float
) -> list[Window]:
    """At most ``WINDOWS_MAX`` stretches, in order, that do not overlap."""
    span_s = min(end_s, WINDOW_PX_MAX / scale.px_per_s)
    if not found:
        first_s = messages[0].sent_s if messages else 0.0
        found = [Moment(first_s, "the beginning")]
    chosen = _spread(found, span_s)
    drawn_max = MESSAGES_MAX // len(chosen)
    result: list[Window] = []
    for moment in chosen:
        earliest_s = result[-1].end_s if result else 0.0
        result.append(_window(messages, moment, (earliest_s, end_s, span_s), drawn_max))
    return result


def _spread(found: list[Moment], span_s: float) -> list[Moment]:
    """Moments that windows of their own can hold; of too many the first, the last and between."""
    apart: list[Moment] = []
    for moment in found:
        if not apart or moment.at_s > apart[-1].at_s + span_s * (1 - BEFORE_MOMENT):
            apart.append(moment)
    if len(apart) <= WINDOWS_MAX:
        return apart
    last = len(apart) - 1
    return [apart[round(index * last / (WINDOWS_MAX - 1))] for index in range(WINDOWS_MAX)]


def _window(
    messages: list[Message],
    moment: Moment,
    bounds: tuple[float, float, float],
    drawn_max: int,
) -> Window:
    """The stretch around a moment, made shorter where messages are too many to draw."""
    earliest_s, latest_s, span_s = bounds
    start_s = max(earliest_s, min(moment.at_s - span_s * BEFORE_MOMENT, latest_s - span_s))
    end_s = min(latest_s, start_s + span_s)
    arrivals = [message.received_s for message in messages]
    at = bisect_left(arrivals, moment.at_s)
    before = max(0, at - int(drawn_max * BEFORE_MOMENT))
    if before < at:
        start_s = max(start_s, arrivals[before])
    under_way = [m for m in messages if m.received_s >= start_s and m.sent_s <= end_s]
    if len(under_way) > drawn_max:
        under_way = under_way[:drawn_max]
        end_s = min(end_s, max(moment.at_s, under_way[-1].received_s))
    return Window(start_s, end_s, moment, under_way)
