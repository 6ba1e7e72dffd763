"""What the page shows of records: the matrix, what is not green, which runs get a section.

Knows nothing of HTML, and reads no evidence.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from harness.verdict import RunRecord, Verdict
from reports.scenario_ids import scenario_id
from reports.session import Outcome, Session

COLUMNS = ("sim · walgen", "real · walgen", "real · postgres")
RED_SECTIONS_PER_CELL, GREEN_SECTIONS_PER_CELL = 3, 1
SECTIONS_MAX = 120


@dataclass(frozen=True, slots=True)
class Records:
    """The records of a file in the order the runs ended; ``unreadable`` counts broken lines."""

    runs: list[RunRecord]
    unreadable: int = 0


def read_runs(path: Path) -> Records:
    """Every record that can be read, so that one broken line does not cost the report."""
    runs: list[RunRecord] = []
    unreadable = 0
    lines = path.read_text(encoding="utf-8", errors="replace").splitlines() if path.exists() else ()
    for line in lines:
        try:
            runs.append(RunRecord.from_json(line))
        except (json.JSONDecodeError, KeyError, TypeError, ValueError):
            unreadable += 1
    return Records(runs, unreadable)


def column_of(record: RunRecord) -> str:
    """World and compute: a column of the matrix."""
    return f"{record.settings.world} · {record.settings.compute}"


@dataclass(frozen=True)
class Cell:
    """A scenario in one world on one compute: all its seeds, in order of seed."""

    records: list[RunRecord]

    @property
    def verdict(self) -> Verdict:
        """The worst verdict of all seeds."""
        order = (Verdict.FAILED, Verdict.ERROR, Verdict.INCONCLUSIVE)
        found = {record.verdict for record in self.records}
        return next((verdict for verdict in order if verdict in found), Verdict.PASSED)

    @property
    def red(self) -> list[RunRecord]:
        """The runs that are not green."""
        return [record for record in self.records if record.verdict is not Verdict.PASSED]

    @property
    def shown(self) -> RunRecord:
        """The run to link and to replay: the first that is not green, else the first."""
        return (self.red or self.records)[0]

    @property
    def seeds(self) -> str:
        """Which seeds were run and how many are green."""
        seeds = ranges(record.settings.seed for record in self.records)
        if len(self.records) == 1:
            return f"seed {seeds}"
        return f"{len(self.records) - len(self.red)} of {len(self.records)} green · seeds {seeds}"

    @property
    def times(self) -> str:
        """Time in the system and on the wall, over all seeds."""
        inside = "virtual" if self.shown.settings.world == "sim" else "active"
        inside_s = sum(record.virtual_s for record in self.records)
        wall_s = sum(record.wall_s for record in self.records)
        return f"{inside_s:.2f} s {inside} · {wall_s:.2f} s wall"

    @property
    def figures(self) -> dict[str, float]:
        """What the runs measured: the largest of all seeds."""
        largest: dict[str, float] = {}
        for record in self.records:
            for name, value in record.figures.items():
                largest[name] = max(value, largest.get(name, value))
        return largest

    @property
    def chosen(self) -> list[RunRecord]:
        """The runs worth a section of their own."""
        green = [record for record in self.records if record.verdict is Verdict.PASSED]
        return self.red[:RED_SECTIONS_PER_CELL] + green[:GREEN_SECTIONS_PER_CELL]


@dataclass(frozen=True)
class Row:
    """A scenario: its cells by column."""

    nodeid: str
    cells: dict[str, Cell]

    @property
    def name(self) -> str:
        """The test's name with its parameters."""
        return self.nodeid.split("::")[-1]

    @property
    def file(self) -> str:
        """The file it is in."""
        return self.nodeid.split("::")[0]

    @property
    def green(self) -> bool:
        """Whether every run passed."""
        return all(cell.verdict is Verdict.PASSED for cell in self.cells.values())


@dataclass(frozen=True)
class Matrix:
    """Scenarios × worlds and computes."""

    columns: list[str]
    rows: list[Row]

    def sections(self) -> list[RunRecord]:
        """The runs that get a section, most telling first: bounded however many runs there are."""
        cells = [cell for row in self.rows for cell in row.cells.values()]
        chosen = [record for cell in cells for record in cell.chosen]
        chosen.sort(key=lambda record: record.verdict is Verdict.PASSED)
        return chosen[:SECTIONS_MAX]


def matrix(records: Iterable[RunRecord]) -> Matrix:
    """Arrange records; rows in order of name, the usual columns first."""
    cells: dict[str, dict[str, list[RunRecord]]] = {}
    for record in records:
        row = cells.setdefault(record.nodeid, {})
        row.setdefault(column_of(record), []).append(record)
    found = {column for row in cells.values() for column in row}
    columns = [column for column in COLUMNS if column in found] + sorted(found - set(COLUMNS))
    rows = [
        Row(nodeid, {name: _cell(row[name]) for name in columns if name in row})
        for nodeid, row in sorted(cells.items())
    ]
    return Matrix(columns, rows)


def _cell(records: list[RunRecord]) -> Cell:
    return Cell(sorted(records, key=lambda record: record.settings.seed))


def ranges(numbers: Iterable[int]) -> str:
    """Numbers as ``0–4, 7``."""
    runs: list[list[int]] = []
    for number in sorted(set(numbers)):
        if runs and number == runs[-1][1] + 1:
            runs[-1][1] = number
        else:
            runs.append([number, number])
    texts = [str(first) if first == last else f"{first}–{last}" for first, last in runs]
    return ", ".join(texts[:6]) + (" …" if len(texts) > 6 else "")


def anchors(records: Iterable[RunRecord]) -> dict[int, str]:
    """An HTML id for each record, by ``id()``: readable, unique, the same every time."""
    taken: set[str] = set()
    found: dict[int, str] = {}
    for record in records:
        settings = record.settings
        text = f"{record.nodeid}-{settings.world}-{settings.compute}-{settings.seed}"
        wanted = re.sub(r"[^A-Za-z0-9]+", "-", text.removeprefix("scenarios/")).strip("-")
        name, number = wanted, 1
        while name in taken:
            number += 1
            name = f"{wanted}-{number}"
        taken.add(name)
        found[id(record)] = name
    return found


def failures_without_record(session: Session, records: Iterable[RunRecord]) -> list[Outcome]:
    """Failed tests that are no scenario, or whose scenario left no record: a worker died."""
    recorded = {
        (r.nodeid, r.settings.world, r.settings.compute, r.settings.seed)
        for r in records
        if r.verdict is not Verdict.PASSED
    }
    found = []
    for one in session.outcomes:
        if one.outcome != "failed":
            continue
        parts = scenario_id(one.test_id)
        if parts and (parts.nodeid, parts.world, parts.compute, parts.seed) in recorded:
            continue
        found.append(one)
    return found
