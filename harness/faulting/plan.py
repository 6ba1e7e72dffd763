"""Plans: which fault strikes whom, when, for how long; frozen, and the same as JSON and back.

A step waits for a time or for something that happens (``OnEvent``), so "pause sk2 once it has
flushed LSN x in term 3" can be said. A plan holds all that a campaign draws, so it can be replayed
and made smaller without drawing again.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

from harness.backend import Event
from harness.errors import HarnessError
from harness.faulting.fault import Cast, Strike
from harness.topology import Topology


@dataclass(frozen=True, slots=True)
class AtTime:
    """So many seconds after the nemesis began."""

    at_s: float

    def __str__(self) -> str:
        return f"at {self.at_s:.3f} s"


@dataclass(frozen=True, slots=True)
class AfterCommits:
    """Once so many writes were acknowledged since the nemesis began."""

    commits: int

    def __str__(self) -> str:
        return f"after {self.commits} commits"


@dataclass(frozen=True, slots=True)
class OnEvent:
    """At the ``count``-th event of a kind that matches, counted from the start of the nemesis.

    ``node`` empty: of any node. ``where``: fields that must be equal; ``at_least``: fields that
    must have reached a number (an LSN is a number of bytes); ``term``: the term that the node must
    have announced by then, at least.
    """

    kind: str
    node: str = ""
    count: int = 1
    where: Mapping[str, Any] = field(default_factory=dict)
    at_least: Mapping[str, int] = field(default_factory=dict)
    term: int = 0

    def matches(self, event: Event, term: int) -> bool:
        """Whether an event, of a node that is at ``term``, counts."""
        if event.kind != self.kind or self.node not in ("", event.node) or term < self.term:
            return False
        fields = event.fields
        return all(fields.get(name) == value for name, value in self.where.items()) and all(
            isinstance(found := fields.get(name), int) and found >= least
            for name, least in self.at_least.items()
        )

    def __str__(self) -> str:
        which = "".join(f" {name}={value}" for name, value in self.where.items())
        which += "".join(f" {name}≥{value}" for name, value in self.at_least.items())
        which += f" in term ≥ {self.term}" if self.term else ""
        return f"at event {self.count} of {self.kind!r}{which} on {self.node or 'any node'}"


Trigger = AtTime | AfterCommits | OnEvent
_TRIGGERS: dict[str, type[AtTime] | type[AfterCommits] | type[OnEvent]] = {
    "at_time": AtTime,
    "after_commits": AfterCommits,
    "on_event": OnEvent,
}


@dataclass(frozen=True, slots=True)
class Step:
    """One fault: ``for_s`` seconds from its trigger to its inverse; 0 for a moment."""

    fault: str
    strike: Strike
    when: Trigger
    for_s: float = 0.0

    def __str__(self) -> str:
        options = "".join(f" {name}={value}" for name, value in self.strike.options.items())
        length = f" for {self.for_s:.3f} s" if self.for_s else ""
        return f"{self.fault} {', '.join(self.strike.targets)}{options} {self.when}{length}"


@dataclass(frozen=True, slots=True)
class Plan:
    """A campaign: ``core`` are the nodes that must work again when the faults end after
    ``duration_s`` seconds; ``kill_rest`` kills every other node at that moment. ``clients`` do
    the ``workload`` (:func:`harness.transactions.workload_named`) and think ``think_s`` seconds
    between operations."""

    profile: str
    topology: Topology
    steps: tuple[Step, ...]
    duration_s: float
    core: tuple[str, ...]
    clients: int = 4
    think_s: float = 0.05
    kill_rest: bool = False
    workload: str = "registers"

    def cast(self) -> Cast:
        """The names of its nodes."""
        return Cast(
            tuple(f"sk{i}" for i in range(self.topology.safekeepers)),
            tuple(f"ps{i}" for i in range(self.topology.pageservers)),
        )

    def without(self, *numbers: int) -> Plan:
        """The same plan without some steps, by index."""
        kept = tuple(step for number, step in enumerate(self.steps) if number not in numbers)
        return dataclasses.replace(self, steps=kept)

    def stretched(self, by: float) -> Plan:
        """The same plan in slow motion: every time and length is multiplied."""
        assert by > 0, f"time cannot pass {by} times as slowly"
        steps = tuple(
            dataclasses.replace(step, when=_later(step.when, by), for_s=round(step.for_s * by, 3))
            for step in self.steps
        )
        return dataclasses.replace(self, steps=steps, duration_s=self.duration_s * by)

    def to_json(self) -> dict[str, Any]:
        """Plain data; :meth:`of_json` reads it back."""
        data: dict[str, Any] = {
            each.name: getattr(self, each.name) for each in dataclasses.fields(self)
        }
        data["topology"] = dataclasses.asdict(self.topology)
        data["steps"] = [_step_to_json(step) for step in self.steps]
        data["core"] = list(self.core)
        return data

    @classmethod
    def of_json(cls, data: Mapping[str, Any]) -> Self:
        """Read what :meth:`to_json` wrote; ``HarnessError`` names what is no plan."""
        try:
            return cls(
                **{
                    **data,
                    "topology": Topology(**data["topology"]),
                    "steps": tuple(_step_of_json(step) for step in data["steps"]),
                    "core": tuple(data["core"]),
                }
            )
        except (KeyError, TypeError, ValueError) as error:
            raise HarnessError(f"this is no plan: {type(error).__name__}: {error}") from error

    @classmethod
    def read(cls, path: Path) -> Self:
        """A plan from a file; ``HarnessError`` if it holds none."""
        try:
            return cls.of_json(json.loads(path.read_text(encoding="utf-8")))
        except (OSError, json.JSONDecodeError) as error:
            raise HarnessError(f"no plan can be read from {path}: {error}") from error

    def __str__(self) -> str:
        topology = self.topology
        head = (
            f"plan {self.profile}: {topology.safekeepers} safekeepers, {topology.pageservers} "
            f"pageservers, {topology.discovery}, {self.duration_s:.1f} s, core "
            f"{' '.join(self.core)}{', the rest is killed' if self.kill_rest else ''}"
        )
        return "\n".join([head, *(f"  {number}: {step}" for number, step in enumerate(self.steps))])


def _later(trigger: Trigger, by: float) -> Trigger:
    return AtTime(round(trigger.at_s * by, 3)) if isinstance(trigger, AtTime) else trigger


def _step_to_json(step: Step) -> dict[str, Any]:
    name = next(name for name, shape in _TRIGGERS.items() if isinstance(step.when, shape))
    return {
        "fault": step.fault,
        "targets": list(step.strike.targets),
        "options": dict(step.strike.options),
        "when": {name: dataclasses.asdict(step.when)},
        "for_s": step.for_s,
    }


def _step_of_json(data: Mapping[str, Any]) -> Step:
    ((name, fields),) = data["when"].items()
    strike = Strike(tuple(data["targets"]), dict(data["options"]))
    return Step(data["fault"], strike, _TRIGGERS[name](**fields), data["for_s"])
