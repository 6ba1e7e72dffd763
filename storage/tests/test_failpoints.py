"""Failpoints: what each action does, counts, chance, and who they belong to."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

import pytest

import sim
from storage.errors import BadRequest
from storage.failpoints import Action, Failpoint, InjectedFailure, Plan, failpoint, parse_failpoint
from storage.tasks import TaskKind, TaskRegistry

POINT, OTHER = Failpoint.SK_BEFORE_FLUSH, Failpoint.SK_AFTER_WRITE


def run(main: Callable[[TaskRegistry], Coroutine[Any, Any, None]]) -> None:
    async def program() -> None:
        await main(TaskRegistry("sk0"))

    sim.run(program)


async def hits(registry: TaskRegistry, times: int) -> list[bool]:
    """Come to the point in a registered task; which hits raised."""
    raised: list[bool] = []

    async def work() -> None:
        for _ in range(times):
            try:
                await failpoint(POINT)
            except InjectedFailure:
                raised.append(True)
            else:
                raised.append(False)

    await registry.spawn(TaskKind.DISK, "work", work())
    return raised


def test_return_raises_as_often_as_planned() -> None:
    async def main(registry: TaskRegistry) -> None:
        registry.failpoints.arm(POINT, Plan(Action.RETURN, skip=1, count=2))
        assert await hits(registry, 5) == [False, True, True, False, False]
        state = next(s for s in registry.failpoints.snapshot() if s.name == POINT.value)
        assert (state.hits, state.fired) == (5, 2)

    run(main)


def test_only_the_armed_point_of_the_own_node_acts() -> None:
    async def main(registry: TaskRegistry) -> None:
        registry.failpoints.arm(OTHER, Plan(Action.RETURN))
        TaskRegistry("sk1").failpoints.arm(POINT, Plan(Action.RETURN))
        assert await hits(registry, 1) == [False]
        registry.failpoints.arm(POINT, Plan(Action.RETURN))
        await failpoint(POINT)  # No registered task.
        assert await hits(registry, 1) == [True]
        registry.failpoints.arm(POINT, Plan(Action.OFF))
        assert await hits(registry, 1) == [False]

    run(main)


@pytest.mark.row("P6.actions", worlds=("sim",))
def test_chance_is_fair_and_the_same_every_time() -> None:
    plan = Plan(Action.RETURN, probability=0.25, draw=7)
    chosen = [plan.chosen("x", hit) for hit in range(4000)]
    assert 900 < sum(chosen) < 1100
    assert chosen == [plan.chosen("x", hit) for hit in range(4000)]
    other = Plan(Action.RETURN, probability=0.25, draw=8)
    assert chosen != [other.chosen("x", hit) for hit in range(4000)]


def test_sleep_takes_its_time() -> None:
    async def main(registry: TaskRegistry) -> None:
        loop = asyncio.get_running_loop()
        registry.failpoints.arm(POINT, Plan(Action.SLEEP, delay_s=2.5))
        began_s = loop.time()
        assert await hits(registry, 1) == [False]
        assert loop.time() - began_s == pytest.approx(2.5)

    run(main)


def test_pause_lasts_until_disarmed_or_shut_down() -> None:
    async def main(registry: TaskRegistry) -> None:
        registry.failpoints.arm(POINT, Plan(Action.PAUSE))
        paused = asyncio.create_task(hits(registry, 1))
        await asyncio.wait([paused], timeout=100)
        assert not paused.done()
        assert next(s for s in registry.failpoints.snapshot() if s.waiting).name == POINT.value
        registry.failpoints.disarm(POINT)
        assert await paused == [False]
        registry.failpoints.arm(POINT, Plan(Action.PAUSE))
        paused = asyncio.create_task(hits(registry, 1))
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        await registry.shutdown(within_s=1.0)
        assert await paused == [False]

    run(main)


def test_exit_calls_die_and_never_goes_on() -> None:
    async def program() -> None:
        deaths: list[str] = []
        registry = TaskRegistry("sk0", deaths.append)
        registry.failpoints.arm(POINT, Plan(Action.EXIT))
        work = asyncio.create_task(hits(registry, 1))
        await asyncio.wait([work], timeout=10)
        assert not work.done()
        assert deaths == [f"failpoint {POINT.value}"]
        await registry.shutdown(within_s=0.1)

    sim.run(program)


def test_wrong_plans_and_names_are_refused() -> None:
    with pytest.raises(BadRequest, match="probability 2"):
        Plan(Action.RETURN, probability=2.0)
    with pytest.raises(BadRequest, match="delay_s"):
        Plan(Action.SLEEP)
    with pytest.raises(BadRequest, match="sk-before-flush"):
        parse_failpoint("nonsense")
    assert parse_failpoint(POINT.value) is POINT
