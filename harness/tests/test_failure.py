"""Failures as data: each kind is reached by whole simulated runs, with its place and faults."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable

import pytest

from harness.backend import Event, NodeSpec
from harness.errors import CheckFailed, Inconclusive, NotYet
from harness.failure import failure_of, place_of, struck
from harness.faulting.campaign import run_campaign
from harness.faulting.fault import Strike
from harness.faulting.plan import AfterCommits, Plan, Step
from harness.runner import RunResult, Scenario
from harness.topology import THREE_SAFEKEEPERS
from harness.verdict import Failure, RunRecord, RunSettings, Verdict, exit_code
from harness.world import World
from sim.runner import SimRunner
from storage.node import NodeContext
from storage.roles import ROLES


async def crashes(context: NodeContext) -> None:
    raise RuntimeError("out of ideas")


def result_of(scenario: Scenario) -> RunResult:
    runner = SimRunner({**ROLES, "crashes": crashes})
    return runner.run(scenario, RunSettings("sim", "walgen", 1))


async def wrong_answer(world: World) -> None:
    cluster = await world.start(THREE_SAFEKEEPERS)
    endpoint = await cluster.endpoint("main")
    await endpoint.put(1, "a")
    assert await endpoint.get(1) == "b"


async def lost_in_the_history(world: World) -> None:
    raise CheckFailed("key 1 is gone", checker="ledger")


async def never(world: World) -> None:
    await world.start(THREE_SAFEKEEPERS)

    async def impossible() -> None:
        raise NotYet("it is not so")

    await world.eventually(impossible, within_s=1.0, what="the impossible")


async def waits_for_nobody(world: World) -> None:
    await asyncio.get_running_loop().create_future()


async def spins(world: World) -> None:
    while True:  # noqa: ASYNC110
        await asyncio.sleep(0)


async def node_dies(world: World) -> None:
    await world.backend.spawn(NodeSpec("n0", "crashes", {}))
    await world.backend.wait_ready("n0", within_s=1.0)


async def complains(world: World) -> None:
    cluster = await world.start(THREE_SAFEKEEPERS)
    endpoint = await cluster.endpoint("main")
    await endpoint.put(1, "a")
    logging.getLogger("scenario").error("something is odd")


async def nothing_happens(world: World) -> None:
    await world.start(THREE_SAFEKEEPERS)


@pytest.mark.parametrize(
    ("scenario", "verdict", "kind", "oracle", "place"),
    [
        (wrong_answer, "failed", "safety", "AssertionError", "test_failure.py wrong_answer"),
        (lost_in_the_history, "failed", "safety", "CheckFailed: ledger", "lost_in_the_history"),
        (never, "failed", "liveness", "NotLive: eventually", "harness/"),
        (waits_for_nobody, "failed", "liveness", "NotLive: deadlock", ""),
        (spins, "failed", "liveness", "NotLive: livelock", ""),
        (node_dies, "failed", "crash", "NodeDied: node died", "sim/backend.py wait_ready"),
        (complains, "failed", "crash", "CheckFailed: logs", "harness/checkers/logs.py check_logs"),
        (nothing_happens, "inconclusive", "inconclusive", "Inconclusive", "harness/runner.py play"),
    ],
)
def test_every_kind_is_reached(
    scenario: Scenario, verdict: str, kind: str, oracle: str, place: str
) -> None:
    result = result_of(scenario)
    failure = failure_of(result)

    assert failure is not None
    assert (result.verdict, failure.kind, failure.oracle) == (verdict, kind, oracle)
    assert place in failure.place


def test_a_green_run_has_no_failure_and_counts_its_marks() -> None:
    async def fine(world: World) -> None:
        cluster = await world.start(THREE_SAFEKEEPERS)
        endpoint = await cluster.endpoint("main")
        await endpoint.put(1, "a")
        await cluster.safekeeper(0).kill()
        await endpoint.restart()
        assert await endpoint.get(1) == "a"

    result, again = result_of(fine), result_of(fine)
    assert result.error is None
    assert failure_of(result) is None
    assert result.evidence.marks == again.evidence.marks
    assert result.digest == again.digest


def plan(*steps: Step) -> Plan:
    return Plan("calm", THREE_SAFEKEEPERS, steps, 2.0, ("sk0", "sk1"), clients=1)


def test_a_plan_without_effect_proves_nothing() -> None:
    async def campaign(world: World) -> None:
        await run_campaign(world, plan(Step("kill", Strike(("sk2",)), AfterCommits(100_000))))

    result = result_of(campaign)
    assert result.verdict is Verdict.INCONCLUSIVE
    assert isinstance(result.error, Inconclusive)
    assert "no fault of the plan had an effect" in str(result.error)


def test_faults_that_struck_before_the_failure_are_named() -> None:
    async def campaign(world: World) -> None:
        steps = [Step("kill", Strike(("sk2",)), AfterCommits(1), 0.1) for _ in range(2)]
        await run_campaign(world, plan(*steps))
        raise CheckFailed("key 1 is gone", checker="ledger")

    result = result_of(campaign)
    failure = failure_of(result)
    assert failure is not None
    assert failure.faults == ("kill",)
    assert result.evidence.faults == {"kill": 1}  # The second found its target taken.
    events = [Event(0.0, "harness", "fault", {"verb": "reset", "source": "a"})]
    assert struck(events) == ()


def test_places_leave_out_what_is_not_ours() -> None:
    def raised(work: Callable[[], object]) -> BaseException:
        try:
            work()
        except Exception as error:
            return error
        raise AssertionError("nothing was raised")

    error = raised(lambda: asyncio.run(asyncio.wait_for(asyncio.sleep(9), -1)))
    assert place_of(error.__traceback__) == "harness/tests/test_failure.py <lambda>"
    assert place_of(None) == ""


def test_records_keep_failure_and_marks() -> None:
    failure = Failure("safety", "CheckFailed: ledger", "x.py check", ("kill", "pause"))
    settings = RunSettings("sim", "walgen", 7)
    record = RunRecord(
        "a.py::test", settings, Verdict.FAILED, "lost", "d", 1, 1, 1.0, 1.0, "", failure, {"cut": 2}
    )

    assert RunRecord.from_json(record.to_json()) == record
    assert failure.group == "safety: CheckFailed: ledger in x.py check"


@pytest.mark.parametrize(
    ("verdicts", "code"),
    [
        ({}, 0),
        ({Verdict.PASSED: 9}, 0),
        ({Verdict.PASSED: 9, Verdict.INCONCLUSIVE: 1}, 3),
        ({Verdict.ERROR: 1, Verdict.INCONCLUSIVE: 1}, 2),
        ({Verdict.ERROR: 1, Verdict.FAILED: 1}, 1),
        ({Verdict.FAILED: 0, Verdict.PASSED: 1}, 0),
    ],
)
def test_the_worst_verdict_decides_the_exit_code(verdicts: dict[Verdict, int], code: int) -> None:
    assert exit_code(verdicts) == code
