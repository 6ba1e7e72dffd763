"""LSN over time: one step line for each node and LSN name (flush, commit, last record …)."""

from __future__ import annotations

from dataclasses import dataclass

from reports import svg
from reports.model import TraceEvent

WIDTH, HEIGHT = 1080, 380
LEFT, RIGHT, TOP, BOTTOM = 96, 230, 14, 34
POINTS_MAX = 400
DASHES = {
    "flush_lsn": "none",
    "last_record_lsn": "none",
    "commit_lsn": "6 3",
    "disk_consistent_lsn": "2 3",
    "remote_consistent_lsn": "1 5",
    "backup_lsn": "8 3 2 3",
    "truncate_lsn": "3 6",
}


@dataclass(frozen=True)
class Series:
    """One LSN of one node: (seconds, position) in order of time."""

    node: str
    name: str
    points: list[tuple[float, int]]


def series_of(events: list[TraceEvent]) -> list[Series]:
    """Every series of the busiest timeline; positions of other timelines would only confuse."""
    found: dict[str, dict[tuple[str, str], list[tuple[float, int]]]] = {}
    for event in events:
        if event.kind != "lsn" or not event.fields.get("value"):
            continue
        timeline = str(event.fields.get("timeline", ""))
        key = (event.node, str(event.fields["name"]))
        points = found.setdefault(timeline, {}).setdefault(key, [])
        points.append((event.at_s, int(event.fields["value"])))
    if not found:
        return []
    busiest = max(found.values(), key=lambda group: sum(map(len, group.values())))
    return [Series(node, name, points) for (node, name), points in sorted(busiest.items())]


def lsn_picture(events: list[TraceEvent]) -> str:
    """The picture as SVG, or an empty string when no node reported an LSN."""
    series = series_of(events)
    if not series:
        return ""
    end_s = max(event.at_s for event in events)
    axis = svg.TimeAxis(0.0, end_s, left=LEFT, width=WIDTH - LEFT - RIGHT)
    low = min(position for line in series for _, position in line.points)
    high = max(position for line in series for _, position in line.points)
    parts = axis.ticks(TOP, HEIGHT - BOTTOM)
    parts += _position_ticks(low, high)
    nodes = sorted({line.node for line in series})
    for index, line in enumerate(series):
        color = svg.PALETTE[nodes.index(line.node) % len(svg.PALETTE)]
        dash = DASHES.get(line.name, "4 4")
        parts.append(_step_line(line, axis, (low, high, end_s), (color, dash)))
        parts += _legend(index, f"{line.node} {line.name}", color, dash)
    height = max(HEIGHT, TOP + 13 * len(series) + 12)
    return svg.document(WIDTH, height, parts, "LSN over time of every node")


def _y(position: int, low: int, high: int) -> float:
    share = (position - low) / max(1, high - low)
    return HEIGHT - BOTTOM - share * (HEIGHT - BOTTOM - TOP - 6)


def _position_ticks(low: int, high: int) -> list[str]:
    step = max(1, int(svg.round_step(high - low, 6)))
    parts = []
    for position in range(low - low % step + step, high + 1, step):
        y = _y(position, low, high)
        parts.append(svg.element("line", x1=LEFT, y1=y, x2=WIDTH - RIGHT, y2=y, class_="grid"))
        label = f"{position >> 32:X}/{position & 0xFFFFFFFF:X}"
        parts.append(svg.text(LEFT - 6, y + 4, label, class_="tick", text_anchor="end"))
    return parts


def _step_line(
    line: Series,
    axis: svg.TimeAxis,
    bounds: tuple[int, int, float],
    look: tuple[str, str],
) -> str:
    low, high, end_s = bounds
    points = _thinned(line.points)
    path = f"M{axis.x(points[0][0]):.1f} {_y(points[0][1], low, high):.1f}"
    for at_s, position in points[1:]:
        path += f"H{axis.x(at_s):.1f}V{_y(position, low, high):.1f}"
    path += f"H{axis.x(end_s):.1f}"
    color, dash = look
    title = f"<title>{line.node} {line.name}</title>"
    return svg.element(
        "path", title, d=path, fill="none", stroke=color, stroke_width=1.6, stroke_dasharray=dash
    )


def _thinned(points: list[tuple[float, int]]) -> list[tuple[float, int]]:
    """At most ``POINTS_MAX`` points; first and last are kept, so are all falls of a line."""
    if len(points) <= POINTS_MAX:
        return points
    stride = len(points) // POINTS_MAX + 1
    kept = [
        point
        for index, point in enumerate(points)
        if index % stride == 0 or (index and point[1] < points[index - 1][1])
    ]
    return [*kept, points[-1]]


def _legend(index: int, label: str, color: str, dash: str) -> list[str]:
    y = TOP + 8 + 13 * index
    x = WIDTH - RIGHT + 12
    swatch = svg.element(
        "line",
        x1=x,
        y1=y,
        x2=x + 26,
        y2=y,
        stroke=color,
        stroke_width=2,
        stroke_dasharray=dash,
    )
    return [swatch, svg.text(x + 32, y + 4, label, class_="legend")]
