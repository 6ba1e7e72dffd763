"""A run as its pictures see it: what is derived once from the events and drawn several times."""

from __future__ import annotations

from dataclasses import dataclass

from reports import svg
from reports.evidence import TraceEvent
from reports.fault_spans import FaultSpan, fault_spans
from reports.lifelines import Segment, segments
from reports.messages import (
    Message,
    Moment,
    Scale,
    Window,
    failure_moment,
    messages_of,
    moments,
    scale_of,
    windows,
)


@dataclass(frozen=True, slots=True)
class Story:
    """Everything the pictures of one run share; ``end_s`` is its last event's time."""

    events: list[TraceEvent]
    end_s: float
    messages: list[Message]
    scale: Scale
    moments: list[Moment]
    windows: list[Window]
    segments: list[Segment]
    faults: list[FaultSpan]
    cast: svg.Cast


def tell(events: list[TraceEvent], failure: str = "") -> Story:
    """Derive the story; ``failure`` is what the run's record says. No messages, no windows."""
    end_s = max((event.at_s for event in events), default=0.0)
    messages = messages_of(events)
    found = moments(events)
    if failure:
        found = sorted([*found, failure_moment(failure, events)], key=lambda one: one.at_s)
    scale = scale_of(messages)
    names = {message.source for message in messages} | {message.target for message in messages}
    names |= {event.node for event in events if event.kind in ("process", "lsn")}
    return Story(
        events=events,
        end_s=end_s,
        messages=messages,
        scale=scale,
        moments=found,
        windows=windows(messages, found, scale, end_s) if messages else [],
        segments=segments(events, end_s),
        faults=fault_spans(events, end_s),
        cast=svg.Cast(names),
    )
