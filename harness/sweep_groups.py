"""Failures of a sweep by what they have in common: kind, oracle, place, and the plan's shape."""

from __future__ import annotations

import shlex
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from harness.verdict import Failure, RunRecord, Verdict

NO_FAILURE = Failure("unknown", "no reason given", "")


@dataclass
class Group:
    """Runs that are red in the same way; ``fastest`` took the least time to get there."""

    name: str
    verdict: Verdict
    fastest: RunRecord
    seeds: list[int] = field(default_factory=list)
    shapes: Counter[tuple[str, ...]] = field(default_factory=Counter)

    def add(self, record: RunRecord) -> None:
        """Count one more run of the group."""
        self.seeds.append(record.settings.seed)
        self.shapes[(record.failure or NO_FAILURE).faults] += 1
        if _cost(record) < _cost(self.fastest):
            self.fastest = record

    @property
    def shape(self) -> tuple[str, ...]:
        """The faults that struck in every one of the runs: what the cause may need."""
        first, *others = self.shapes
        return tuple(fault for fault in first if all(fault in other for other in others))

    def to_json(self) -> dict[str, Any]:
        """For the summary of the sweep."""
        return {
            "group": self.name,
            "verdict": self.verdict,
            "seeds": sorted(self.seeds),
            "faults_in_all": list(self.shape),
            "shapes": len(self.shapes),
            "fastest_seed": self.fastest.settings.seed,
            "replay": self.fastest.replay,
            "message": self.fastest.message,
        }

    def lines(self) -> list[str]:
        """For people: what, how often, under which faults, and the one command to look at it."""
        faults = ", ".join(self.shape) or "no fault in common"
        seeds = ", ".join(map(str, sorted(self.seeds)[:8])) + (" …" if len(self.seeds) > 8 else "")
        return [
            f"{len(self.seeds)} × {self.name}",
            f"  {self.fastest.nodeid}, seeds {seeds}",
            f"  struck in all: {faults} ({len(self.shapes)} shapes of plans)",
            f"  {self.fastest.message.splitlines()[0] if self.fastest.message else ''}",
            f"  replay: {self.fastest.replay}",
            f"  when it is mended: {self.addition}",
        ]

    @property
    def addition(self) -> str:
        """The command that puts the fastest reproducer on the list of regressions."""
        settings = self.fastest.settings
        words = ["python", "-m", "harness", "regress", "--add", self.fastest.nodeid]
        words += ["--seed", str(settings.seed)]
        words += ["--policy", settings.policy] if settings.policy != "random" else []
        return f"{shlex.join(words)} --cause … --fix …"


def grouped(records: Iterable[RunRecord]) -> list[Group]:
    """Red runs in groups: the worst verdict first, then the largest group."""
    found: dict[tuple[str, str], Group] = {}
    for record in records:
        if record.verdict is Verdict.PASSED:
            continue
        name = (record.failure or NO_FAILURE).group
        key = (record.nodeid, name)
        if key not in found:
            found[key] = Group(name, record.verdict, record)
        found[key].add(record)
    order = (Verdict.FAILED, Verdict.ERROR, Verdict.INCONCLUSIVE)
    return sorted(found.values(), key=lambda group: (order.index(group.verdict), -len(group.seeds)))


def _cost(record: RunRecord) -> tuple[float, int]:
    """Events are the same on every machine, busy or not; then the smaller seed."""
    return (record.events, record.settings.seed)
