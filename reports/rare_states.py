"""Which rare states of the system the runs reached: one row for each that is declared."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from harness.coverage import MEANINGS, Coverage
from harness.verdict import RunRecord


@dataclass(frozen=True, slots=True)
class RareState:
    """A state, what it means, and for each world how often it was reached and in how many runs."""

    name: str
    meaning: str
    times: Mapping[str, int]
    runs: Mapping[str, int]

    @property
    def reached(self) -> bool:
        """Whether any run of any world reached it."""
        return any(self.runs.values())


def rare_states(records: Iterable[RunRecord]) -> list[RareState]:
    """Every state there is, in the order of declaration; none if no record tells of any.

    A record of an older version may name one that is not declared any more; it is left out.
    """
    worlds: dict[str, Coverage] = {}
    for record in records:
        worlds.setdefault(record.settings.world, Coverage(MEANINGS)).add(record.marks)
    found = [
        RareState(
            name,
            meaning,
            {world: coverage.hits[name] for world, coverage in sorted(worlds.items())},
            {world: coverage.runs[name] for world, coverage in sorted(worlds.items())},
        )
        for name, meaning in MEANINGS.items()
    ]
    return found if any(state.reached for state in found) else []
