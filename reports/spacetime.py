"""Space-time diagram: a lane for each node, slanted lines for messages, marks for faults.

A run has far more messages than a picture can hold: the window around the first fault (or the
start of the run) is drawn, and the caption says what was left out.
"""

from __future__ import annotations

from dataclasses import dataclass

from reports import svg
from reports.model import TraceEvent

WIDTH = 1080
LEFT, RIGHT, TOP, LANE, BOTTOM = 110, 20, 26, 44, 34
MESSAGES_MAX = 350
MARKS = {
    "started": ("#2b8a3e", "▲"),
    "ready": ("#2b8a3e", "●"),
    "stopping": ("#8d6b00", "▽"),
    "stopped": ("#8d6b00", "■"),
    "killed": ("#c92a2a", "✖"),
    "paused": ("#5f3dc4", "‖"),
    "resumed": ("#5f3dc4", "▶"),
}


@dataclass(frozen=True)
class Diagram:
    """The picture and the sentence below it."""

    svg: str
    caption: str


@dataclass(frozen=True)
class Message:
    """A message between two nodes; seconds from the run's start."""

    sent_s: float
    received_s: float
    source: str
    target: str
    size: int


def messages_of(events: list[TraceEvent]) -> list[Message]:
    """Every message, in order of arrival."""
    found = []
    for event in events:
        if event.kind == "message":
            fields = event.fields
            sent_s = fields["sent_us"] / 1e6 if "sent_us" in fields else event.at_s
            size = fields.get("bytes", 0)
            found.append(Message(sent_s, event.at_s, fields["src"], fields["dst"], size))
    return found


def window(messages: list[Message], faults: list[TraceEvent]) -> list[Message]:
    """The messages to draw: a run of them that begins shortly before the first fault."""
    if len(messages) <= MESSAGES_MAX:
        return messages
    first = 0
    if faults:
        before = sum(message.received_s < faults[0].at_s for message in messages)
        first = min(max(0, before - MESSAGES_MAX // 3), len(messages) - MESSAGES_MAX)
    return messages[first : first + MESSAGES_MAX]


def spacetime(events: list[TraceEvent]) -> Diagram | None:
    """The diagram, or ``None`` when no message was recorded."""
    messages = messages_of(events)
    if not messages:
        return None
    marks = [event for event in events if event.kind in ("process", "fault")]
    faults = [event for event in marks if _is_fault(event)]
    shown = window(messages, faults)
    start_s = min(message.sent_s for message in shown)
    end_s = max(message.received_s for message in shown)
    if shown[-1] is messages[-1]:
        end_s = max([end_s, *(event.at_s for event in marks)])
    lanes = _lanes(messages, marks)
    height = TOP + LANE * len(lanes) + BOTTOM
    axis = svg.TimeAxis(start_s, end_s, left=LEFT, width=WIDTH - LEFT - RIGHT)
    parts = axis.ticks(TOP - 8, height - BOTTOM)
    for name, y in lanes.items():
        parts.append(
            svg.element("line", x1=LEFT, y1=y, x2=WIDTH - RIGHT, y2=y, class_="lane"),
        )
        parts.append(svg.text(LEFT - 8, y + 4, name, class_="node", text_anchor="end"))
    parts += [_arrow(message, axis, lanes) for message in shown]
    parts += [
        part
        for event in marks
        if start_s <= event.at_s <= end_s
        for part in _mark(event, axis, lanes)
    ]
    caption = f"{len(shown)} of {len(messages)} messages, {start_s:.3f} s to {end_s:.3f} s"
    return Diagram(svg.document(WIDTH, height, parts, "Messages between nodes over time"), caption)


def _is_fault(event: TraceEvent) -> bool:
    return event.kind == "fault" or event.fields.get("state") in ("killed", "paused")


def _lanes(messages: list[Message], marks: list[TraceEvent]) -> dict[str, float]:
    names = {message.source for message in messages} | {message.target for message in messages}
    names |= {event.node for event in marks if event.kind == "process"}
    ordered = sorted(names, key=lambda name: (_rank(name), name))
    return {name: TOP + LANE * (index + 0.5) for index, name in enumerate(ordered)}


def _rank(name: str) -> int:
    if name == "harness":
        return 0
    if name[:2] == "sk" and name[2:].isdigit():
        return 2
    if name[:2] == "ps" and name[2:].isdigit():
        return 3
    return 4 if name in ("s3", "broker", "etcd") else 1


def _arrow(message: Message, axis: svg.TimeAxis, lanes: dict[str, float]) -> str:
    names = list(lanes)
    color = svg.PALETTE[names.index(message.source) % len(svg.PALETTE)]
    title = (
        f"<title>{message.source} → {message.target}, {message.size} bytes, "
        f"{message.sent_s:.6f} → {message.received_s:.6f} s</title>"
    )
    return svg.element(
        "line",
        title,
        x1=axis.x(message.sent_s),
        y1=lanes[message.source],
        x2=axis.x(message.received_s),
        y2=lanes[message.target],
        stroke=color,
        stroke_width=min(3.0, 0.7 + message.size / 20000),
        stroke_opacity=0.7,
    )


def _mark(event: TraceEvent, axis: svg.TimeAxis, lanes: dict[str, float]) -> list[str]:
    x = axis.x(event.at_s)
    if event.kind == "process":
        color, sign = MARKS.get(str(event.fields.get("state")), ("#495057", "•"))
        y = lanes[event.node] + 5
        return [svg.text(x, y, sign, class_="mark", fill=color, text_anchor="middle")]
    label = " ".join(str(value) for value in event.fields.values())
    bottom = max(lanes.values()) + LANE / 2
    line = svg.element("line", x1=x, y1=TOP - 10, x2=x, y2=bottom, class_="fault")
    return [line, svg.text(x + 3, TOP - 12, label, class_="fault-label")]
