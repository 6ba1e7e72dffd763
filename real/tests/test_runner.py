"""What happens in the scenario's own process is judged as in the simulation."""

import asyncio
import logging

import pytest

from harness.errors import CheckFailed, ScenarioFailed
from harness.runner import RunResult
from harness.topology import THREE_SAFEKEEPERS
from harness.verdict import RunSettings, Verdict
from real.runner import RealRunner
from sim.runner import SimRunner
from storage.roles import ROLES


@pytest.fixture(scope="module")
def runners():
    real = RealRunner()
    yield {"real": real, "sim": SimRunner(ROLES)}
    real.close()


@pytest.fixture(params=["sim", "real"])
def run(request, runners):
    def run(scenario) -> RunResult:
        settings = RunSettings(request.param, "walgen", 0)
        return runners[request.param].run(scenario, settings)

    return run


async def one_commit(world):
    cluster = await world.start(THREE_SAFEKEEPERS)
    endpoint = await cluster.endpoint("main")
    await endpoint.put(1, "a")


def test_a_quiet_run_passes(run):
    assert run(one_commit).error is None


def test_a_task_of_the_scenario_that_fails_unheard_fails_the_run(run):
    async def careless(world):
        async def watch():
            raise CheckFailed("the watcher saw it", checker="watcher")

        task = asyncio.create_task(watch())
        await one_commit(world)
        del task

    result = run(careless)
    assert result.verdict is Verdict.FAILED
    if isinstance(result.error, ScenarioFailed):
        assert isinstance(result.error.__cause__, CheckFailed)
    assert "the watcher saw it" in str(result.error)


def test_a_warning_of_the_harness_fails_the_run_unless_it_is_expected(run):
    async def warned(world):
        await one_commit(world)
        logging.getLogger("harness.example").warning("something is odd")

    result = run(warned)
    assert result.verdict is Verdict.FAILED
    assert "something is odd" in str(result.error)
    assert [line.node for line in result.evidence.logs if line.level == "WARNING"] == ["harness"]

    async def expected(world):
        world.expect_log("is odd", reason="it is on purpose", node="harness")
        await warned(world)

    assert run(expected).error is None
