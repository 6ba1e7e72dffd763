"""``python -m harness bugs``: hunt the bank's bugs and show what caught each of them."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from harness.bug import Bug, Standing
from harness.bug_hunt import Hunt, Quarry, hunt_all
from harness.composition import bank, hunting_grounds
from harness.errors import HarnessError


@dataclass(frozen=True)
class BugsOptions:
    """What to hunt: every bug or one (``bug_id``), from ``roots`` root seeds each."""

    bug_id: str = ""
    roots: int = 5
    runs_max: int = 2000
    jobs: int = 0
    json_path: str = ""
    scenarios: tuple[str, ...] = ()


def hunt_bugs(options: BugsOptions) -> int:
    """Hunt, print the table and the closing line; 0 only if every expressible bug was caught."""
    chosen = [bug for bug in bank() if options.bug_id in ("", bug.id)]
    if not chosen:
        known = ", ".join(bug.id for bug in bank())
        raise HarnessError(f"no bug {options.bug_id!r} in the bank; there are: {known}")
    scenarios = options.scenarios or tuple(hunting_grounds())
    quarries = [
        Quarry(bug.id, root, scenarios, options.runs_max)
        for bug in chosen
        if bug.standing is Standing.EXPRESSED
        for root in range(options.roots)
    ]
    hunts = _hunt(quarries, options.jobs) if quarries else []
    results = [Result(bug, [hunt for hunt in hunts if hunt.bug_id == bug.id]) for bug in chosen]
    Console().print(table(results))
    for result in results:
        for hunt in result.hunts[:1]:
            if hunt.caught:
                print(f"{result.bug.id}: {hunt.replay}")
    if options.json_path:
        path = Path(options.json_path)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(to_json(results), indent=1), encoding="utf-8")
    print(closing_line(results))
    return 0 if all(result.is_settled for result in results) else 1


def _hunt(quarries: list[Quarry], jobs: int) -> list[Hunt]:
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn())
    console = Console(stderr=True)
    with Progress(*columns, TimeElapsedColumn(), console=console) as progress:
        task = progress.add_task("hunting", total=len(quarries))

        def seen(hunt: Hunt) -> None:
            how = hunt.oracle if hunt.caught else "NOT CAUGHT"
            progress.console.print(
                f"{hunt.bug_id} root {hunt.root}: {how} after {hunt.runs} runs, {hunt.wall_s:.1f} s"
            )
            progress.advance(task)

        return hunt_all(quarries, jobs=jobs, seen=seen)


class Result:
    """A bug with its hunts, in order of their roots."""

    def __init__(self, bug: Bug, hunts: Sequence[Hunt]) -> None:
        self.bug = bug
        self.hunts = sorted(hunts, key=lambda hunt: hunt.root)

    @property
    def caught(self) -> bool:
        """Whether every root seed led to a catch."""
        return bool(self.hunts) and all(hunt.caught for hunt in self.hunts)

    @property
    def is_settled(self) -> bool:
        """Whether it was caught, or cannot be put back."""
        return self.caught or self.bug.standing is not Standing.EXPRESSED

    @property
    def seeds(self) -> float:
        """Median of the runs until the catch; infinite if most hunts caught nothing."""
        return median(h.runs if h.caught else float("inf") for h in self.hunts)

    @property
    def oracles(self) -> Mapping[str, int]:
        """What fired, and in how many hunts."""
        return Counter(hunt.oracle for hunt in self.hunts if hunt.caught)


def table(results: Sequence[Result]) -> Table:
    """One row for each bug."""
    shown = Table(title="bug bank")
    for name in ("bug", "difficulty", "expected", "caught", "seeds", "seconds", "what fired"):
        shown.add_column(name, overflow="fold")
    for result in results:
        bug, hunts = result.bug, result.hunts
        row = [bug.id, bug.difficulty, " ".join(bug.oracles)]
        if not hunts:
            shown.add_row(*row, bug.standing, "", "", bug.reason)
            continue
        runs = sorted(hunt.runs for hunt in hunts)
        fired = ", ".join(f"{oracle} ×{count}" for oracle, count in result.oracles.items())
        shown.add_row(
            *row,
            f"{sum(hunt.caught for hunt in hunts)}/{len(hunts)}",
            f"{result.seeds:g} ({runs[0]}…{runs[-1]})",
            f"{median(hunt.wall_s for hunt in hunts):.1f}",
            fired,
        )
    return shown


def closing_line(results: Sequence[Result]) -> str:
    """The last line: counts, and the median over bugs of their median seeds-to-catch."""
    standing = Counter(result.bug.standing for result in results)
    caught = [result for result in results if result.caught]
    seeds = f"{median(result.seeds for result in caught):g}" if caught else "-"
    return (
        f"caught={len(caught)}/{standing[Standing.EXPRESSED]} median_seeds={seeds} "
        f"waiting={standing[Standing.WAITING]} inexpressible={standing[Standing.INEXPRESSIBLE]}"
    )


def to_json(results: Sequence[Result]) -> dict[str, Any]:
    """For the report's page: every bug with its record and its hunts."""
    return {
        "closing_line": closing_line(results),
        "bugs": [
            {
                "id": result.bug.id,
                "family": result.bug.family,
                "difficulty": result.bug.difficulty,
                "source": result.bug.source,
                "expected_oracles": list(result.bug.oracles),
                "standing": result.bug.standing,
                "applies": result.bug.applies,
                "reason": result.bug.reason,
                "replaces": [str(one) for one in result.bug.replacements],
                "caught": result.caught,
                "oracles": dict(result.oracles),
                "hunts": [{**asdict(hunt), "replay": hunt.replay} for hunt in result.hunts],
            }
            for result in results
        ],
    }
