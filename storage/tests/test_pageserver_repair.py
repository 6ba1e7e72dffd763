"""A layer file that rots on a pageserver's disk is replaced, and holds nothing else up.

By the object store's copy, or by WAL before there is one. Found by a campaign (swarm, seed 6069):
a compute could not start, because every page behind one rotten file was refused although S3 had
the layer whole.
"""

from __future__ import annotations

import asyncio
from itertools import pairwise

import pytest

from storage.errors import CorruptData
from storage.ids import TimelineId
from storage.pageserver.compaction import Compactor
from storage.pageserver.creation import NewTimeline, create_timeline
from storage.pageserver.layer import Layer
from storage.pageserver.layer_file import HEADER_SIZE
from storage.pageserver.layer_name import LayerKind
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
    play,
)

SISTER = TimelineId("d" * 32)
PLACES = {"header": 40, "value": HEADER_SIZE + 9, "index": -200, "root": -20}


async def with_one_layer(rig: Rig) -> tuple[Timeline, KvHistory]:
    """A timeline whose history is in one uploaded layer."""
    history = KvHistory()
    timeline = await rig.timeline()
    history.fill(60)
    await ingest(timeline, history)
    await flush(timeline)
    return timeline, history


async def rot(rig: Rig, timeline: Timeline, place: int) -> Layer:
    """Flip a byte of the only layer's file, past whoever has it open; returns the layer."""
    (layer,) = list(timeline.layers)
    await rot_layer(rig, layer, place)
    return layer


async def rot_layer(rig: Rig, layer: Layer, place: int) -> None:
    file = await rig.disk.view().open(layer.path)
    at = place % layer.size
    (byte,) = await file.pread(at, 1)
    await file.pwrite(at, bytes([byte ^ 0x10]))
    await file.close()


@pytest.mark.parametrize("place", PLACES.values(), ids=PLACES)
def test_a_rotten_file_is_replaced_when_it_is_opened_or_read(
    place: int, caplog: pytest.LogCaptureFixture
) -> None:
    async def story(rig: Rig) -> None:
        timeline, history = await with_one_layer(rig)
        await rot(rig, timeline, place)
        tenant = await rig.restart()
        await check(tenant.timeline(TIMELINE), history, history.ends[::7])

    play(story, page_cache_size=0)
    (warning,) = [record for record in caplog.records if record.levelname != "INFO"]
    assert "fails its checksum" in warning.getMessage()
    assert "the layer is downloaded again" in warning.getMessage()


def test_a_file_that_rots_while_it_is_open_is_replaced() -> None:
    async def story(rig: Rig) -> None:
        timeline, history = await with_one_layer(rig)
        await check(timeline, history, history.ends[::20])
        for _ in range(3):
            await rot(rig, timeline, HEADER_SIZE + 9)
            await check(timeline, history, history.ends[::7])

    play(story, page_cache_size=0)


def test_a_rotten_file_that_is_nowhere_else_is_refused_until_it_can_be_read() -> None:
    async def story(rig: Rig) -> None:
        timeline, history = await with_one_layer(rig)
        layer = await rot(rig, timeline, HEADER_SIZE + 9)
        key = f"pageserver/{TENANT}/timelines/{TIMELINE}/layers/{layer.name}"
        whole = rig.store.bucket.get(key)
        await rig.store.view("ps0").delete(key)
        for _ in range(2):
            with pytest.raises(CorruptData, match="fails its checksum"):
                await check(timeline, history, history.ends[:1])
        await rig.store.view("ps0").put(key, whole)
        await check(timeline, history, history.ends[::7])

    play(story, page_cache_size=0)


def complaints(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.getMessage() for record in caplog.records if record.levelname != "INFO"]


def test_a_layer_that_rots_before_its_upload_is_made_again_from_wal(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Its timeline goes back to what the object store has; its sister does not stand still."""

    async def story(rig: Rig) -> None:
        timeline, history = await with_one_layer(rig)
        await create_timeline(rig.tenants, TENANT, NewTimeline(SISTER, START, 15))
        before = rig.tenants.get(TENANT)
        safe = timeline.remote_consistent.value
        rig.store.outage()
        for part in range(3):
            history.fill(20, seed=part + 2)
            await ingest(timeline, history)
            timeline.freeze()
            await timeline.disk_consistent.wait_for(history.end)
        await rot_layer(rig, timeline.layers.level0()[2], HEADER_SIZE + 9)
        rig.store.restore()
        await asyncio.sleep(60)

        tenant = rig.tenants.get(TENANT)
        assert tenant is not before
        assert tenant.generation == before.generation + 1, "once is enough"
        timeline = tenant.timeline(TIMELINE)
        assert safe <= timeline.last_record_lsn < history.end
        await ingest(timeline, history)
        await flush(timeline)
        await check(timeline, history, history.ends[::7])
        other = KvHistory()
        other.fill(10)
        await ingest(tenant.timeline(SISTER), other)
        await flush(tenant.timeline(SISTER))

        await rig.tenants.detach(TENANT)
        assert not rig.tenants.all(), "a detach means the attachment that took its place as well"

    play(story)
    (warning,) = complaints(caplog)
    assert "cannot be uploaded" in warning
    assert "is not what was written" in warning


def test_a_detach_that_waited_for_a_new_beginning_detaches_what_it_began() -> None:
    async def story(rig: Rig) -> None:
        await with_one_layer(rig)
        tenant = rig.tenants.get(TENANT)
        async with rig.tenants.lock(TENANT):
            tenant.on_spoilt()
            await asyncio.sleep(0.1)
            detaching = asyncio.create_task(rig.tenants.detach(TENANT))
            await asyncio.sleep(0.1)
        await detaching
        assert tenant.successor is not None
        assert not rig.tenants.all()

    play(story)


def test_compaction_goes_around_a_layer_that_nobody_has_whole(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async def story(rig: Rig) -> None:
        timeline, history = await with_one_layer(rig)
        for part in range(6):
            history.fill(20, seed=part + 2)
            await ingest(timeline, history)
            await flush(timeline)
        spoilt = timeline.layers.level0()[3]
        await rig.store.view("ps0").delete(
            f"pageserver/{TENANT}/timelines/{TIMELINE}/layers/{spoilt.name}"
        )
        await rot_layer(rig, spoilt, HEADER_SIZE + 9)
        await asyncio.sleep(60)  # Compaction tries again and again.
        assert timeline.layers.level0() == [spoilt], "what lies before and behind it was merged"
        spans = {(x.name.start_lsn, x.name.end_lsn) for x in timeline.layers}
        assert len(spans) == 3, "and not across it"
        await check(timeline, history, [end for end in history.ends if end < spoilt.name.start_lsn])
        files = {path.rpartition("/")[2] for path in rig.disk.snapshot().files}
        layers = {name for name in files if name.startswith(("delta", "image"))}
        assert layers == {str(layer.name) for layer in timeline.layers}, "failures leave no files"

    play(story, compaction_threshold=1, compaction_period_s=5.0, page_cache_size=0)
    first, second = complaints(caplog)
    assert "the layer is downloaded again" in first
    assert "leaves a layer alone" in second


def test_a_layer_that_recovers_is_not_merged_across_what_was_merged_without_it() -> None:
    """Swarm, seed 13392: one read of its header came back short, and the next did not."""

    async def story(rig: Rig) -> None:
        timeline, history = await with_one_layer(rig)

        async def grow(parts: int) -> None:
            for _ in range(parts):
                history.fill(20, seed=len(history.ends))
                await ingest(timeline, history)
                await flush(timeline)

        await grow(5)
        spoilt = timeline.layers.level0()[3]
        await rig.store.view("ps0").delete(
            f"pageserver/{TENANT}/timelines/{TIMELINE}/layers/{spoilt.name}"
        )
        await rot_layer(rig, spoilt, HEADER_SIZE + 9)
        with pytest.raises(CorruptData):
            await Compactor(timeline).compact()
        await rot_layer(rig, spoilt, HEADER_SIZE + 9)
        await grow(2)
        await Compactor(timeline).compact()
        assert timeline.layers.level0() == [spoilt]
        deltas = [x.name for x in timeline.layers if not x.name.is_image]
        spans = sorted({(name.start_lsn, name.end_lsn) for name in deltas})
        assert all(before[1] <= after[0] for before, after in pairwise(spans))
        await check(timeline, history, history.ends[::7])

    play(story, compaction_threshold=2, page_cache_size=0)


@pytest.mark.parametrize("place", PLACES.values(), ids=PLACES)
def test_compaction_repairs_what_the_object_store_has_whole(place: int) -> None:
    async def story(rig: Rig) -> None:
        timeline, history = await with_one_layer(rig)
        for part in range(2):
            history.fill(60, keys=1000, seed=part + 2)
            await ingest(timeline, history)
            await flush(timeline)
        tenant = await rig.restart()
        timeline = tenant.timeline(TIMELINE)
        await rot_layer(rig, timeline.layers.level0()[1], place)
        await Compactor(timeline).compact()
        assert all(layer.name.kind is LayerKind.DELTA_1 for layer in timeline.layers)
        await check(timeline, history, history.ends[::11])

    play(story, compaction_threshold=3, page_cache_size=0)
