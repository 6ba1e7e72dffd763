"""Garbage collection of a running timeline: what it spares, what it refuses, what it survives."""

from __future__ import annotations

import asyncio

import pytest

from storage.errors import BadRequest, Conflict, LsnOutOfScope, NotReady
from storage.ids import TimelineId
from storage.lsn import Lsn
from storage.pageserver.creation import NewBranch, create_timeline
from storage.pageserver.gc import Collected
from storage.pageserver.leasing import lease_lsn
from storage.pageserver.read_view import ReadPoint, read_view
from storage.pageserver.retention import Reason, RetentionOptions
from storage.pageserver.timeline import Timeline
from storage.tests.pageserver_world import (
    TENANT,
    TIMELINE,
    KvHistory,
    Rig,
    check,
    flush,
    ingest,
    play,
)

CHILD = TimelineId("c" * 32)
NOTHING = RetentionOptions(0, 0.0)
SMALL = {"compaction_threshold": 2, "image_creation_threshold": 1, "compaction_target_size": 3000}


async def grow(timeline: Timeline, history: KvHistory, rig: Rig, rounds: int = 6) -> None:
    """Layers, merges and images."""
    compactor = rig.tenants.get(TENANT).compactors[timeline.ident.timeline_id]
    for number in range(rounds):
        history.fill(15, keys=400, seed=len(history.ends) + number)
        await ingest(timeline, history)
        await flush(timeline)
        await compactor.compact()


async def collect(timeline: Timeline, rig: Rig, options: RetentionOptions = NOTHING) -> Collected:
    collector = rig.tenants.get(TENANT).collectors[timeline.ident.timeline_id]
    return await collector.collect(options)


def readable(timeline: Timeline, history: KvHistory) -> list[Lsn]:
    return [lsn for lsn in history.ends if lsn >= timeline.gc_cutoff.lsn]


async def read(timeline: Timeline, lsn: Lsn) -> None:
    async with read_view(timeline, ReadPoint.at(lsn)):
        pass


def layer_keys(rig: Rig) -> list[str]:
    return [key for key in rig.keys if "/layers/" in key]


@pytest.mark.row("D4.checked", worlds=("sim",))
def test_removes_old_layers_here_and_in_the_object_store_and_spares_what_is_in_scope():
    async def story(rig: Rig) -> None:
        history = KvHistory()
        timeline = await rig.timeline()
        await grow(timeline, history, rig)
        before = len(timeline.layers)

        done = await collect(timeline, rig)

        assert done.cutoff == history.end == timeline.gc_cutoff.lsn
        assert done.layers_removed > 0
        assert done.layers_kept == len(timeline.layers) == before - done.layers_removed
        await check(timeline, history, [history.end])
        await timeline.uploader.wait_idle()
        assert len(layer_keys(rig)) == len(timeline.layers)
        with pytest.raises(LsnOutOfScope, match=f"{history.ends[0]}.*{history.end}"):
            await read(timeline, history.ends[0])
        assert (await collect(timeline, rig)).layers_removed == 0

        await grow(timeline, history, rig, 2)
        await check(timeline, history, readable(timeline, history))
        tenant = await rig.restart(crash=True)
        timeline = tenant.timeline(TIMELINE)
        assert timeline.gc_cutoff.lsn == done.cutoff
        await check(timeline, history, readable(timeline, history))

    play(story, **SMALL)


def test_horizon_keeps_that_many_bytes_of_wal():
    async def story(rig: Rig) -> None:
        history = KvHistory()
        timeline = await rig.timeline()
        await grow(timeline, history, rig)

        done = await collect(timeline, rig, RetentionOptions(2000, 0.0))

        assert (done.cutoff, done.held_by) == (history.end - 2000, Reason.HORIZON)
        await check(timeline, history, readable(timeline, history))

    play(story, **SMALL)


def test_time_keeps_what_is_younger_and_what_is_of_unknown_age():
    async def story(rig: Rig) -> None:
        history = KvHistory()
        timeline = await rig.timeline()
        await grow(timeline, history, rig, 2)
        old = history.end
        await asyncio.sleep(100)
        await grow(timeline, history, rig, 2)

        assert (await collect(timeline, rig, RetentionOptions(0, 500.0))).held_by is Reason.PITR
        assert timeline.gc_cutoff.lsn == timeline.initdb_lsn
        done = await collect(timeline, rig, RetentionOptions(0, 50.0))
        assert (done.cutoff, done.held_by) == (old, Reason.PITR)

        tenant = await rig.restart()
        assert tenant.timeline(TIMELINE).times.samples() == timeline.times.samples()

    play(story, lease_length_s=1.0, **SMALL)


def test_what_is_not_in_the_object_store_holds_back():
    async def story(rig: Rig) -> None:
        history = KvHistory()
        timeline = await rig.timeline()
        await grow(timeline, history, rig, 2)
        flushed = history.end
        history.fill(20)
        await ingest(timeline, history)

        done = await collect(timeline, rig)

        assert (done.cutoff, done.held_by) == (flushed, Reason.REMOTE)

    play(story, **SMALL)


def test_children_keep_their_branch_points_readable_whatever_their_state():
    async def story(rig: Rig) -> None:
        history = KvHistory()
        timeline = await rig.timeline()
        await grow(timeline, history, rig)
        point = history.ends[37]
        child = await create_timeline(rig.tenants, TENANT, NewBranch(CHILD, TIMELINE, point))
        child.break_down("for the test")
        await grow(timeline, history, rig, 2)

        await collect(timeline, rig)

        await check(timeline, history, [point, *readable(timeline, history)])
        await rig.restart(crash=True)
        tenant = rig.tenants.get(TENANT)
        await collect_again(tenant.timeline(TIMELINE), rig)
        for block in history.versions:
            assert await tenant.timeline(CHILD).get(kv(block), history.end) == history.page(
                block, point
            )

    play(story, lease_length_s=1.0, **SMALL)


def kv(block):
    from storage.tests.pageserver_world import kv_key

    return kv_key(block)


async def collect_again(timeline: Timeline, rig: Rig) -> Collected:
    """As soon as the leases of the former attachment have ended."""
    with pytest.raises(NotReady, match="leases from before"):
        await collect(timeline, rig)
    await asyncio.sleep(timeline.environment.options.lease_length_s)
    return await collect(timeline, rig)


def test_a_lease_holds_until_it_ends_and_is_not_granted_below_the_cutoff():
    async def story(rig: Rig) -> None:
        history = KvHistory()
        timeline = await rig.timeline()
        await grow(timeline, history, rig)
        leased = history.ends[20]

        assert await lease_lsn(timeline, leased) > 9.9
        done = await collect(timeline, rig)
        assert (done.cutoff, done.held_by) == (leased, Reason.LEASE)
        await check(timeline, history, [leased])
        await asyncio.sleep(5)
        await lease_lsn(timeline, leased)
        await asyncio.sleep(9)
        assert (await collect(timeline, rig)).cutoff == leased
        await asyncio.sleep(1.1)
        assert (await collect(timeline, rig)).cutoff == history.end
        with pytest.raises(LsnOutOfScope, match=f"{leased}.*{history.end}"):
            await lease_lsn(timeline, leased)
        with pytest.raises(BadRequest, match="up to 10"):
            await lease_lsn(timeline, history.end, 11.0)

    play(story, lease_length_s=10.0, **SMALL)


def test_a_lease_is_renewed_after_a_restart_before_anything_is_collected():
    async def story(rig: Rig) -> None:
        history = KvHistory()
        timeline = await rig.timeline()
        await grow(timeline, history, rig)
        leased = history.ends[20]
        await lease_lsn(timeline, leased)
        await collect(timeline, rig)

        tenant = await rig.restart(crash=True)
        timeline = tenant.timeline(TIMELINE)
        with pytest.raises(NotReady):
            await collect(timeline, rig)
        await lease_lsn(timeline, leased)
        await asyncio.sleep(9.5)
        await lease_lsn(timeline, leased)
        done = await collect_when_settled(timeline, rig)
        assert (done.cutoff, done.held_by) == (leased, Reason.LEASE)

    play(story, lease_length_s=10.0, **SMALL)


async def collect_when_settled(timeline: Timeline, rig: Rig) -> Collected:
    await asyncio.sleep(1)
    return await collect(timeline, rig)


def test_between_plan_and_cutoff_nothing_new_may_rely_on_the_old():
    async def story(rig: Rig) -> None:
        history = KvHistory()
        timeline = await rig.timeline()
        await grow(timeline, history, rig)
        old = history.ends[20]
        rig.store.outage()
        passing = asyncio.ensure_future(collect(timeline, rig))
        await asyncio.sleep(1)
        assert (timeline.gc_cutoff.lsn, timeline.gc_cutoff.planned) == (
            timeline.initdb_lsn, history.end,
        )  # fmt: skip

        await read(timeline, old)
        with pytest.raises(LsnOutOfScope):
            await lease_lsn(timeline, old)
        with pytest.raises(LsnOutOfScope):
            await create_timeline(rig.tenants, TENANT, NewBranch(CHILD, TIMELINE, old))
        rig.store.restore()
        await passing
        with pytest.raises(LsnOutOfScope):
            await read(timeline, old)

    play(story, **SMALL)


@pytest.mark.row("D4.held", worlds=("sim",))
def test_removal_waits_for_a_reader_that_came_in_before():
    async def story(rig: Rig) -> None:
        history = KvHistory()
        timeline = await rig.timeline()
        await grow(timeline, history, rig)
        old = history.ends[20]
        before = len(timeline.layers)
        async with read_view(timeline, ReadPoint.at(old)):
            passing = asyncio.ensure_future(collect(timeline, rig))
            await asyncio.sleep(10)
            assert not passing.done()
            assert timeline.gc_cutoff.lsn == history.end
            assert len(timeline.layers) == before
            await check(timeline, history, [old])
        assert (await passing).layers_removed > 0

    play(story, **SMALL)


def test_a_stale_attachment_collects_nothing():
    async def story(rig: Rig) -> None:
        history = KvHistory()
        timeline = await rig.timeline()
        await grow(timeline, history, rig)
        await rig.tenants.get(TENANT).remote.claim_generation("ps1")
        before = layer_keys(rig)

        with pytest.raises(Conflict, match="attached elsewhere"):
            await collect(timeline, rig)
        with pytest.raises(Conflict, match="attached elsewhere"):
            await lease_lsn(timeline, history.end)

        assert layer_keys(rig) == before

    play(story, **SMALL)


def test_passes_by_themselves_once_in_a_while():
    async def story(rig: Rig) -> None:
        history = KvHistory()
        timeline = await rig.timeline()
        await grow(timeline, history, rig)
        await asyncio.sleep(13)
        assert timeline.gc_cutoff.lsn == history.end

    play(story, gc_period_s=10.0, gc_horizon=0, pitr_interval_s=0.0, **SMALL)
