"""A sample of simulated runs is executed twice: the second must be the first, event by event.

Code that asks the outside world shows only in a difference, so the sample is always on: of each
scenario one seed in ``EVERY``, other seeds of other scenarios, so that one seed of them all is a
sample too. Sweeps take their own, in another process with another hash seed
(``harness/second_look.py``).
"""

from __future__ import annotations

import dataclasses
import zlib
from collections.abc import Sequence

from harness.backend import Event
from harness.errors import HarnessError
from harness.runner import RunResult, Scenario, WorldRunner
from harness.verdict import RunSettings, Verdict

EVERY = 8
BEFORE, AFTER = 3, 2
"""How many events around the first difference are shown."""


class NotReproducible(HarnessError):
    """Two runs of one seed differ: some code depends on what the seed does not decide."""


def run_and_sample(
    runner: WorldRunner,
    scenario: Scenario,
    settings: RunSettings,
    nodeid: str,
    *,
    every: int = EVERY,
) -> RunResult:
    """Run a scenario; if this seed of ``nodeid`` is in the sample, once more, and compare.

    A difference turns the result into an error that shows the first event that differs, with its
    surroundings in both runs. Worlds whose runs have no digest are not reproducible and run once,
    and so does everything if ``every`` is 0.
    """
    result = runner.run(scenario, settings)
    if not result.digest or not is_sampled(nodeid, settings.seed, every):
        return result
    again = runner.run(scenario, settings)
    if again.digest == result.digest:
        return result
    difference = NotReproducible(
        f"seed {settings.seed} ran twice with different digests, {result.digest} and "
        f"{again.digest}; {_where(result, again)}"
    )
    difference.__cause__ = result.error
    return dataclasses.replace(result, verdict=Verdict.ERROR, error=difference)


def is_sampled(nodeid: str, seed: int, every: int = EVERY) -> bool:
    """Whether a seed of a scenario is in the sample; none is if ``every`` is 0."""
    return every > 0 and (zlib.crc32(nodeid.encode()) + seed) % every == 0


def _where(result: RunResult, again: RunResult) -> str:
    """In events that people know, or else in what the kernel notes of every instant."""
    events = [list(map(shown, each.evidence.events)) for each in (result, again)]
    if events[0] != events[1]:
        return first_difference(*events)
    entries = [list(map(str, each.evidence.trace())) for each in (result, again)]
    return f"every event is the same, but not the trace: {first_difference(*entries)}"


def first_difference(one: Sequence[str], other: Sequence[str]) -> str:
    """Where two runs part, in events as text: what was the same, then what follows in each."""
    number = next(
        (n for n, (mine, theirs) in enumerate(zip(one, other, strict=False)) if mine != theirs),
        min(len(one), len(other)),
    )
    if number == len(one) == len(other):
        return "nothing that was kept differs, so the order of callbacks does"
    lines = [f"event {number} is the first that differs:"]
    lines += [f"    both  {line}" for line in one[max(0, number - BEFORE) : number]]
    for name, events in (("first", one), ("next", other)):
        following = events[number : number + 1 + AFTER] or ["(no more events)"]
        lines += [
            f"  {'>' if n == 0 else ' '} {name:<5} {each}" for n, each in enumerate(following)
        ]
    return "\n".join(lines)


def shown(event: Event) -> str:
    """An event as one line."""
    fields = " ".join(f"{name}={value}" for name, value in event.fields.items())
    return f"{event.at_s:.6f} {event.node} {event.kind} {fields}"
