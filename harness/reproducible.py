"""A sample of simulated runs is executed twice: the second must be the first, event by event.

Code that asks the outside world shows only in a difference, so the sample is always on: seeds that
``EVERY`` divides, and so also seed 0, which every scenario runs with.
"""

from __future__ import annotations

import dataclasses
from itertools import zip_longest

from harness.backend import Event
from harness.errors import HarnessError
from harness.runner import RunResult, Scenario, WorldRunner
from harness.verdict import RunSettings, Verdict

EVERY = 20


class NotReproducible(HarnessError):
    """Two runs of one seed differ: some code depends on what the seed does not decide."""


def run_and_sample(runner: WorldRunner, scenario: Scenario, settings: RunSettings) -> RunResult:
    """Run a scenario; if its seed is in the sample, once more, and compare.

    A difference turns the result into an error that names the first event that differs. Worlds
    whose runs have no digest are not reproducible and run once.
    """
    result = runner.run(scenario, settings)
    if not result.digest or settings.seed % EVERY:
        return result
    again = runner.run(scenario, settings)
    if again.digest == result.digest:
        return result
    difference = NotReproducible(
        f"seed {settings.seed} ran twice with different digests, {result.digest} and "
        f"{again.digest}; {_first_difference(result, again)}"
    )
    difference.__cause__ = result.error
    return dataclasses.replace(result, verdict=Verdict.ERROR, error=difference)


def _first_difference(one: RunResult, other: RunResult) -> str:
    pairs = zip_longest(one.evidence.events, other.evidence.events)
    for number, (mine, theirs) in enumerate(pairs):
        if mine != theirs:
            return f"event {number} is {_shown(mine)} in the first and {_shown(theirs)} in the next"
    return "every event is the same, so the order of callbacks differs"


def _shown(event: Event | None) -> str:
    if event is None:
        return "missing"
    fields = " ".join(f"{name}={value}" for name, value in event.fields.items())
    return f"[{event.at_s:.6f} {event.node} {event.kind} {fields}]"
