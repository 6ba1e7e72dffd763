"""Lanes: one for each node, coloured where its process lived, with marks for what happened."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from reports import svg
from reports.evidence import TraceEvent
from reports.fault_spans import FaultSpan
from reports.lifelines import Segment
from reports.messages import describe

FAULT_ROW = 17
_LABEL_CHARACTER_PX = 6.2
PROCESS_MARKS = {
    "started": "▲",
    "ready": "●",
    "stopping": "▽",
    "stopped": "■",
    "killed": "✖",
    "paused": "‖",
    "resumed": "▶",
    "wiped": "⌫",
}
MARKS = {"elected": "★", "tenant_state": "◆", "walreceiver": "◇"}
LEGEND = (
    "▲ started, ● ready, ▽ stopping, ■ stopped, ✖ killed, ‖ paused (hatched), ▶ resumed, ⌫ wiped, "
    "★ elected, ◆ tenant, ◇ walreceiver; no bar: the process is dead"
)


@dataclass(frozen=True)
class Lanes:
    """Where lanes are: the first one's middle is half a ``pitch`` below ``top``."""

    cast: svg.Cast
    top: float
    pitch: float

    @property
    def bottom(self) -> float:
        """Below the last lane."""
        return self.top + self.pitch * len(self.cast.names)

    def y(self, node: str) -> float:
        """The middle of a node's lane."""
        return self.top + self.pitch * (self.cast.names.index(node) + 0.5)

    def lifelines(self, segments: Iterable[Segment], axis: svg.TimeAxis) -> list[str]:
        """A thin line for each lane, a bar for each state of its process."""
        right = axis.left + axis.width
        parts = []
        for node in self.cast.names:
            y = self.y(node)
            parts.append(svg.element("line", x1=axis.left, y1=y, x2=right, y2=y, class_="lane"))
        for one in segments:
            left, width = axis.x(one.start_s), axis.x(one.end_s) - axis.x(one.start_s)
            if width <= 0 or one.node not in self.cast.names:
                continue
            y = self.y(one.node) - 3
            look = f"life {one.state} {self.cast.color(one.node)}"
            hover = svg.title(f"{one.node} {one.state} {one.start_s:.6f} to {one.end_s:.6f} s")
            parts.append(
                svg.element("rect", hover, x=left, y=y, width=width, height=6, class_=look)
            )
        return parts

    def marks(self, events: Iterable[TraceEvent], axis: svg.TimeAxis) -> list[str]:
        """A sign for each event of a process, an election, a tenant or a WAL source."""
        parts = []
        for event in events:
            if event.node not in self.cast.names or not axis.shows(event.at_s):
                continue
            state = str(event.fields.get("state", ""))
            process = event.kind == "process"
            sign = PROCESS_MARKS.get(state, "•") if process else MARKS.get(event.kind)
            if sign is None:
                continue
            look = f"mark mark-{state}" if process else f"mark mark-{event.kind}"
            hover = f"{describe(event)} at {event.at_s:.6f} s"
            y = self.y(event.node) + 4.5
            parts.append(
                svg.text(axis.at(event.at_s), y, sign, hover, class_=look, text_anchor="middle")
            )
        return parts


@dataclass(frozen=True)
class FaultBand:
    """Fault spans in rows, so that no label covers another; ``height`` in pixels."""

    rows: list[list[FaultSpan]]

    @property
    def height(self) -> float:
        """Height of all rows."""
        return FAULT_ROW * len(self.rows)

    def parts(self, axis: svg.TimeAxis, top: float, bottom: float) -> list[str]:
        """Bars with labels from ``top`` down; shading, or a line for a moment, to ``bottom``."""
        parts = []
        for index, row in enumerate(self.rows):
            y = top + FAULT_ROW * index
            for span in row:
                parts += _fault(span, axis, y, bottom)
        return parts


def fault_band(spans: Iterable[FaultSpan], axis: svg.TimeAxis) -> FaultBand:
    """Packs what the axis shows into as few rows as labels need."""
    rows: list[list[FaultSpan]] = []
    ends: list[float] = []
    for span in spans:
        if span.start_s > axis.end_s or span.end_s < axis.start_s:
            continue
        left = axis.x(span.start_s)
        right = max(axis.x(span.end_s), left + len(span.label) * _LABEL_CHARACTER_PX + 12)
        row = next((index for index, end in enumerate(ends) if end <= left), len(rows))
        if row == len(rows):
            rows.append([])
            ends.append(right)
        rows[row].append(span)
        ends[row] = right
    return FaultBand(rows)


def _fault(span: FaultSpan, axis: svg.TimeAxis, y: float, bottom: float) -> list[str]:
    left = axis.x(span.start_s)
    until = f" to {span.end_s:.6f} s" if span.lasting else ""
    never = "" if span.healed else ", never healed"
    hover = svg.title(f"{span.label}, {span.start_s:.6f} s{until}{never}")
    label = svg.text(left + 4, y + 12, span.label, class_="fault-label")
    if not span.lasting:
        line = svg.element("line", hover, x1=left, y1=y, x2=left, y2=bottom, class_="fault")
        return [line, label]
    width = max(1.0, axis.x(span.end_s) - left)
    bar = svg.element("rect", hover, x=left, y=y, width=width, height=15, class_="fault-bar")
    height = bottom - y - 15
    shade = svg.element("rect", x=left, y=y + 15, width=width, height=height, class_="fault-shade")
    return [shade, bar, label]
