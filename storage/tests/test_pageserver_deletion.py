"""Deleted timelines and failed branches: final, resumable, and nothing of them left."""

from __future__ import annotations

import asyncio

import pytest

from storage.errors import Conflict, NotFound, NotReady
from storage.ids import TimelineId
from storage.pageserver.creation import NewBranch, create_timeline
from storage.pageserver.deletion import delete_timeline
from storage.pageserver.index import TimelineIndex
from storage.pageserver.retention import RetentionOptions
from storage.tests.pageserver_world import (
    TENANT,
    TIMELINE,
    KvHistory,
    Rig,
    flush,
    ingest,
    play,
)

CHILD = TimelineId("c" * 32)


async def family(rig: Rig) -> KvHistory:
    """A flushed timeline and an empty branch of it."""
    history = KvHistory()
    timeline = await rig.timeline()
    history.fill(40)
    await ingest(timeline, history)
    await flush(timeline)
    await create_timeline(rig.tenants, TENANT, NewBranch(CHILD, TIMELINE))
    return history


def objects_of(rig: Rig, timeline_id: TimelineId) -> list[str]:
    return [key for key in rig.keys if timeline_id in key]


def test_parents_outlive_their_children_and_a_deletion_is_final():
    async def story(rig: Rig) -> None:
        await family(rig)
        with pytest.raises(Conflict, match=f"has the branches {CHILD}"):
            await delete_timeline(rig.tenants, TENANT, TIMELINE)

        await delete_timeline(rig.tenants, TENANT, CHILD)
        await asyncio.sleep(1)
        (tombstone,) = objects_of(rig, CHILD)
        with pytest.raises(NotFound):
            await delete_timeline(rig.tenants, TENANT, CHILD)
        with pytest.raises(Conflict, match="was deleted"):
            await create_timeline(rig.tenants, TENANT, NewBranch(CHILD, TIMELINE))

        tenant = await rig.restart(crash=True)
        assert list(tenant.timelines) == [TIMELINE]
        assert objects_of(rig, CHILD) == [tombstone]
        await delete_timeline(rig.tenants, TENANT, TIMELINE)
        await asyncio.sleep(1)
        assert len(objects_of(rig, TIMELINE)) == 1
        tenant = await rig.restart()
        assert not tenant.timelines

    play(story)


def test_a_late_index_of_a_stale_attachment_does_not_bring_a_timeline_back():
    async def story(rig: Rig) -> None:
        await family(rig)
        stale = rig.tenants.get(TENANT).timeline(CHILD).index()
        tenant = await rig.restart()
        await delete_timeline(rig.tenants, TENANT, CHILD)
        await asyncio.sleep(1)
        await rig.store.view("old").put(
            tenant.remote.index_key(CHILD, stale.generation), stale.encode()
        )

        tenant = await rig.restart()
        assert list(tenant.timelines) == [TIMELINE]
        await asyncio.sleep(1)
        assert len(objects_of(rig, CHILD)) == 1

    play(story)


def test_a_deletion_without_the_object_store_ends_once_it_is_back():
    async def story(rig: Rig) -> None:
        await family(rig)
        rig.store.outage()
        with pytest.raises(NotReady):
            await delete_timeline(rig.tenants, TENANT, CHILD)
        with pytest.raises(Conflict, match="being deleted"):
            await create_timeline(rig.tenants, TENANT, NewBranch(TimelineId("d" * 32), CHILD))
        rig.store.restore()
        await asyncio.sleep(30)
        with pytest.raises(NotFound):
            await delete_timeline(rig.tenants, TENANT, CHILD)

    play(story, attach_answer_timeout_s=1.0)


def test_a_branch_that_was_never_acknowledged_is_nothing_once_its_point_is_collected():
    async def story(rig: Rig) -> None:
        history = await family(rig)
        tenant = rig.tenants.get(TENANT)
        born_late = TimelineIndex(
            timeline_id=TimelineId("d" * 32), generation=tenant.generation, pg_version=15,
            initdb_lsn=history.start, disk_consistent_lsn=history.ends[3],
            latest_gc_cutoff_lsn=history.start, ancestor_timeline_id=TIMELINE,
            ancestor_lsn=history.ends[3],
        )  # fmt: skip
        await tenant.collectors[TIMELINE].collect(RetentionOptions(0, 0.0))
        key = tenant.remote.index_key(born_late.timeline_id, tenant.generation)
        await rig.store.view("late").put(key, born_late.encode())

        tenant = await rig.restart()
        assert list(tenant.timelines) == [TIMELINE, CHILD]
        await asyncio.sleep(1)
        assert key not in rig.keys

    play(story)


def test_what_the_store_carries_out_after_a_burial_is_buried_too():
    async def story(rig: Rig) -> None:
        history = await family(rig)
        child = rig.tenants.get(TENANT).timeline(CHILD)
        (layer,) = rig.tenants.get(TENANT).timeline(TIMELINE).layers
        late = child.uploader._remote.layer_key(CHILD, layer.name)
        await delete_timeline(rig.tenants, TENANT, CHILD)
        await asyncio.sleep(1)
        (tombstone,) = objects_of(rig, CHILD)
        await rig.store.view("ps0").put(late, b"late")
        await asyncio.sleep(30)
        assert objects_of(rig, CHILD) == [tombstone]
        assert history.end

    play(story, scrub_period_s=10.0)
