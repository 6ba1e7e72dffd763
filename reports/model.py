"""What the page shows, read back from records and artifacts; knows nothing of HTML."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from harness.verdict import RunRecord, Verdict

LOG_LINES_MAX = 2000


@dataclass(frozen=True)
class TraceEvent:
    """One typed event of a run; times in seconds from the run's start."""

    at_s: float
    node: str
    kind: str
    fields: dict[str, Any]


@dataclass(frozen=True)
class Run:
    """One run with its evidence; ``log`` holds (level, text) rows."""

    record: RunRecord
    log: list[tuple[str, str]]
    log_left_out: int
    events: list[TraceEvent]
    effects: dict[str, int]

    @property
    def anchor(self) -> str:
        """An HTML id, unique among runs."""
        return re.sub(r"[^A-Za-z0-9]+", "-", f"{self.record.nodeid}-{self.column}-{self.seed}")

    @property
    def column(self) -> str:
        """World and compute: a column of the matrix."""
        return f"{self.record.settings.world} · {self.record.settings.compute}"

    @property
    def seed(self) -> int:
        """The run's seed."""
        return self.record.settings.seed


@dataclass(frozen=True)
class Cell:
    """A scenario in one world on one compute: all its seeds."""

    records: list[RunRecord]

    @property
    def verdict(self) -> Verdict:
        """The worst verdict of all seeds."""
        order = (Verdict.FAILED, Verdict.ERROR, Verdict.INCONCLUSIVE)
        found = {record.verdict for record in self.records}
        return next((verdict for verdict in order if verdict in found), Verdict.PASSED)

    @property
    def shown(self) -> RunRecord:
        """The record to link: the first that is not green, else the first."""
        return next((r for r in self.records if r.verdict is not Verdict.PASSED), self.records[0])

    @property
    def seeds(self) -> str:
        """How many seeds were run and which."""
        seeds = sorted(record.settings.seed for record in self.records)
        return f"seed {seeds[0]}" if len(seeds) == 1 else f"{len(seeds)} seeds"

    @property
    def virtual_s(self) -> float:
        """Sum of virtual time over all seeds."""
        return sum(record.virtual_s for record in self.records)

    @property
    def wall_s(self) -> float:
        """Sum of wall time over all seeds."""
        return sum(record.wall_s for record in self.records)


@dataclass(frozen=True)
class Matrix:
    """Scenarios (rows) × worlds and computes (columns)."""

    columns: list[str]
    rows: list[tuple[str, dict[str, Cell]]]


def matrix(records: Iterable[RunRecord]) -> Matrix:
    """Arrange records; rows and columns in order of name, sim first."""
    cells: dict[str, dict[str, list[RunRecord]]] = {}
    columns: set[str] = set()
    for record in records:
        column = f"{record.settings.world} · {record.settings.compute}"
        columns.add(column)
        cells.setdefault(record.nodeid, {}).setdefault(column, []).append(record)
    ordered = sorted(columns, key=lambda name: (not name.startswith("sim"), name != "", name[::-1]))
    rows = [
        (nodeid, {column: Cell(found) for column, found in sorted(row.items())})
        for nodeid, row in sorted(cells.items())
    ]
    return Matrix(ordered, rows)


def load_run(record: RunRecord, artifacts: Path) -> Run:
    """A run with what its directory holds; missing files mean empty evidence."""
    directory = artifacts / record.artifacts
    log = _log(directory / "log.txt") if record.artifacts else []
    left_out = max(0, len(log) - LOG_LINES_MAX)
    events = _events(directory / "events.jsonl") if record.artifacts else []
    effects_path = directory / "effects.json"
    effects = json.loads(effects_path.read_text()) if effects_path.is_file() else {}
    return Run(record, log[left_out:], left_out, events, effects)


def _log(path: Path) -> list[tuple[str, str]]:
    if not path.is_file():
        return []
    lines = path.read_text(encoding="utf-8").splitlines()
    return [(_level(line), line) for line in lines]


def _level(line: str) -> str:
    match = re.match(r"\s*[\d.]+\s+\S+\s+(DEBUG|INFO|WARNING|ERROR|CRITICAL)", line)
    return match[1].lower() if match else "more"


def _events(path: Path) -> list[TraceEvent]:
    if not path.is_file():
        return []
    with path.open(encoding="utf-8") as file:
        rows = (json.loads(line) for line in file)
        return [TraceEvent(r["at_s"], r["node"], r["kind"], r["fields"]) for r in rows]
