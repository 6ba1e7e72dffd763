"""Runs that the seed does not decide alone are found, and where they part."""

from __future__ import annotations

import asyncio
import itertools
import os

import pytest

from harness.backend import Event
from harness.reproducible import EVERY, NotReproducible, is_sampled, run_and_sample
from harness.runner import Evidence, RunResult, Scenario
from harness.topology import THREE_SAFEKEEPERS
from harness.verdict import RunSettings, Verdict
from harness.world import World
from sim.runner import SimRunner
from storage.roles import ROLES

NODEID = "scenarios/test_of_tests.py::test_something"
SAMPLED = next(seed for seed in range(EVERY) if is_sampled(NODEID, seed))


class ScriptedRunner:
    """Runs nothing; every call returns the next of some results."""

    world = "sim"
    computes = ("walgen",)

    def __init__(self, *results: tuple[str, list[Event]]) -> None:
        self.results = itertools.cycle(results)
        self.runs = 0

    def run(self, scenario: Scenario, settings: RunSettings) -> RunResult:
        self.runs += 1
        digest, events = next(self.results)
        evidence = Evidence(events=events)
        return RunResult(settings, Verdict.PASSED, None, digest, 1, 1, 1.0, 0.1, evidence)

    def close(self) -> None:
        pass


async def nothing(world: World) -> None:
    pass


def event(value: int) -> Event:
    return Event(1.5, "sk0", "lsn", {"value": value})


def test_the_sample_can_be_turned_off() -> None:
    runner = ScriptedRunner(("a", []), ("b", []))
    result = run_and_sample(runner, nothing, RunSettings("sim", "walgen", SAMPLED), NODEID, every=0)
    assert result.verdict is Verdict.PASSED
    assert runner.runs == 1


@pytest.mark.parametrize(
    ("digest", "seed", "runs"),
    [("a", SAMPLED, 2), ("a", SAMPLED + EVERY, 2), ("a", SAMPLED + 1, 1), ("", SAMPLED, 1)],
)
def test_which_runs_are_in_the_sample(digest: str, seed: int, runs: int) -> None:
    runner = ScriptedRunner((digest, []))
    result = run_and_sample(runner, nothing, RunSettings("sim", "walgen", seed), NODEID)
    assert result.verdict is Verdict.PASSED
    assert runner.runs == runs


def test_one_seed_of_all_scenarios_is_a_sample_too() -> None:
    sampled = [number for number in range(100 * EVERY) if is_sampled(f"test_{number}", 0)]
    assert 70 <= len(sampled) <= 130


@pytest.mark.parametrize(
    ("other", "where"),
    [
        (
            [event(1), event(3)],
            r"event 1 is the first that differs:\n    both  1.500000 sk0 lsn value=1\n"
            r"  > first 1.500000 sk0 lsn value=2\n    first 1.500000 sk0 lsn value=9\n"
            r"  > next  1.500000 sk0 lsn value=3$",
        ),
        (
            [event(1)],
            r"> first 1.500000 sk0 lsn value=2\n    first .*value=9\n  > next  \(no more events\)",
        ),
        (
            [event(1), event(2), event(9)],
            "every event is the same, but not the trace: nothing that was kept differs",
        ),
    ],
)
def test_the_first_difference_is_named(other: list[Event], where: str) -> None:
    runner = ScriptedRunner(("a", [event(1), event(2), event(9)]), ("b", other))
    result = run_and_sample(runner, nothing, RunSettings("sim", "walgen", SAMPLED), NODEID)
    assert result.verdict is Verdict.ERROR
    assert isinstance(result.error, NotReproducible)
    with pytest.raises(NotReproducible, match=where):
        raise result.error


def test_a_difference_that_no_event_shows_is_found_in_the_trace() -> None:
    async def idles(world: World) -> None:
        for _ in range(3):
            await asyncio.sleep(0.25 * next(counter))

    counter = itertools.count(1)
    result = run_and_sample(SimRunner(ROLES), idles, RunSettings("sim", "walgen", SAMPLED), NODEID)
    assert isinstance(result.error, NotReproducible)
    assert "every event is the same, but not the trace: event" in str(result.error)
    assert "> first (" in str(result.error)


def test_a_scenario_that_looks_outside_is_found() -> None:
    async def curious(world: World) -> None:
        cluster = await world.start(THREE_SAFEKEEPERS)
        endpoint = await cluster.endpoint("main")
        await endpoint.put(1, "x" * (1 + next(counter)))

    counter = itertools.count(os.getpid() % 7)
    result = run_and_sample(
        SimRunner(ROLES), curious, RunSettings("sim", "walgen", SAMPLED), NODEID
    )
    assert result.verdict is Verdict.ERROR
    assert "event" in str(result.error)
