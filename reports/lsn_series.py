"""LSNs over time: one series for each node and LSN name of a timeline, thinned without lying.

Thinning keeps the first, last, lowest and highest position of each of ``BINS`` equal parts of the
run, so the picture of a thinned series is that of the whole one, falls included (Jugel et al.,
"M4: A Visualization-Oriented Time Series Data Aggregation", VLDB 2014).
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from itertools import pairwise

from reports.evidence import TraceEvent

BINS = 150
Point = tuple[float, int]
"""Seconds from the run's start, and a position in the WAL in bytes."""


@dataclass(frozen=True, slots=True)
class Series:
    """One LSN of one node in order of time; ``falls`` and ``points_total`` are of all points."""

    node: str
    name: str
    points: list[Point]
    points_total: int
    falls: list[Point]


def lsn_text(position: int) -> str:
    """A position as PostgreSQL writes it: ``0/16B3740``."""
    return f"{position >> 32:X}/{position & 0xFFFFFFFF:X}"


def timelines_of(events: Iterable[TraceEvent], end_s: float) -> dict[str, list[Series]]:
    """The series of each timeline, the busiest timeline first."""
    found: dict[str, dict[tuple[str, str], list[Point]]] = {}
    for event in events:
        if event.kind != "lsn" or not event.fields.get("value"):
            continue
        timeline = str(event.fields.get("timeline", ""))
        key = (event.node, str(event.fields["name"]))
        points = found.setdefault(timeline, {}).setdefault(key, [])
        points.append((event.at_s, int(event.fields["value"])))
    busiest = sorted(found.items(), key=lambda item: -sum(map(len, item[1].values())))
    return {
        timeline: [
            Series(node, name, thinned(points, end_s), len(points), falls_of(points))
            for (node, name), points in sorted(series.items())
        ]
        for timeline, series in busiest
    }


def falls_of(points: list[Point]) -> list[Point]:
    """Where the position went back, each with the position after the fall."""
    return [later for one, later in pairwise(points) if later[1] < one[1]]


def thinned(points: list[Point], end_s: float) -> list[Point]:
    """At most four points for each of ``BINS`` parts of the run, in order."""
    if len(points) <= 4 * BINS:
        return points
    bins: dict[int, list[int]] = {}
    for index, (at_s, _) in enumerate(points):
        bins.setdefault(int(at_s / end_s * BINS), []).append(index)
    kept: list[Point] = []
    for members in bins.values():
        lowest = min(members, key=lambda index: points[index][1])
        highest = max(members, key=lambda index: points[index][1])
        chosen = sorted({members[0], lowest, highest, members[-1]})
        kept += [points[index] for index in chosen]
    return kept


def round_ticks(low: int, high: int, most: int) -> list[int]:
    """Positions from ``low`` to ``high`` that are multiples of one power of two."""
    step = 1
    while (high - low) // step >= most:
        step *= 2
    return list(range(-(-low // step) * step, high + 1, step))
