"""Whole simulated runs that must not be green, and why: each puts one thing out of order."""

from __future__ import annotations

import asyncio

import pytest

from harness.errors import CheckFailed, HarnessError, Inconclusive, NodeDied, NotLive
from harness.runner import Scenario
from harness.topology import THREE_SAFEKEEPERS, TWO_PAGESERVERS, Topology
from harness.verdict import RunSettings, Verdict
from harness.world import World
from sim.capture import LogCapture
from sim.runner import SimRunner
from sim.trace import Trace
from storage.pageserver.tenant import Tenant
from storage.roles import ROLES
from storage.safekeeper.push import PushSession
from storage.tasks import TaskKind
from storage.wire.conversation import Conversation


def verdict_and_error(scenario: Scenario) -> tuple[Verdict, BaseException | None]:
    result = SimRunner(ROLES).run(scenario, RunSettings("sim", "walgen", 1))
    return result.verdict, result.error


async def one_commit(world: World) -> None:
    cluster = await world.start(THREE_SAFEKEEPERS)
    endpoint = await cluster.endpoint("main")
    await endpoint.put(1, "a")


def test_the_story_that_the_others_spoil_is_green() -> None:
    assert verdict_and_error(one_commit) == (Verdict.PASSED, None)


def test_no_commit_proves_nothing() -> None:
    async def idle(world: World) -> None:
        await world.start(THREE_SAFEKEEPERS)

    verdict, error = verdict_and_error(idle)
    assert verdict is Verdict.INCONCLUSIVE
    assert isinstance(error, Inconclusive)


def test_commits_that_nobody_reads_back_prove_nothing() -> None:
    async def dead_in_the_end(world: World) -> None:
        await one_commit(world)
        await world.clusters[0].endpoints["main"].kill()

    verdict, error = verdict_and_error(dead_in_the_end)
    assert verdict is Verdict.INCONCLUSIVE
    assert "cannot be read back" in str(error)


@pytest.mark.parametrize(
    ("broken", "method", "what"),
    [
        (Trace, "observations", "no event says that sk0 became ready"),
        (LogCapture, "emit", "the log of sk0 is empty"),
    ],
)
def test_a_world_that_lost_its_evidence_is_an_error(monkeypatch, broken, method, what) -> None:
    monkeypatch.setattr(broken, method, lambda *_: [])

    verdict, error = verdict_and_error(one_commit)
    assert verdict is Verdict.ERROR
    assert isinstance(error, HarnessError)
    assert what in str(error)


def test_a_node_that_dies_at_its_start_is_a_failure() -> None:
    async def unknown_option(world: World) -> None:
        cluster = await world.start(Topology(compute_options={"speed": 1}))
        await cluster.endpoint("main")

    verdict, error = verdict_and_error(unknown_option)
    assert verdict is Verdict.FAILED
    assert isinstance(error, NodeDied)
    assert "speed" in str(error)


def test_a_connection_that_outlives_its_client_is_a_failure(monkeypatch) -> None:
    served = Conversation.run

    async def run(self: Conversation, *arguments: object) -> None:
        await served(self, *arguments)  # type: ignore[arg-type]
        await asyncio.sleep(3600)

    monkeypatch.setattr(Conversation, "run", run)

    verdict, error = verdict_and_error(one_commit)
    assert verdict is Verdict.FAILED
    assert isinstance(error, NotLive)
    assert "lets go of its clients" in str(error)
    assert "wire_connection main:" in str(error)


async def machine_dies(world: World) -> None:
    """A primary of which no end is heard, and its successor."""
    await one_commit(world)
    endpoint = world.clusters[0].endpoints["main"]
    await endpoint.nodes[0].kill(host=True)
    await endpoint.disconnect()
    await endpoint.start()


def test_a_proposer_whose_machine_died_is_let_go_in_time() -> None:
    assert verdict_and_error(machine_dies) == (Verdict.PASSED, None)


def test_a_proposer_that_is_served_although_its_machine_died_is_a_failure(monkeypatch) -> None:
    monkeypatch.setattr(PushSession, "tick", lambda self: None)

    verdict, error = verdict_and_error(machine_dies)
    assert verdict is Verdict.FAILED
    assert isinstance(error, NotLive)
    assert "hangs up on the silent" in str(error)
    assert "still serves 1 proposers" in str(error)


def test_a_task_that_outlives_its_tenant_is_a_failure(monkeypatch) -> None:
    stop = Tenant.stop

    async def leave_one(self: Tenant, *, flush_within_s: float) -> None:
        await stop(self, flush_within_s=flush_within_s)
        registry = self.environment.registry
        registry.spawn(TaskKind.GC, "forgotten", asyncio.sleep(3600), tenant_id=self.tenant_id)

    monkeypatch.setattr(Tenant, "stop", leave_one)

    async def move(world: World) -> None:
        cluster = await world.start(TWO_PAGESERVERS)
        endpoint = await cluster.endpoint("main")
        await endpoint.put(1, "a")
        old, new = cluster.pageservers
        await new.attach(endpoint.timeline.tenant_id)
        await cluster.caught_up(new, endpoint.timeline)
        await endpoint.move(new)
        await old.detach(endpoint.timeline.tenant_id)

    verdict, error = verdict_and_error(move)
    assert verdict is Verdict.FAILED
    assert isinstance(error, CheckFailed)
    assert "ps0 still runs for tenant" in str(error)
    assert "gc forgotten" in str(error)


@pytest.mark.parametrize("host", [False, True])
def test_nodes_that_die_leave_no_connection_at_the_others(host: bool) -> None:
    async def deaths(world: World) -> None:
        cluster = await world.start(THREE_SAFEKEEPERS)
        endpoint = await cluster.endpoint("main")
        await endpoint.put(1, "a")
        await cluster.pageserver(0).kill(host=host)
        await endpoint.put(1, "b")
        await endpoint.nodes[0].kill(host=host)
        await endpoint.disconnect()
        await cluster.pageserver(0).start()
        await endpoint.start()
        await cluster.safekeeper(0).kill(host=host)
        await endpoint.put(1, "c")

    assert verdict_and_error(deaths) == (Verdict.PASSED, None)
