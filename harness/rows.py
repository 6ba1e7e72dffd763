"""``python -m harness rows``: which test would fail without which promise of the system.

Collects the marker ``row`` of the whole suite and draws ``docs/system-rows.md``.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path

from harness.errors import HarnessError
from harness.system_rows import BOTH, SYSTEM, Claim, Section, claims

ROOT = Path(__file__).resolve().parents[1]
PAGE = ROOT / "docs" / "system-rows.md"
SHOWN = 4
"""Tests named for each claim and world; a few tell more than all."""

HEAD = """# The rows of the system, and who watches over them

Made by `python -m harness rows --write` from `harness/system_rows.py` and the marker `row` of the
suite; a test keeps it up to date. Each claim has a test that fails without it. *Bugs* are records
of [the bug bank](bug-bank.md), or of our own slips, that take the promise away:
`python -m harness bugs --id NAME` shows how soon that is noticed.
"""

Claimants = Mapping[tuple[str, str], list[str]]
"""Tests by claim and world."""


def collect() -> Claimants:
    """Who claims what, as a collection of the whole suite tells; raises ``HarnessError``."""
    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory, "rows.json")
        words = ("--collect-only", "-q", "-p", "no:cacheprovider", "--rows", str(path))
        done = subprocess.run(
            [sys.executable, "-m", "pytest", *words],
            cwd=ROOT,
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode != 0:
            raise HarnessError(f"collection failed: {done.stdout[-2000:]}{done.stderr[-2000:]}")
        found = json.loads(path.read_text(encoding="utf-8"))
    claimants: dict[tuple[str, str], list[str]] = {}
    for claim, world, test in found:
        claimants.setdefault((claim, world), []).append(test)
    return claimants


def missing(claimants: Claimants) -> list[str]:
    """A line for each claim that no test makes in a world that it belongs to."""
    return [
        f"{name} {world}"
        for name, claim in claims().items()
        for world in claim.worlds
        if not claimants.get((name, world))
    ]


def draw(claimants: Claimants) -> str:
    """The page, in Markdown."""
    lines = [HEAD]
    for section in SYSTEM:
        lines += _section(section, claimants)
    return "\n".join(lines)


def _section(section: Section, claimants: Claimants) -> Iterator[str]:
    yield f"## {section.title}\n"
    for row in section.rows:
        yield f"### {row.id} {row.title}\n"
        for claim in row.claims:
            bugs = "; bugs: " + ", ".join(f"`{bug}`" for bug in claim.bugs) if claim.bugs else ""
            yield f"* **{claim.name}**: {claim.words}{bugs}"
            yield from (f"  * {line}" for line in _tests(row.id, claim, claimants))
        yield ""


def _tests(row_id: str, claim: Claim, claimants: Claimants) -> Iterator[str]:
    by_world = [
        sorted(claimants.get((f"{row_id}.{claim.name}", world), [])) for world in claim.worlds
    ]
    if claim.worlds == BOTH and by_world[0] == by_world[1]:
        yield f"sim and real: {_names(by_world[0])}"
        return
    for world, tests in zip(claim.worlds, by_world, strict=True):
        yield f"{world}: {_names(tests)}"
    if claim.reason:
        yield f"{claim.worlds[0]} only: {claim.reason}"


def _names(tests: list[str]) -> str:
    if not tests:
        return "nobody yet"
    named = ", ".join(f"`{test}`" for test in tests[:SHOWN])
    return named + (f" and {len(tests) - SHOWN} more" if len(tests) > SHOWN else "")


def add_rows(parser: argparse.ArgumentParser) -> None:
    """The options of the command, and what it does."""
    parser.add_argument("--write", action="store_true", help=f"into {PAGE.relative_to(ROOT)}")
    parser.set_defaults(command=_rows)


def _rows(arguments: argparse.Namespace) -> int:
    claimants = collect()
    text = draw(claimants)
    if arguments.write:
        PAGE.write_text(text, encoding="utf-8")
    else:
        print(text)
    for line in missing(claimants):
        print(f"nobody claims {line}", file=sys.stderr)
    return 0
