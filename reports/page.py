"""Renders the report: one HTML file with no reference to anything outside itself."""

from __future__ import annotations

import functools
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import jinja2
from markupsafe import Markup

from harness.verdict import RunRecord, Verdict
from reports.evidence import read_evidence
from reports.lanes import LEGEND
from reports.lsn_picture import lsn_pictures
from reports.model import (
    Matrix,
    Records,
    Row,
    anchors,
    column_of,
    failures_without_record,
    matrix,
)
from reports.rare_states import rare_states
from reports.scenario_ids import rerun_line
from reports.session import Session
from reports.spacetime import diagrams, left_out
from reports.story import tell

SECTION_BYTES_MAX = 12_000_000
"""Sections stop when they are this long together; runs beyond are in the matrix only."""
OPEN_MAX = 5
"""How many runs that are not green are open when the page is."""
REPLAYS_MAX = 5
NOT_GREEN_MAX = 20


@dataclass(frozen=True)
class Section:
    """A run's rendered section."""

    record: RunRecord
    anchor: str
    html: Markup


@dataclass(frozen=True)
class Group:
    """The sections of one scenario."""

    row: Row
    sections: list[Section]
    open: bool


@functools.cache
def _templates() -> jinja2.Environment:
    return jinja2.Environment(
        loader=jinja2.PackageLoader("reports"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )


def render(records: Records, artifacts: Path, session: Session | None = None) -> str:
    """The page for these records; ``artifacts`` is the directory their evidence is below."""
    grid = matrix(records.runs)
    sections = _sections(grid, artifacts)
    counts = {verdict: sum(r.verdict is verdict for r in records.runs) for verdict in Verdict}
    red = [record for record in records.runs if record.verdict is not Verdict.PASSED]
    return (
        _templates()
        .get_template("index.html.j2")
        .render(
            matrix=grid,
            groups=_groups(grid, sections),
            anchor={id(section.record): section.anchor for section in sections},
            counts=counts,
            records=records,
            red=red[:NOT_GREEN_MAX],
            red_total=len(red),
            column_of=column_of,
            sections_total=len(sections),
            replays_max=REPLAYS_MAX,
            session=session,
            failures=failures_without_record(session, records.runs) if session else [],
            rerun_line=rerun_line,
            id=id,
            states=rare_states(records.runs),
            mark_legend=LEGEND,
            wall_s=sum(record.wall_s for record in records.runs),
            virtual_s=sum(record.virtual_s for record in records.runs),
        )
    )


def _sections(grid: Matrix, artifacts: Path) -> list[Section]:
    """Sections in order of importance until the page is long enough; evidence is read singly."""
    chosen = grid.sections()
    names = anchors(chosen)
    sections: list[Section] = []
    length = opened = 0
    for record in chosen:
        is_open = record.verdict is not Verdict.PASSED and opened < OPEN_MAX
        html = _section(record, names[id(record)], artifacts, is_open=is_open)
        length += len(html.encode())
        if length > SECTION_BYTES_MAX and sections:
            break
        opened += is_open
        sections.append(Section(record, names[id(record)], html))
    return sections


def _section(record: RunRecord, anchor: str, artifacts: Path, *, is_open: bool) -> Markup:
    evidence = read_evidence(artifacts / record.artifacts) if record.artifacts else None
    story = tell(evidence.events if evidence else [], record.message)
    template = _templates().get_template("run.html.j2")
    return Markup(
        template.render(
            record=record,
            anchor=anchor,
            is_open=is_open,
            column=column_of(record),
            evidence=evidence,
            lsn=lsn_pictures(story),
            diagrams=diagrams(story),
            left_out=left_out(story),
            mark_legend=LEGEND,
        )
    )


def _groups(grid: Matrix, sections: Iterable[Section]) -> list[Group]:
    """Sections by scenario, in the matrix's order; runs that are not green come first."""
    by_nodeid: dict[str, list[Section]] = {}
    for section in sections:
        by_nodeid.setdefault(section.record.nodeid, []).append(section)
    return [
        Group(row, by_nodeid[row.nodeid], open=not row.green)
        for row in grid.rows
        if row.nodeid in by_nodeid
    ]


def write_report(
    records: Records, artifacts: Path, target: Path, session: Session | None = None
) -> None:
    """Write the page, replacing the old one only when the new one is whole. ``OSError``."""
    target.parent.mkdir(parents=True, exist_ok=True)
    whole = target.with_suffix(".html.new")
    try:
        whole.write_text(render(records, artifacts, session), encoding="utf-8")
        whole.replace(target)
    finally:
        whole.unlink(missing_ok=True)
