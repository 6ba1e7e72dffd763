"""A pageserver dies at every await of what administrators ask for, one run for each.

Points are the suspensions of the tasks that take part. The node comes back on its disk, on what a
power cut left of it, or on an empty one. Whatever was asked for is done or undone as a whole, in S3
and locally; what was acknowledged survives the loss of the disk; asking again ends it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

import pytest

from harness.fault_ports import Loss
from storage.http.client import HttpError
from storage.lsn import Lsn
from storage.pageserver import deletion
from storage.pageserver.tenant import Tenant
from storage.pageserver.tenants import Tenants
from storage.pageserver.timeline import Timeline
from storage.tasks import TaskKind
from storage.tests.await_points import Points, count_tasks
from storage.tests.pageserver_pair import (
    CHILD,
    SECOND,
    TENANT_PATH,
    UNANSWERED,
    Killer,
    Pair,
    run_pair,
    timeline_path,
)
from storage.tests.pageserver_world import TIMELINE

KINDS = (
    TaskKind.ATTACH,
    TaskKind.DELETION,
    TaskKind.UPLOAD,
    TaskKind.LAYER_FLUSH,
    TaskKind.SECONDARY,
)
WAYS = ("process", "power", "wiped")
"""What dies, and what is left of the disk."""


@dataclass(frozen=True)
class Death:
    """Whether the request was acknowledged, and the node's disk was lost."""

    acknowledged: bool
    wiped: bool


async def refused(request: Awaitable[object], status: int) -> None:
    with pytest.raises(HttpError) as caught:
        await request
    assert caught.value.status == status, caught.value


# Branches.


async def branch(pair: Pair) -> None:
    body = {"timeline_id": CHILD, "ancestor_timeline_id": TIMELINE}
    await pair.http("ps0", "POST", f"{TENANT_PATH}/timeline", body)


async def branch_is_whole_or_nothing(pair: Pair, death: Death) -> None:
    """An unacknowledged branch may be there: then it is whole, like one that is asked for again."""
    if not await pair.active("ps0"):
        assert death.wiped
        await pair.attach("ps0")
    shown = await pair.http("ps0", "GET", TENANT_PATH)
    objects = await pair.objects(CHILD)
    if CHILD in shown["timelines"]:
        assert objects
        await branch_is_whole(pair)
    else:
        assert not death.acknowledged, "an acknowledged branch is gone"
        assert objects == [], "half of a branch is in S3"
        assert pair.files("ps0", CHILD) == [], "half of a branch is on disk"
    if pair.history.ends[30] > await last_record(pair):
        await pair.catch_up("ps0", TIMELINE)
    await branch(pair)
    await branch_is_whole(pair)


async def last_record(pair: Pair) -> Lsn:
    return Lsn.parse((await pair.http("ps0", "GET", timeline_path(TIMELINE)))["last_record_lsn"])


async def branch_is_whole(pair: Pair) -> None:
    shown = await pair.http("ps0", "GET", timeline_path(CHILD))
    assert shown["ancestor_timeline_id"] == TIMELINE
    assert shown["ancestor_lsn"] == shown["last_record_lsn"]
    await pair.catch_up("ps0", TIMELINE)
    await pair.check_pages("ps0", CHILD, Lsn.parse(shown["ancestor_lsn"]))
    await refused(pair.http("ps0", "DELETE", timeline_path(TIMELINE)), 409)


# Deletions.


async def delete(pair: Pair) -> None:
    await pair.http("ps0", "DELETE", timeline_path(SECOND))


async def deletion_is_final(pair: Pair, death: Death) -> None:
    """It is all there, or gone for ever; asking again ends it, and leaves a tombstone only."""
    if not await pair.active("ps0"):
        assert death.wiped
        await pair.attach("ps0")
    shown = await pair.http("ps0", "GET", TENANT_PATH)
    if SECOND in shown["timelines"]:
        assert not death.acknowledged, "an acknowledged deletion is undone"
        await pair.catch_up("ps0", SECOND)
        await pair.check_pages("ps0", SECOND, pair.history.end)
        await delete(pair)
    await refused(delete(pair), 404)
    body = {"timeline_id": SECOND, "start_lsn": str(pair.history.start), "pg_version": 15}
    await refused(pair.http("ps0", "POST", f"{TENANT_PATH}/timeline", body), 409)
    await asyncio.sleep(2)
    (tombstone,) = await pair.objects(SECOND)
    assert "index-" in tombstone
    assert pair.files("ps0", SECOND) == []
    await pair.backend.kill("ps0")
    await pair.start("ps0")
    assert await pair.active("ps0")
    assert (await pair.http("ps0", "GET", TENANT_PATH))["timelines"] == [TIMELINE]
    await pair.catch_up("ps0", TIMELINE)
    await pair.check_pages("ps0", TIMELINE, pair.history.end)


# Attachments.


async def all_is_well(pair: Pair, name: str) -> None:
    """A tenant is whole where it is attached, and takes branches."""
    for timeline_id in (TIMELINE, SECOND):
        await pair.catch_up(name, timeline_id)
        await pair.check_pages(name, timeline_id, pair.history.ends[20])
        await pair.check_pages(name, timeline_id, pair.history.end)
    generations = {
        generation for found in (await pair.bucket()).indexes.values() for generation in found
    }
    shown = await pair.http(name, "GET", TENANT_PATH)
    assert max(generations) <= shown["generation"]
    assert not shown["superseded"]


async def detach(pair: Pair) -> None:
    await pair.http("ps0", "POST", f"{TENANT_PATH}/detach")


async def attach(pair: Pair) -> None:
    await pair.attach("ps0")


async def attached_in_the_end(pair: Pair, death: Death) -> None:
    if not await pair.active("ps0"):
        assert death.wiped or not death.acknowledged, "an acknowledged attachment is undone"
    await attach(pair)
    await all_is_well(pair, "ps0")


async def detached_in_the_end(pair: Pair, death: Death) -> None:
    """What was only in memory may be lost: safekeepers have it."""
    if await pair.active("ps0"):
        assert not death.acknowledged, "an acknowledged detach is undone"
        await detach(pair)
    assert pair.files("ps0", TIMELINE) == []
    await attach(pair)
    await all_is_well(pair, "ps0")


async def migrate(pair: Pair) -> None:
    await pair.http("ps1", "POST", f"{TENANT_PATH}/warm")
    await pair.attach("ps1")
    await detach(pair)


async def migrated_in_the_end(pair: Pair, death: Death) -> None:
    """Whoever died, and wherever: the same requests once more, and it lives on ``ps1`` only."""
    await pair.active("ps0")
    await pair.attach("ps1")
    if await pair.active("ps0"):
        assert not death.acknowledged
        assert (await pair.http("ps0", "GET", TENANT_PATH))["generation"] <= 3
        await detach(pair)
    assert not await pair.active("ps0")
    assert pair.files("ps0", TIMELINE) == []
    await all_is_well(pair, "ps1")


async def nothing(pair: Pair) -> None:
    assert await pair.active("ps0")


Step = Callable[[Pair], Awaitable[None]]


@dataclass(frozen=True)
class Operation:
    """``ask`` after ``prepare``; ``judge`` looks at what came of it. ``points`` at least."""

    ask: Step
    judge: Callable[[Pair, Death], Awaitable[None]]
    points: int
    prepare: Step = nothing
    nodes: tuple[str, ...] = ("ps0",)


OPERATIONS = {
    "branch": Operation(branch, branch_is_whole_or_nothing, 15),
    "delete": Operation(delete, deletion_is_final, 15),
    "attach": Operation(attach, attached_in_the_end, 30, prepare=detach),
    "detach": Operation(detach, detached_in_the_end, 20),
    "migrate": Operation(migrate, migrated_in_the_end, 60, nodes=("ps0", "ps1")),
}


@pytest.fixture
def killer(monkeypatch: pytest.MonkeyPatch) -> Killer:
    killer = Killer()
    count_tasks(monkeypatch, killer.points, lambda node: node.startswith("ps"), KINDS)
    return killer


def run_once(killer: Killer, operation: Operation, target: int | None, way: str) -> bool:
    """Ask for an operation, killed at one point, or (beyond the last) once it is all over; returns
    whether it was acknowledged. Without a target nothing dies."""
    killer.points.begin(target)
    killer.host = way == "power"

    async def story(pair: Pair) -> bool:
        killer.backend = pair.backend
        await operation.prepare(pair)
        killer.points.active = True
        acknowledged = True
        try:
            await operation.ask(pair)
        except UNANSWERED:
            acknowledged = False
        await asyncio.sleep(1)
        killer.points.active = False
        if target is not None and all(map(pair.backend.running, operation.nodes)):
            await pair.backend.kill(operation.nodes[-1], host=killer.host, loss=Loss.EVERYTHING)
        for name in operation.nodes:
            if not pair.backend.running(name):
                await pair.come_back(name, wiped=way == "wiped")
        await operation.judge(pair, Death(acknowledged, way == "wiped"))
        return acknowledged

    return run_pair(story, *operation.nodes)


@pytest.mark.parametrize("name", OPERATIONS)
def test_death_at_any_await_leaves_all_or_nothing(name: str, killer: Killer) -> None:
    operation = OPERATIONS[name]
    assert run_once(killer, operation, None, "process")
    count = killer.points.seen
    assert count >= operation.points, f"{name} waits at {count} places only"
    for point in range(count + len(WAYS)):
        way = WAYS[point % len(WAYS)]
        try:
            acknowledged = run_once(killer, operation, point, way)
        except Exception as error:
            pytest.fail(f"{way} at point {point} of {count}, in {killer.points.where}: {error!r}")
        assert not acknowledged or point, "it was acknowledged before it began"
        assert acknowledged or point < count, "it was never acknowledged"


def test_a_deletion_that_does_not_wait_for_its_tombstone_is_seen(
    killer: Killer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Which is what makes the runs above worth something."""
    begin = deletion._begin

    def begin_hastily(tenants: Tenants, tenant: Tenant, timeline: Timeline) -> None:
        begin(tenants, tenant, timeline)
        timeline.tombstone_stored.set()

    monkeypatch.setattr(deletion, "_begin", begin_hastily)
    with pytest.raises(AssertionError, match=SECOND):
        run_once(killer, OPERATIONS["delete"], None, "process")


def test_a_parent_that_is_deleted_at_any_await_of_a_branch(monkeypatch: pytest.MonkeyPatch) -> None:
    """One of the two requests is refused, and the other one is carried out whole."""
    at_point: list[asyncio.Event] = []
    points = Points(lambda _: at_point[-1].set(), both_ends=True)
    count_tasks(monkeypatch, points, lambda node: node == "ps0", [TaskKind.ATTACH])

    async def story(pair: Pair) -> bool:
        at_point.append(asyncio.Event())

        async def delete_parent() -> bool:
            await at_point[-1].wait()
            try:
                await pair.http("ps0", "DELETE", timeline_path(TIMELINE))
            except HttpError as error:
                assert error.status == 409, error
                return False
            return True

        deleting = asyncio.create_task(delete_parent())
        points.active = True
        try:
            await branch(pair)
            branched = True
        except HttpError as error:
            assert error.status in (404, 409), error
            branched = False
        points.active = False
        at_point[-1].set()
        assert await deleting is not branched
        if branched:
            await branch_is_whole(pair)
        else:
            assert await pair.objects(CHILD) == []
        return branched

    points.begin(None)
    assert run_pair(story, "ps0")
    for point in range(points.seen):
        points.begin(point)
        run_pair(story, "ps0")
