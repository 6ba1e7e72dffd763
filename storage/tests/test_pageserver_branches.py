"""Branches: reads through ancestors, branch points in and out of scope, restart."""

from __future__ import annotations

import asyncio

import pytest

from storage.errors import Conflict, LsnOutOfScope, NotFound, NotReady
from storage.ids import TimelineId
from storage.lsn import Lsn
from storage.pageserver.creation import NewBranch, NewTimeline, create_timeline
from storage.pageserver.states import State
from storage.pageserver.timeline import Timeline
from storage.tests.pageserver_world import (
    START,
    TENANT,
    TIMELINE,
    KvHistory,
    Rig,
    check,
    flush,
    ingest,
    kv_key,
    play,
    raise_cutoff,
)

CHILD = TimelineId("c" * 32)
GRANDCHILD = TimelineId("d" * 32)


async def branch(
    rig: Rig, new: TimelineId, of: TimelineId = TIMELINE, at: Lsn | None = None
) -> Timeline:
    return await create_timeline(rig.tenants, TENANT, NewBranch(new, of, at))


async def assert_same_as(timeline: Timeline, history: KvHistory, at: Lsn, lsn: Lsn) -> None:
    """The branch shows at ``lsn`` what its ancestor showed ``at`` the branch point."""
    for block in history.versions:
        assert await timeline.get(kv_key(block), lsn) == history.page(block, at)


def test_a_branch_shows_its_ancestor_at_the_branch_point_only() -> None:
    async def story(rig: Rig) -> None:
        history = KvHistory()
        root = await rig.timeline()
        history.fill(40)
        await ingest(root, history)
        point = history.ends[20]
        child = await branch(rig, CHILD, at=point)
        assert (child.ancestor_lsn, child.last_record_lsn) == (point, point)
        assert child.initdb_lsn == START
        await assert_same_as(child, history, point, point)
        await assert_same_as(child, history, point, Lsn(point + 8000))
        await check(child, history, history.ends[:20:3])

    play(story)


@pytest.mark.parametrize("is_flushed", [False, True])
def test_each_hop_is_limited_by_the_branch_point_of_the_timeline_left(is_flushed: bool) -> None:
    async def story(rig: Rig) -> None:
        history = KvHistory()
        root = await rig.timeline()
        history.fill(10, keys=300)
        first = history.end
        await ingest(root, history)
        child = await branch(rig, CHILD)
        on_child = KvHistory(first, root.prev_record_lsn)
        on_child.put((100_000, b"child"))
        await ingest(child, on_child)
        grandchild = await branch(rig, GRANDCHILD, of=CHILD)
        # The root goes on, past the grandchild's branch point too.
        history.fill(200, keys=300, seed=2)
        await ingest(root, history)
        if is_flushed:
            for timeline in (root, child, grandchild):
                await flush(timeline)
        assert grandchild.ancestor_lsn == on_child.end
        for timeline in (child, grandchild):
            await assert_same_as(timeline, history, first, on_child.end)
        block = next(iter(on_child.versions))
        assert await grandchild.get(kv_key(block), on_child.end) == on_child.page(
            block, on_child.end
        )

        tenant = await rig.restart()
        if is_flushed:
            for ident in (CHILD, GRANDCHILD):
                await assert_same_as(tenant.timeline(ident), history, first, on_child.end)

    play(story)


def test_a_branch_waits_until_its_ancestor_has_ingested_again() -> None:
    async def story(rig: Rig) -> None:
        history = KvHistory()
        root = await rig.timeline()
        history.fill(30)
        await ingest(root, history)
        child = await branch(rig, CHILD)
        await rig.restart(crash=True)
        tenant = rig.tenants.get(TENANT)
        root, child = tenant.timeline(TIMELINE), tenant.timeline(CHILD)
        assert root.last_record_lsn == START
        reading = asyncio.ensure_future(child.get(kv_key(0), child.ancestor_lsn))
        await asyncio.sleep(3)
        assert not reading.done()
        await ingest(root, history)
        assert await reading == history.page(0, history.end)

    play(story)


@pytest.mark.row("D1.branch", worlds=("sim",))
def test_branch_points_out_of_scope_are_refused_by_both_lsns() -> None:
    async def story(rig: Rig) -> None:
        history = KvHistory()
        root = await rig.timeline()
        history.fill(10)
        await ingest(root, history)
        with pytest.raises(LsnOutOfScope, match=f"{Lsn(START - 8)} is before initdb_lsn {START}"):
            await branch(rig, CHILD, at=Lsn(START - 8))
        cutoff = history.ends[5]
        await raise_cutoff(root, cutoff)
        with pytest.raises(LsnOutOfScope, match=f"{history.ends[4]}.*{cutoff}"):
            await branch(rig, CHILD, at=history.ends[4])
        child = await branch(rig, CHILD, at=history.ends[7])
        assert child.gc_cutoff.lsn == cutoff
        with pytest.raises(LsnOutOfScope, match="use its ancestor"):
            await branch(rig, GRANDCHILD, of=CHILD, at=cutoff)
        with pytest.raises(NotReady, match="did not reach"):
            await branch(rig, GRANDCHILD, at=Lsn(history.end + 8))
        assert not [key for key in rig.keys if GRANDCHILD in key]
        assert not [path for path in rig.disk.snapshot().directories if GRANDCHILD in path]
        assert list(rig.tenants.get(TENANT).timelines) == [TIMELINE, CHILD]

    play(story, wait_lsn_timeout_s=1.0)


def test_a_branch_reads_at_its_own_point_although_the_ancestor_cut_off_beyond() -> None:
    async def story(rig: Rig) -> None:
        history = KvHistory()
        root = await rig.timeline()
        history.fill(10)
        await ingest(root, history)
        child = await branch(rig, CHILD, at=history.ends[4])
        await raise_cutoff(root, history.end)
        await assert_same_as(child, history, history.ends[4], history.ends[4])
        with pytest.raises(LsnOutOfScope):
            await child.get(kv_key(0), history.ends[3])

    play(story)


def test_creation_is_idempotent_and_refuses_another_timeline_of_the_name() -> None:
    async def story(rig: Rig) -> None:
        root = await rig.timeline()
        assert await create_timeline(rig.tenants, TENANT, NewTimeline(TIMELINE, START, 15)) is root
        with pytest.raises(Conflict):
            await create_timeline(rig.tenants, TENANT, NewTimeline(TIMELINE, Lsn(START + 8), 15))
        child = await branch(rig, CHILD)
        assert await branch(rig, CHILD) is child
        with pytest.raises(Conflict):
            await branch(rig, TIMELINE)
        with pytest.raises(NotFound):
            await branch(rig, GRANDCHILD, of=TimelineId("e" * 32))

    play(story)


def test_a_creation_that_the_store_does_not_answer_may_be_asked_again() -> None:
    async def story(rig: Rig) -> None:
        await rig.timeline()
        rig.store.outage()
        with pytest.raises(NotReady, match="did not answer"):
            await branch(rig, CHILD)
        rig.store.restore()
        assert (await branch(rig, CHILD)).state.state is State.ACTIVE

    play(story, attach_answer_timeout_s=2.0)


def test_an_ancestor_that_breaks_is_an_error_not_an_answer() -> None:
    async def story(rig: Rig) -> None:
        history = KvHistory()
        root = await rig.timeline()
        history.fill(5)
        await ingest(root, history)
        child = await branch(rig, CHILD)
        root.break_down("a bad record")
        with pytest.raises(Exception, match="a bad record"):
            await child.get(kv_key(0), history.end)

    play(story)
