"""What runs reached of what they could reach: rare states of the system, faults with an effect."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from harness.backend import Event
from storage.marks import Mark

MEANINGS: Mapping[str, str] = {mark.label: mark.value for mark in Mark}
"""Every mark there is: name → the role and what was reached."""


def count_marks(events: Iterable[Event]) -> dict[str, int]:
    """How often a run reached each mark, by name in alphabetical order."""
    counts = Counter(str(event.fields["name"]) for event in events if event.kind == "mark")
    return dict(sorted(counts.items()))


def count_faults(events: Iterable[Event]) -> dict[str, int]:
    """How often each fault of the run's plan struck and had an effect, by name."""
    counts = Counter(
        str(event.fields["fault"])
        for event in events
        if event.kind == "fault" and event.fields.get("effect")
    )
    return dict(sorted(counts.items()))


def commits_under_faults(events: Iterable[Event]) -> int | None:
    """Writes that a campaign's clients had acknowledged while its faults lasted; ``None`` for what
    was no campaign or ended before."""
    for event in events:
        if event.kind == "campaign":
            commits = event.fields["commits"]
            assert isinstance(commits, int), f"{event} has no count"
            return commits
    return None


@dataclass
class Coverage:
    """Over many runs: in how many each name occurred, and how often in all.

    ``declared``: every name that could occur, with what it means, or nothing if the name says it.
    """

    declared: Mapping[str, str]
    runs: Counter[str] = field(default_factory=Counter)
    hits: Counter[str] = field(default_factory=Counter)

    def add(self, found: Mapping[str, int]) -> None:
        """Count one run."""
        self.runs.update(found.keys())
        self.hits.update(found)

    def never(self) -> list[str]:
        """Declared names that occurred in no run, in the order of their declaration."""
        return [name for name in self.declared if not self.hits[name]]

    def lines(self, what: str) -> list[str]:
        """For people: names that occurred, rarest first, then those that did not."""
        found = sorted(self.hits, key=lambda name: (self.runs[name], self.hits[name], name))
        lines = [f"{what}: {len(found)} of {len(self.declared)}"]
        lines += [f"  {name}: {self.hits[name]} times in {self.runs[name]} runs" for name in found]
        never = self.never()
        lines.append(f"{what}, never: {len(never)}")
        lines += [f"  {name} – {self.declared[name]}" for name in never if self.declared[name]]
        plain = [name for name in never if not self.declared[name]]
        return [*lines, f"  {', '.join(plain)}"] if plain else lines

    def to_json(self) -> dict[str, Any]:
        """For the summary of a sweep."""
        return {
            "reached": {
                name: {"times": self.hits[name], "runs": self.runs[name]}
                for name in sorted(self.hits)
            },
            "never": self.never(),
        }
