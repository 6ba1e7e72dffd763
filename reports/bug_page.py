"""The page of bugs and oracles: which oracle saw which known bug, and after how many seeds.

Drawn from the data that ``python -m harness bugs`` writes beside it; refers to nothing outside.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jinja2

OTHER = "other"
BAR_PX = 90
SEEDS_MAX = 2000
STATUSES = ("caught", "not caught", "never ran", "waiting", "inexpressible")


@dataclass(frozen=True)
class Cell:
    """One bug under one oracle. ``ended``: hunts whose run this oracle ended; ``saw``: hunts in
    which it saw the bug, these included; ``expected``: whether it is expected to."""

    ended: int
    saw: int
    expected: bool

    @property
    def title(self) -> str:
        """What a reader sees on pointing at it."""
        words = [f"ended {self.ended} runs"] if self.ended else []
        if self.saw > self.ended:
            words.append(f"saw it in {self.saw - self.ended} more, asked afterwards")
        told = ", ".join(words) or "saw nothing"
        return f"{told}; {'expected' if self.expected else 'not expected'}"


@dataclass(frozen=True)
class Line:
    """A bug's row. ``seeds``: runs until the catch of every hunt, in order."""

    bug: Mapping[str, Any]
    cells: Sequence[Cell]
    seeds: Sequence[int]

    @property
    def caught(self) -> int:
        """How many hunts caught it."""
        return sum(hunt["catch"] is not None for hunt in self.bug["hunts"])

    @property
    def bar_px(self) -> float:
        """Length of the bar of the median, on a scale of logarithms."""
        median: float | None = self.bug["seeds"]
        if median is None:
            return 0.0
        return round(BAR_PX * math.log10(10 * median) / math.log10(10 * SEEDS_MAX), 1)


@dataclass(frozen=True)
class Family:
    """Bugs of one family, in the document's order."""

    name: str
    lines: Sequence[Line]


def _lines(found: Mapping[str, Any], columns: Sequence[str]) -> list[Line]:
    lines = []
    for bug in found["bugs"]:
        cells = [
            Cell(
                bug["ended_by"].get(oracle, 0),
                bug["oracles"].get(oracle, 0),
                oracle in bug["expected_oracles"],
            )
            for oracle in columns
        ]
        lines.append(Line(bug, cells, sorted(hunt["runs"] for hunt in bug["hunts"])))
    return lines


def _families(lines: Sequence[Line]) -> list[Family]:
    by_name: dict[str, list[Line]] = {}
    for line in lines:
        by_name.setdefault(line.bug["family"], []).append(line)
    return [Family(name, members) for name, members in by_name.items()]


def render(found: Mapping[str, Any]) -> str:
    """The page for what ``harness.bug_table.to_json`` returned."""
    columns = list(found["oracles"])
    if any(OTHER in bug["oracles"] for bug in found["bugs"]):
        columns.append(OTHER)
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("reports"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    lines = _lines(found, columns)
    statuses = {name: sum(line.bug["status"] == name for line in lines) for name in STATUSES}
    return environment.get_template("bugs.html.j2").render(
        found=found,
        columns=columns,
        oracles={**found["oracles"], OTHER: "an assertion of the scenario"},
        families=_families(lines),
        statuses=statuses,
        totals=[
            sum(bool(line.cells[number].saw) for line in lines) for number in range(len(columns))
        ],
        hunts=max((len(line.seeds) for line in lines), default=0),
    )


def write_bug_page(found: Mapping[str, Any], target: Path) -> None:
    """Draw what hunts found; ``OSError`` when the page cannot be written."""
    target.write_text(render(found), encoding="utf-8")
