"""LSN over time, above the lives of all processes and the faults, on one time axis."""

from __future__ import annotations

from dataclasses import dataclass

from reports import svg
from reports.lanes import Lanes, fault_band
from reports.lifelines import deaths
from reports.lsn_series import Point, Series, lsn_text, round_ticks, timelines_of
from reports.story import Story

WIDTH = 1080
LEFT, RIGHT, TOP, PLOT, BOTTOM = 104, 14, 10, 300, 26
LANE, LANES_GAP = 17, 14
Y_TICKS_MAX = 8
TIMELINES_MAX = 3
FALLS_MAX = 20
NODE_OFFSET_PX = 1.7
"""How far apart the lines of two nodes are drawn when their positions are equal."""
MARKED = ("killed", "paused", "wiped")
NAMES = (
    "flush_lsn",
    "commit_lsn",
    "last_record_lsn",
    "disk_consistent_lsn",
    "remote_consistent_lsn",
    "backup_lsn",
    "truncate_lsn",
)
"""LSN names in the order of the WAL's way; each has a dash pattern ``n0`` … in the style sheet."""


@dataclass(frozen=True)
class LegendCell:
    """A series in the legend: its number in the picture, its looks, its last position."""

    index: int
    look: str
    last: str


@dataclass(frozen=True)
class LsnPicture:
    """A timeline's picture; ``legend`` has a row of cells for each node, ``None`` for no LSN."""

    timeline: str
    picture: str
    names: list[str]
    legend: list[tuple[str, list[LegendCell | None]]]
    caption: str


def lsn_pictures(story: Story) -> list[LsnPicture]:
    """A picture for each of the busiest timelines; none when no node reported an LSN."""
    timelines = timelines_of(story.events, story.end_s)
    busiest = list(timelines.items())[:TIMELINES_MAX]
    return [_lsn_picture(story, timeline, series) for timeline, series in busiest]


def _lsn_picture(story: Story, timeline: str, series: list[Series]) -> LsnPicture:
    axis = svg.TimeAxis(0.0, story.end_s, left=LEFT, width=WIDTH - LEFT - RIGHT)
    plot = _Plot.around(series, axis)
    band = fault_band(story.faults, axis)
    lanes = Lanes(story.cast, TOP + PLOT + LANES_GAP + band.height, LANE)
    parts = axis.ticks(TOP, lanes.bottom)
    parts += plot.ticks()
    parts += [
        svg.text(LEFT - 8, lanes.y(name) + 4, name, class_="node small", text_anchor="end")
        for name in story.cast.names
    ]
    parts += _window_frames(story, axis, lanes)
    parts += band.parts(axis, TOP + PLOT + LANES_GAP, lanes.bottom)
    parts += _alarm_lines(story, axis)
    parts += lanes.lifelines(story.segments, axis)
    parts += lanes.marks(story.events, axis)
    ends = deaths(story.events)
    for index, one in enumerate(series):
        parts += plot.lines(index, one, story.cast, ends.get(one.node, []))
    height = lanes.bottom + BOTTOM
    picture = svg.element(
        "svg",
        "".join(parts) + svg.element("line", class_="cursor", y1=TOP, y2=lanes.bottom),
        viewBox=f"0 0 {WIDTH} {height:.0f}",
        role="img",
        aria_label=f"LSN over time of timeline {timeline}",
        class_="picture lsn",
        data_left=LEFT,
        data_width=axis.width,
        data_end=axis.end_s,
    )
    names, legend = _legend(series, story.cast)
    return LsnPicture(timeline, picture, names, legend, _caption(series))


@dataclass(frozen=True)
class _Plot:
    axis: svg.TimeAxis
    low: int
    high: int

    @classmethod
    def around(cls, series: list[Series], axis: svg.TimeAxis) -> _Plot:
        positions = [position for one in series for _, position in one.points]
        return cls(axis, min(positions), max(positions))

    def y(self, position: int) -> float:
        share = (position - self.low) / max(1, self.high - self.low)
        return TOP + PLOT - 8 - share * (PLOT - 18)

    def ticks(self) -> list[str]:
        parts = []
        right = self.axis.left + self.axis.width
        for position in round_ticks(self.low, self.high, Y_TICKS_MAX):
            y = self.y(position)
            parts.append(svg.element("line", x1=LEFT, y1=y, x2=right, y2=y, class_="grid"))
            label = lsn_text(position)
            parts.append(svg.text(LEFT - 8, y + 4, label, class_="tick", text_anchor="end"))
        return parts

    def lines(self, index: int, one: Series, cast: svg.Cast, ends: list[float]) -> list[str]:
        """The series as steps, and a sign at each fall."""
        offset = (cast.names.index(one.node) - len(cast.names) / 2) * NODE_OFFSET_PX
        data_us, data_lsn = _differences(one.points)
        line = svg.element(
            "path",
            svg.title(f"{one.node} {one.name}"),
            d=self._steps(one.points, ends),
            class_=f"series s{index} {cast.color(one.node)} {name_class(one.name)}",
            transform=f"translate({offset:.1f} {-offset:.1f})",
            data_us=data_us,
            data_lsn=data_lsn,
        )
        falls = [
            svg.text(
                self.axis.x(at_s),
                self.y(position) + 4,
                "▼",
                f"{one.node} {one.name} went back to {lsn_text(position)} at {at_s:.6f} s",
                class_=f"fall s{index}",
                text_anchor="middle",
            )
            for at_s, position in one.falls[:FALLS_MAX]
        ]
        return [line, *falls]

    def _steps(self, points: list[Point], ends: list[float]) -> str:
        """Steps from point to point; a line ends where its node dies."""
        path, drawing = "", False
        for index, (at_s, position) in enumerate(points):
            following = points[index + 1][0] if index + 1 < len(points) else self.axis.end_s
            death = next((end for end in ends if at_s <= end < following), None)
            y = f"{self.y(position):.1f}"
            path += f"V{y}" if drawing else f"M{self.axis.x(at_s):.1f} {y}"
            path += f"H{self.axis.x(following if death is None else death):.1f}"
            drawing = death is None
        return path


def name_class(name: str) -> str:
    """The class that gives an LSN its dash pattern."""
    return f"n{NAMES.index(name)}" if name in NAMES else "n-other"


def _differences(points: list[Point]) -> tuple[str, str]:
    """Times in microseconds and positions, each as differences to the one before."""
    times = [round(at_s * 1e6) for at_s, _ in points]
    positions = [position for _, position in points]
    texts = []
    for values in (times, positions):
        pairs = zip([0, *values], values, strict=False)
        texts.append(" ".join(str(later - one) for one, later in pairs))
    return texts[0], texts[1]


def _window_frames(story: Story, axis: svg.TimeAxis, lanes: Lanes) -> list[str]:
    """Where the space-time diagrams below look."""
    parts = []
    for number, window in enumerate(story.windows, 1):
        left, right = axis.x(window.start_s), axis.x(window.end_s)
        hover = svg.title(f"space-time diagram {number}: {window.moment.what}")
        frame = {"x": left, "y": lanes.top, "width": max(1.0, right - left)}
        height = lanes.bottom - lanes.top
        parts.append(svg.element("rect", hover, **frame, height=height, class_="window"))
    return parts


def _alarm_lines(story: Story, axis: svg.TimeAxis) -> list[str]:
    """A line through the plot for each death that was meant, each pause and each fault."""
    moments = [
        (event.at_s, f"{event.node} {event.fields['state']}")
        for event in story.events
        if event.kind == "process" and event.fields.get("state") in MARKED
    ]
    moments += [(span.start_s, span.label) for span in story.faults]
    return [
        svg.element(
            "line",
            svg.title(f"{what} at {at_s:.6f} s"),
            x1=axis.x(at_s),
            y1=TOP,
            x2=axis.x(at_s),
            y2=TOP + PLOT,
            class_="fault",
        )
        for at_s, what in moments
    ]


def _legend(
    series: list[Series], cast: svg.Cast
) -> tuple[list[str], list[tuple[str, list[LegendCell | None]]]]:
    """LSN names and a row of cells for each node."""
    found = {one.name for one in series}
    names = [name for name in NAMES if name in found] + sorted(found - set(NAMES))
    cells = {
        (one.node, one.name): LegendCell(
            index, f"{cast.color(one.node)} {name_class(one.name)}", lsn_text(one.points[-1][1])
        )
        for index, one in enumerate(series)
    }
    nodes = [node for node in cast.names if any(one.node == node for one in series)]
    return names, [(node, [cells.get((node, name)) for name in names]) for node in nodes]


def _caption(series: list[Series]) -> str:
    total = sum(one.points_total for one in series)
    drawn = sum(len(one.points) for one in series)
    text = f"{total} reports of {len(series)} LSNs"
    if drawn < total:
        text += f", {drawn} drawn: first, last, lowest and highest of each 1/150 of the run"
    falls = sum(len(one.falls) for one in series)
    if falls:
        text += f"; {falls} went back (▼)"
    return text
