"""Renders the report: one HTML file with no reference to anything outside itself."""

from __future__ import annotations

from pathlib import Path

import jinja2

from harness.verdict import RunRecord, Verdict
from reports.lsn_picture import lsn_picture
from reports.model import load_run, matrix
from reports.spacetime import spacetime

RUNS_SHOWN_PER_CELL = 2


def render(records: list[RunRecord], artifacts: Path) -> str:
    """The page for these records; ``artifacts`` is the directory their names are below."""
    templates = jinja2.Environment(
        loader=jinja2.PackageLoader("reports"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    grid = matrix(records)
    shown = [
        record for _, row in grid.rows for cell in row.values() for record in _shown(cell.records)
    ]
    runs = [load_run(record, artifacts) for record in shown]
    pictures = {run.anchor: (lsn_picture(run.events), spacetime(run.events)) for run in runs}
    anchors = {id(run.record): run.anchor for run in runs}
    counts = {verdict: sum(r.verdict is verdict for r in records) for verdict in Verdict}
    return templates.get_template("index.html.j2").render(
        matrix=grid,
        runs=runs,
        pictures=pictures,
        anchor=lambda record: anchors.get(id(record), ""),
        counts=counts,
        total=len(records),
        wall_s=sum(record.wall_s for record in records),
        virtual_s=sum(record.virtual_s for record in records),
    )


def _shown(records: list[RunRecord]) -> list[RunRecord]:
    """The runs of a cell worth a section: those that are not green first."""
    ordered = sorted(records, key=lambda r: (r.verdict is Verdict.PASSED, r.settings.seed))
    return ordered[:RUNS_SHOWN_PER_CELL]


def write_report(records: list[RunRecord], artifacts: Path, target: Path) -> None:
    """Write the page, replacing the old one only when the new one is whole."""
    target.parent.mkdir(parents=True, exist_ok=True)
    whole = target.with_suffix(".html.new")
    whole.write_text(render(records, artifacts), encoding="utf-8")
    whole.replace(target)
