"""Every pageserver is lost at the end of a run: what only its disk had is missed then."""

from __future__ import annotations

import pytest

from harness.checkers.bucket_watch import BucketWatch
from harness.errors import CheckFailed
from harness.runner import RunResult, Scenario
from harness.topology import THREE_SAFEKEEPERS, TWO_PAGESERVERS
from harness.verdict import RunSettings, Verdict
from harness.world import World
from sim.runner import SimRunner
from storage.roles import ROLES


def run(scenario: Scenario) -> RunResult:
    return SimRunner(ROLES).run(scenario, RunSettings("sim", "walgen", 5))


async def branches(world: World) -> None:
    cluster = await world.start(TWO_PAGESERVERS)
    main = await cluster.endpoint("main")
    await main.txn({key: f"{key}" for key in range(64)})
    await cluster.pageserver(0).checkpoint(main.timeline)
    branch = await cluster.endpoint("branch", timeline=await cluster.branch(main.timeline))
    await main.put(1, "in the parent")
    await branch.put(1, "in the branch")


def test_what_is_whole_is_compared_on_every_timeline() -> None:
    result = run(branches)
    assert result.verdict is Verdict.PASSED, result.error
    assert result.evidence.judged["reattachment"] == result.evidence.judged["pages_equal_wal"] > 4
    states = [
        str(event.fields["state"])
        for event in result.evidence.events
        if event.kind == "process" and event.node == "ps0"
    ]
    assert states.count("wiped") == 1
    assert states[-1] == "stopped"


async def lose_a_layer(world: World) -> None:
    """A layer is gone from S3, but the pageserver still has it on disk."""
    cluster = await world.start(THREE_SAFEKEEPERS)
    main = await cluster.endpoint("main")
    await main.put(1, "a")
    await cluster.caught_up(cluster.pageserver(0), main.timeline)
    await cluster.pageserver(0).checkpoint(main.timeline)
    objects = world.backend.admin_objects()
    layers = [info.key for info in await objects.list("pageserver/") if "/layers/" in info.key]
    assert layers
    for key in layers:
        await objects.delete(key)
    await main.put(2, "b")


def test_what_only_a_disk_had_is_missed(monkeypatch: pytest.MonkeyPatch) -> None:
    """The scrub of the bucket sees this loss earlier, unless it is blind."""
    monkeypatch.setattr(BucketWatch, "observe", lambda watch, event: False)
    error = run(lose_a_layer).error
    assert isinstance(error, CheckFailed), error
    assert error.checker == "reattachment"
    assert str(error).startswith("after ps0 lost its disk at the end and attached its tenants anew")


async def without_a_majority(world: World) -> None:
    cluster = await world.start(THREE_SAFEKEEPERS)
    await (await cluster.endpoint("main")).put(1, "a")
    for safekeeper in cluster.safekeepers[:2]:
        await safekeeper.kill()


def test_without_a_majority_nothing_is_owed() -> None:
    result = run(without_a_majority)
    assert result.verdict is Verdict.PASSED, result.error
    assert result.evidence.judged["reattachment"] == 0


@pytest.mark.parametrize("seed", range(3))
def test_the_same_seed_is_the_same_run(seed: int) -> None:
    settings = RunSettings("sim", "walgen", seed)
    digests = {SimRunner(ROLES).run(branches, settings).digest for _ in range(2)}
    assert len(digests) == 1
