"""Space-time diagram: a lane for each node, a dart for each message, shaded spans for faults.

Time runs to the right at a scale that makes latencies visible, so a picture is wider than a page:
the names of the lanes are a picture of their own, and stay while the other one is scrolled.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from html import escape

from reports import svg
from reports.lanes import Lanes, fault_band
from reports.messages import WINDOW_PX_MAX, Message, Window
from reports.story import Story

WIDTH_MIN = 700
MARGIN, TOP, LANE, BOTTOM = 16, 8, 38, 30
NAMES_WIDTH = 84
HEAD_LENGTH, HEAD_HALF = 7.0, 3.2
LOST_SHARE = 0.6
"""How much of the way a lost message is drawn."""


@dataclass(frozen=True)
class Diagram:
    """A window's pictures; ``focus_px`` is where that is which it was chosen for."""

    names: str
    picture: str
    caption: str
    focus_px: int


def diagrams(story: Story) -> list[Diagram]:
    """A diagram for each window of the run; none when no message was recorded."""
    return [_diagram(story, window) for window in story.windows]


def left_out(story: Story) -> str:
    """A sentence about what no diagram shows."""
    shown = {id(message) for window in story.windows for message in window.messages}
    text = f"{len(shown)} of {len(story.messages)} messages are drawn."
    last_s = story.windows[-1].end_s if story.windows else 0.0
    later = [moment.what for moment in story.moments if moment.at_s > last_s]
    if later:
        text += f" Not drawn: {', '.join(later[:4])}{' …' if len(later) > 4 else ''}."
    if not story.scale.timed:
        text += " Only one time of each message was recorded, so its line does not slant."
    return text


def _diagram(story: Story, window: Window) -> Diagram:
    wanted = (window.end_s - window.start_s) * story.scale.px_per_s
    width = min(max(wanted, WIDTH_MIN), WINDOW_PX_MAX)
    axis = svg.TimeAxis(window.start_s, window.end_s, left=MARGIN, width=width - 2 * MARGIN)
    band = fault_band(story.faults, axis)
    lanes = Lanes(story.cast, TOP + band.height, LANE)
    height = lanes.bottom + BOTTOM
    parts = axis.ticks(TOP, lanes.bottom)
    parts += band.parts(axis, TOP, lanes.bottom)
    parts += lanes.lifelines(story.segments, axis)
    parts += [part for message in window.messages for part in _dart(message, axis, lanes)]
    parts += lanes.marks(story.events, axis)
    names = [
        svg.text(NAMES_WIDTH - 8, lanes.y(name) + 4, name, class_="node", text_anchor="end")
        for name in story.cast.names
    ]
    return Diagram(
        names=_fixed(NAMES_WIDTH, height, names, "Nodes"),
        picture=_fixed(width, height, parts, "Messages between nodes over time"),
        caption=_caption(window),
        focus_px=round(axis.x(window.moment.at_s)),
    )


def _caption(window: Window) -> str:
    span_ms = (window.end_s - window.start_s) * 1000
    return (
        f"{window.moment.what} at {window.moment.at_s:.4f} s: {len(window.messages)} messages in "
        f"the {span_ms:.1f} ms from {window.start_s:.4f} s"
    )


def _fixed(width: float, height: float, parts: Iterable[str], label: str) -> str:
    """A picture in its natural size."""
    body = "".join(parts)
    size = {"width": width, "height": height, "viewBox": f"0 0 {width:.0f} {height:.0f}"}
    return svg.element("svg", body, **size, role="img", aria_label=label)


def _dart(message: Message, axis: svg.TimeAxis, lanes: Lanes) -> list[str]:
    """A thin arrow as one filled outline, whose invisible edge makes it easy to point at."""
    x1, y1 = axis.at(message.sent_s), lanes.y(message.source)
    x2, y2 = axis.at(message.received_s), lanes.y(message.target)
    if message.lost:
        x2, y2 = x1 + (x2 - x1) * LOST_SHARE, y1 + (y2 - y1) * LOST_SHARE
    half = min(1.4, 0.35 + 0.25 * math.log10(max(1.0, message.size / 50)))
    look = f"dart {lanes.cast.color(message.source)}" + (" lost" if message.lost else "")
    ended = ("lost" if message.lost else "arrived") + f" {message.received_s:.6f} s"
    took = ""
    if message.received_s > message.sent_s:
        took = f"sent {message.sent_s:.6f} s, "
        ended += f" ({(message.received_s - message.sent_s) * 1000:.3f} ms)"
    told = f"{message.source} → {message.target}, {message.size} bytes, {took}{ended}"
    parts = [
        f'<path class="{look}" d="{_outline(x1, y1, x2, y2, half)}">'
        f"<title>{escape(told)}</title></path>"
    ]
    if message.lost:
        parts.append(svg.text(x2, y2 + 4, "✕", class_="loss", text_anchor="middle"))
    return parts


def _outline(x1: float, y1: float, x2: float, y2: float, half: float) -> str:
    """An arrow from (x1, y1) to (x2, y2) whose shaft is ``2 × half`` thick."""
    length = math.hypot(x2 - x1, y2 - y1) or 1.0
    along_x, along_y = (x2 - x1) / length, (y2 - y1) / length
    base = max(0.0, length - HEAD_LENGTH)
    outline = [
        (0.0, half),
        (base, half),
        (base, HEAD_HALF),
        (length, 0.0),
        (base, -HEAD_HALF),
        (base, -half),
        (0.0, -half),
    ]
    points = [
        f"{x1 + far * along_x - side * along_y:.1f} {y1 + far * along_y + side * along_x:.1f}"
        for far, side in outline
    ]
    return "M" + "L".join(points) + "Z"
