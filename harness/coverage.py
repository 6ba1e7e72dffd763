"""Which rare states runs reached, and which of the declared ones none did."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from harness.backend import Event
from storage.marks import Mark

MEANINGS: Mapping[str, str] = {mark.label: mark.value for mark in Mark}
"""Every mark there is: name → the role and what was reached."""


def count_marks(events: Iterable[Event]) -> dict[str, int]:
    """How often a run reached each mark, by name in alphabetical order."""
    counts = Counter(str(event.fields["name"]) for event in events if event.kind == "mark")
    return dict(sorted(counts.items()))


@dataclass
class Coverage:
    """Marks of many runs: how many runs reached each, and how often in all."""

    runs: Counter[str] = field(default_factory=Counter)
    hits: Counter[str] = field(default_factory=Counter)

    def add(self, marks: Mapping[str, int]) -> None:
        """Count one run."""
        self.runs.update(marks.keys())
        self.hits.update(marks)

    def never(self) -> list[str]:
        """Declared marks that no run reached, in the order of their declaration."""
        return [name for name in MEANINGS if not self.hits[name]]

    def lines(self) -> list[str]:
        """For people: marks that were reached, rarest first, then those that were not."""
        reached = sorted(self.hits, key=lambda name: (self.runs[name], self.hits[name], name))
        head = f"marks reached: {len(reached)} of {len(MEANINGS)}"
        told = [f"  {name}: {self.hits[name]} times in {self.runs[name]} runs" for name in reached]
        never = [f"  {name} – {MEANINGS[name]}" for name in self.never()]
        return [head, *told, f"marks never reached: {len(never)}", *never]
