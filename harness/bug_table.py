"""What hunts found, as a table, a closing line and plain data for the report's page."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from statistics import median
from typing import Any

from rich.table import Table

from harness.bug import Bug, Standing
from harness.bug_hunt import Control, Hunt
from harness.bug_oracles import ORACLES, in_order


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
    def status(self) -> str:
        """``caught``, ``not caught``, ``never ran``, ``waiting`` or ``inexpressible``."""
        if self.bug.standing is not Standing.EXPRESSED:
            return str(self.bug.standing)
        if self.never_ran:
            return "never ran"
        return "caught" if self.caught else "not caught"

    @property
    def seeds(self) -> float:
        """Median of the runs until the catch; infinite if most hunts caught nothing."""
        return median(h.runs if h.caught else float("inf") for h in self.hunts)

    @property
    def ended_by(self) -> Mapping[str, int]:
        """Which oracle ended the catching run, and in how many hunts."""
        return in_order(Counter(h.catch.oracle for h in self.hunts if h.catch is not None))

    @property
    def oracles(self) -> Mapping[str, int]:
        """Which oracles saw it, first or asked afterwards, and in how many hunts."""
        return in_order(Counter(oracle for hunt in self.hunts for oracle in hunt.oracles))

    @property
    def calls(self) -> Mapping[str, int]:
        """How often each replacement was called, in all hunts."""
        return sum((Counter(hunt.calls) for hunt in self.hunts), Counter())

    @property
    def never_ran(self) -> bool:
        """Whether it was hunted and nothing that brings it back was ever called."""
        return bool(self.hunts) and not any(hunt.live_runs for hunt in self.hunts)

    @property
    def live_share(self) -> float:
        """Share of the runs in which something that brings it back was called."""
        return sum(hunt.live_runs for hunt in self.hunts) / sum(hunt.runs for hunt in self.hunts)

    @property
    def scenarios(self) -> Mapping[str, int]:
        """Which scenarios caught it, and in how many hunts."""
        return Counter(_short(hunt.nodeid) for hunt in self.hunts if hunt.caught)

    @property
    def surprise(self) -> bool:
        """Whether it was caught, and none of the oracles expected of it saw it."""
        return bool(self.oracles) and not set(self.oracles) & set(self.bug.oracles)


def _short(nodeid: str) -> str:
    return nodeid.rpartition("::")[2]


def table(results: Sequence[Result]) -> Table:
    """One row for each bug. Oracles are those that ended the run; ``+`` marks others that saw it,
    ``!`` a bug that none of the expected ones saw. "ran" is how many runs called what brings the
    bug back; the others were no test of it."""
    shown = Table(title="bug bank")
    for name in ("bug", "status", "seeds", "ran", "s", "expected", "fired", "scenario"):
        shown.add_column(name, overflow="fold")
    for result in results:
        bug, hunts = result.bug, result.hunts
        if not hunts:
            shown.add_row(bug.id, result.status, "", "", "", " ".join(bug.oracles), "", bug.reason)
            continue
        runs = sorted(hunt.runs for hunt in hunts)
        fired = [f"{oracle}×{count}" for oracle, count in result.ended_by.items()]
        fired += [f"+{oracle}" for oracle in result.oracles if oracle not in result.ended_by]
        shown.add_row(
            bug.id,
            f"{result.status} {sum(hunt.caught for hunt in hunts)}/{len(hunts)}",
            f"{result.seeds:g} ({runs[0]}…{runs[-1]})",
            f"{result.live_share:.0%}",
            f"{median(hunt.wall_s for hunt in hunts):.1f}",
            " ".join(bug.oracles),
            " ".join(fired) + (" !" if result.surprise else ""),
            ", ".join(f"{name} ×{count}" for name, count in result.scenarios.items()),
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


def to_json(results: Sequence[Result], control: Control | None) -> dict[str, Any]:
    """For the report's page: every bug with its record and its hunts."""
    return {
        "closing_line": closing_line(results),
        "oracles": dict(ORACLES),
        "control": None if control is None else _control_json(control),
        "bugs": [_bug_json(result) for result in results],
    }


def _control_json(control: Control) -> dict[str, Any]:
    red = [{"replay": record.replay, "message": record.message} for record in control.red]
    return {"runs": control.runs, "wall_s": control.wall_s, "red": red}


def _bug_json(result: Result) -> dict[str, Any]:
    bug = result.bug
    return {
        "id": bug.id,
        "family": bug.family,
        "difficulty": bug.difficulty,
        "source": bug.source,
        "expected_oracles": list(bug.oracles),
        "status": result.status,
        "surprise": result.surprise,
        "applies": bug.applies,
        "reason": bug.reason,
        "calls": {str(one): result.calls.get(str(one), 0) for one in bug.replacements},
        "live_share": result.live_share if result.hunts else None,
        "seeds": result.seeds if result.caught else None,
        "ended_by": dict(result.ended_by),
        "oracles": dict(result.oracles),
        "scenarios": dict(result.scenarios),
        "hunts": [{**asdict(hunt), "replay": hunt.replay} for hunt in result.hunts],
    }
