"""The write path is cancelled at every one of its await points, one run for each (SYSTEM.md E2).

A point is a suspension of a task of safekeeper ``sk0`` that takes part in writing: a proposer's
connection, a decision, the flusher. Whatever was dropped there, the node is either down with a
last word, or it goes on as if nothing had happened; it never lives on with a state of its own.
"""

from __future__ import annotations

import asyncio
from contextlib import nullcontext

import pytest

from storage.registration import TaskKind
from storage.safekeeper.fuse import Fuse
from storage.tasks import TaskRegistry
from storage.tests.await_points import Points, count_tasks
from storage.tests.safekeeper_cluster import Cluster, Writer, run_cluster

NODE = "sk0"
WRITERS = (TaskKind.WIRE_CONNECTION, TaskKind.DISK)
GROUPS = 12
RECORD = bytes(10)
TAIL = 40
"""Records that only ``sk0`` has. What replaces them is as long, so that what is left of them after
a cut that was dropped half way would follow on it without a seam."""

OPTIONS = {"control_file_save_s": 0.2}
LAST_WORDS = ("was dropped half way: CancelledError", "critical task disk ")


def cancel_task(_: TaskRegistry) -> None:
    task = asyncio.current_task()
    assert task is not None
    asyncio.get_running_loop().call_soon(task.cancel)


@pytest.fixture
def points(monkeypatch: pytest.MonkeyPatch) -> Points:
    points = Points(cancel_task)
    count_tasks(monkeypatch, points, lambda node: node == NODE, WRITERS)
    return points


async def write_path(cluster: Cluster, points: Points) -> None:
    """Two elections, small and large records, a segment's border, a cut, control file saves."""
    points.active = True
    proposer = cluster.proposer(1)
    async with asyncio.timeout(120):
        writer = Writer(proposer, (await proposer.elect()).start_lsn)
    for size in (10, 300_000, 800_000, 10, 20_000, 10):
        await writer.commit(bytes(size))
    await asyncio.sleep(1)
    for name in cluster.names[1:]:
        cluster.backend.network.cut("harness", name)
    prev_lsn = writer.wal.prev_lsn
    writer.write(*[RECORD] * TAIL)
    await asyncio.sleep(0.5)
    await proposer.close()
    for name in cluster.names[1:]:
        cluster.backend.network.heal("harness", name)
    cluster.backend.network.cut("harness", NODE)
    proposer = cluster.proposer(2)
    async with asyncio.timeout(120):
        writer = Writer(proposer, (await proposer.elect()).start_lsn, prev_lsn)
    await writer.commit(RECORD)
    cluster.backend.network.heal("harness", NODE)
    for _ in range(2):
        await writer.commit(RECORD)
    await asyncio.sleep(10)
    points.active = False
    await judge(cluster, writer)
    await proposer.close()


async def judge(cluster: Cluster, writer: Writer) -> None:
    """The node has died with a word or works; and what it says of itself is what it has on disk."""
    reason = cluster.backend.died(NODE)
    if reason is not None:
        assert any(word in reason for word in LAST_WORDS), reason
        await cluster.start(NODE)
    end = await writer.commit(RECORD)
    await cluster.level(end)
    assert len(await cluster.digests(end)) == 1
    before = await cluster.status(NODE)
    await cluster.backend.kill(NODE)
    await cluster.start(NODE)
    after = await cluster.status(NODE)
    for name in ("term", "term_history", "flush_lsn"):
        assert after[name] == before[name], f"{name} was not what the disk had"


def run_once(points: Points, target: int | None) -> bool:
    """Run the path, cancelled at one point; returns whether the node went down for it."""
    points.begin(target)

    async def story(cluster: Cluster) -> bool:
        died: list[str | None] = []
        start = cluster.start

        async def start_noting(*names: str) -> None:
            died.append(cluster.backend.died(NODE))
            await start(*names)

        cluster.start = start_noting  # type: ignore[method-assign]
        await write_path(cluster, points)
        return any(reason is not None for reason in died)

    return run_cluster(story, **OPTIONS)


@pytest.fixture(scope="module")
def outcomes() -> dict[int, bool]:
    return {}


@pytest.mark.row("E2.fuse", worlds=("sim",))
@pytest.mark.parametrize("group", range(GROUPS))
def test_a_write_that_is_dropped_anywhere_is_safe(points, outcomes, group):
    assert not run_once(points, None)
    count = points.seen
    assert count > 50, "the path has many points"
    for point in range(group, count, GROUPS):
        try:
            outcomes[point] = run_once(points, point)
        except Exception as error:
            pytest.fail(f"cancelled at point {point} of {count}, in {points.where}: {error!r}")


def test_both_kinds_of_end_were_seen(outcomes):
    assert len(outcomes) > 50
    assert 10 < sum(outcomes.values()) < len(outcomes) - 10, "nodes died, and nodes lived on"


def test_without_the_fuse_a_dropped_write_leaves_a_wrong_state(points, monkeypatch):
    """Which is what makes the runs above worth something."""
    run_once(points, None)
    names = points.names
    monkeypatch.setattr(Fuse, "guard", lambda self, work: nullcontext())
    for point in reversed([n for n, name in enumerate(names) if name == "disk:decision"]):
        try:
            run_once(points, point)
        except AssertionError as error:
            assert "flush_lsn was not what the disk had" in str(error)
            return
    pytest.fail("nothing went wrong")
