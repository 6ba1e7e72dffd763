"""Oracles online: the first broken promise ends the run there, whatever else goes wrong then."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable

import pytest

import sim
from harness.backend import Event
from harness.checkers.commit_order import CommitOrder
from harness.checkers.watch import Watch
from harness.errors import CheckFailed
from harness.history import History, Kind
from harness.tests.histories import CLIENT
from storage.lsn import Lsn


class Touchy:
    """Fails at the event of kind "bad"; only "quiet" ones are nothing to compare."""

    def observe(self, event: Event) -> bool:
        if event.kind == "bad":
            raise CheckFailed(f"bad at {event.at_s}", checker="touchy")
        return event.kind != "quiet"


def watch() -> Watch:
    found = Watch(Counter({"touchy": 0}))
    found.add(of_events={"touchy": Touchy()})
    return found


def event(kind: str, at_s: float = 1.0) -> Event:
    return Event(at_s, "sk0", kind, {})


def play(scenario: Callable[[Watch], Awaitable[None]]) -> Watch:
    found = watch()

    async def main() -> None:
        with found.over_run():
            await scenario(found)

    sim.run(main, seed=1)
    return found


async def bad_things(found: Watch) -> None:
    await asyncio.sleep(5)
    found.take(event("bad", 5.0))
    found.take(event("bad", 6.0))


def test_what_is_fine_is_counted() -> None:
    found = watch()
    found.judge([event("good"), event("quiet"), event("good")])
    assert found.judged == {"touchy": 2}


def test_a_violation_in_another_task_ends_a_run_that_waits() -> None:
    ended_at_s = 0.0

    async def scenario(found: Watch) -> None:
        nonlocal ended_at_s
        beside = asyncio.create_task(bad_things(found))
        began_s = asyncio.get_running_loop().time()
        try:
            await asyncio.sleep(1000)
        finally:
            ended_at_s = asyncio.get_running_loop().time() - began_s
            await beside

    with pytest.raises(CheckFailed, match=r"bad at 5\.0"):
        play(scenario)
    assert ended_at_s == pytest.approx(5.0)


@pytest.mark.parametrize("end", [RuntimeError("late"), None])
def test_a_violation_outlives_what_the_scenario_makes_of_its_end(end: Exception | None) -> None:
    async def scenario(found: Watch) -> None:
        beside = asyncio.create_task(bad_things(found))
        try:
            await asyncio.sleep(1000)
        except asyncio.CancelledError:
            await beside
            if end is not None:
                raise end from None

    with pytest.raises(CheckFailed, match=r"bad at 5\.0"):
        play(scenario)


def test_other_failures_pass_and_a_cancellation_that_is_not_ours_too() -> None:
    async def scenario(found: Watch) -> None:
        found.take(event("good"))
        raise KeyError("of the scenario")

    with pytest.raises(KeyError):
        play(scenario)

    async def cancelled(found: Watch) -> None:
        raise asyncio.CancelledError

    with pytest.raises(asyncio.CancelledError):
        play(cancelled)


def test_after_the_run_a_violation_waits_for_who_asks() -> None:
    found = play(lambda each: asyncio.sleep(1))
    found.take(event("bad"))
    with pytest.raises(CheckFailed):
        found.judge([event("good")])
    assert found.judged == {"touchy": 0}


def test_a_stale_answer_ends_the_run_at_once() -> None:
    history = History()
    found = Watch(Counter())
    found.add(of_operations={"commit_order": CommitOrder(history)})
    history.follow(found)

    async def main() -> None:
        with found.over_run():
            for number, lsn in enumerate((8, 24, 16, 32)):
                index = history.invoke(CLIENT, Kind.PUT, (1, f"{number}"), float(number))
                history.succeed(index, number + 0.5, None, Lsn(lsn))
                await asyncio.sleep(0)

    with pytest.raises(CheckFailed, match=r"#2 .* has a lower LSN than #1 "):
        sim.run(main, seed=1)
    assert len(history) == 3
    assert found.judged == {"commit_order": 2}
