"""Uploads: their order, what the store may promise, and a bucket that misbehaves."""

from __future__ import annotations

import asyncio
import contextlib
import random
from dataclasses import replace

import pytest

from sim.disk_faults import DiskFault
from sim.service import ServiceFaults
from storage.errors import Conflict, CorruptData, DiskError
from storage.lsn import Lsn
from storage.pageserver.compaction import Compactor
from storage.pageserver.index import TimelineIndex
from storage.pageserver.keys import FIRST_KEY, LAST_KEY
from storage.pageserver.layer import Layer
from storage.pageserver.layer_name import LayerKind, LayerName
from storage.pageserver.timeline import Timeline
from storage.pageserver.upload_queue import (
    UPLOADS_AT_ONCE,
    DeleteLayers,
    PutIndex,
    PutLayer,
    UploadQueue,
)
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


def layer(number: int) -> Layer:
    name = LayerName(LayerKind.DELTA_0, FIRST_KEY, LAST_KEY, Lsn(number), Lsn(number + 1), 1)
    return Layer(name, 10, str(name))


def index(number: int) -> TimelineIndex:
    return TimelineIndex(TIMELINE, 1, 15, START, Lsn(START + number), START)


def drain(queue: UploadQueue) -> list[list[object]]:
    batches = []
    while queue:
        batches.append(list(queue.start_batch()))
        queue.finish_batch()
    return batches


def test_only_layers_next_to_each_other_run_together() -> None:
    queue = UploadQueue()
    puts = [PutLayer(layer(n)) for n in range(1, 8)]
    gone = DeleteLayers((puts[0].layer.name,))
    for operation in (*puts[:2], PutIndex(index(1)), puts[2], PutIndex(index(2)), gone, gone):
        queue.schedule(operation)
    first, second = PutIndex(index(1)), PutIndex(index(2))
    assert drain(queue) == [puts[:2], [first], [puts[2]], [second], [gone], [gone]]
    for put in puts:
        queue.schedule(put)
    assert [len(batch) for batch in drain(queue)] == [UPLOADS_AT_ONCE, len(puts) - UPLOADS_AT_ONCE]


def test_a_newer_index_replaces_one_that_still_waits() -> None:
    queue = UploadQueue()
    queue.schedule(PutIndex(index(1)))
    queue.schedule(PutIndex(index(2)))
    assert queue.start_batch() == [PutIndex(index(2))]
    queue.schedule(PutIndex(index(3)))
    assert len(queue) == 2, "the one on its way stays"
    queue.interrupt_batch()
    assert drain(queue) == [[PutIndex(index(2))], [PutIndex(index(3))]]


def test_an_index_survives_its_encoding_and_shows_damage() -> None:
    full = replace(index(8), layers=((layer(1).name, 5), (layer(2).name, 6)))
    data = full.encode()
    assert TimelineIndex.decode(data, "here") == full
    with pytest.raises(CorruptData, match="here fails its checksum"):
        TimelineIndex.decode(data.replace(b'"size": 5', b'"size": 7'), "here")
    for damaged in (b"", b"[]", b"{}", data[:-3]):
        with pytest.raises(CorruptData, match="here"):
            TimelineIndex.decode(damaged, "here")


def newest_index(rig: Rig) -> TimelineIndex:
    keys = sorted(key for key in rig.keys if f"{TIMELINE}/index-" in key)
    return TimelineIndex.decode(rig.store.bucket.get(keys[-1]), keys[-1])


def assert_references_hold(rig: Rig) -> None:
    """Every layer that the newest index names is in the bucket, whole."""
    sizes = {info.key.rpartition("/")[2]: info.size for info in rig.store.bucket.list("")}
    for name, size in newest_index(rig).layers:
        assert sizes.get(str(name)) == size


@pytest.mark.row("P4.remote", worlds=("sim",))
def test_the_remote_position_is_never_ahead_of_the_uploaded_index() -> None:
    async def story(rig: Rig) -> None:
        history = KvHistory()
        timeline = await rig.timeline()
        positions = []

        def watch() -> None:
            assert timeline.remote_consistent.value <= newest_index(rig).disk_consistent_lsn
            assert newest_index(rig).disk_consistent_lsn <= timeline.disk_consistent.value
            assert_references_hold(rig)
            positions.append(timeline.remote_consistent.value)

        timeline.on_positions = watch
        for part in range(5):
            history.fill(20, seed=part)
            await ingest(timeline, history)
            await flush(timeline)
        assert len(set(positions)) == 6

    play(story)


def test_a_put_after_a_delete_of_the_same_name_is_the_last_word() -> None:
    async def story(rig: Rig) -> None:
        timeline, _ = await rig.written(20, flushed=True)
        (only,) = timeline.layers
        rig.store.slow_deletes(30.0)
        timeline.uploader.delete_layers((only.name,))
        timeline.uploader.put_layer(only)
        timeline.uploader.put_index(timeline.index())
        await timeline.uploader.wait_idle()
        await asyncio.sleep(60)
        assert_references_hold(rig)

    play(story, remote_timeout_s=100.0)


def test_what_an_earlier_attachment_left_behind_is_removed() -> None:
    async def story(rig: Rig) -> None:
        timeline, history = await rig.written(20, flushed=True)
        (kept,) = (key for key in rig.keys if "/layers/" in key)
        orphan = kept.replace("-00000001", "-00000000")
        rig.store.bucket.put(orphan, b"left", if_absent=True, if_etag=None)
        timeline = (await rig.restart()).timeline(TIMELINE)
        assert orphan in rig.keys
        history.fill(20, seed=2)
        await ingest(timeline, history)
        await flush(timeline)
        await timeline.uploader.wait_idle()
        assert orphan not in rig.keys
        assert kept in rig.keys
        assert [key[-13:] for key in rig.keys if "index-" in key] == ["00000002.json"]
        assert_references_hold(rig)

    play(story)


def test_an_index_upload_carried_out_late_does_not_undo_a_newer_one() -> None:
    async def story(rig: Rig) -> None:
        timeline, history = await rig.written(20)
        stale = timeline.index()
        etag = timeline.uploader._index_etag
        await flush(timeline)
        with pytest.raises(Conflict):
            await rig.tenants.get(TENANT).remote.put_index(stale, previous_etag=etag)
        assert newest_index(rig).disk_consistent_lsn == history.end

    play(story)


@pytest.mark.parametrize("seed", range(6))
def test_whatever_the_store_does_nothing_acknowledged_is_lost(seed: int) -> None:
    """Refusals, lost replies, late effects, slowness, failing disks; restarts and power cuts."""

    async def story(rig: Rig) -> None:
        generator = random.Random(seed)
        history = KvHistory()
        timeline = await rig.timeline()
        rig.store.service.inject(
            ServiceFaults(
                refused=0.1, lost_request=0.05, lost_reply=0.1, late=0.1, slow=0.2, late_s=15.0
            )
        )
        for step in range(25):
            history.fill(15, keys=200, seed=1000 * seed + step)
            await ingest(timeline, history)
            if step % 3 == 0:
                fault = generator.choice([DiskFault.EIO, DiskFault.ENOSPC])
                rig.disk.arm(fault, times=generator.randrange(1, 4))
            timeline = await _disturb(rig, timeline, generator)
            await ingest(timeline, history)
            rig.disk.disarm()
            await check(timeline, history, generator.sample(history.ends, 3))
            assert_references_hold(rig)
        rig.store.service.inject(ServiceFaults())
        await flush(timeline)
        await timeline.uploader.wait_idle()
        await asyncio.sleep(20)
        assert_references_hold(rig)
        await rig.tenants.detach(TENANT)
        timeline = (await rig.tenants.attach(TENANT)).timeline(TIMELINE)
        assert timeline.last_record_lsn == history.end
        await check(timeline, history, history.ends[::20])

    play(
        story,
        compaction_threshold=3,
        image_creation_threshold=2,
        compaction_target_size=3000,
        attach_answer_timeout_s=300.0,
        remote_timeout_s=4.0,
        retry_delay_s_max=1.0,
    )


async def _disturb(rig: Rig, timeline: Timeline, generator: random.Random) -> Timeline:
    promised = timeline.remote_consistent.value
    match generator.randrange(6):
        case 0 | 1:
            timeline.freeze()
        case 2:
            await flush(timeline)
        case 3:
            with contextlib.suppress(DiskError):
                await Compactor(timeline).compact()
        case _:
            is_crash = generator.random() < 0.7
            timeline = (await rig.restart(crash=is_crash)).timeline(TIMELINE)
            assert timeline.last_record_lsn >= promised, "WAL before it may be gone already"
    return timeline


def layer_keys(rig: Rig) -> list[str]:
    return [key for key in rig.keys if "/layers/" in key]


def test_a_layer_whose_upload_is_carried_out_after_its_deletion_goes_again() -> None:
    """Found by a campaign (hostile, seed 20051): it stayed in the object store for ever."""

    async def story(rig: Rig) -> None:
        history = KvHistory()
        timeline = await rig.timeline()
        for part in range(3):
            history.fill(20, seed=part)
            await ingest(timeline, history)
            await flush(timeline)
        (late, *_) = layer_keys(rig)
        content = rig.store.bucket.get(late)
        await Compactor(timeline).compact()
        await timeline.uploader.wait_idle()
        assert late not in rig.keys
        merged = layer_keys(rig)

        await rig.store.view("ps0").put(late, content)
        foreign = late.rpartition("/")[0] + "/notes.txt"
        await rig.store.view("somebody").put(foreign, b"not ours")
        await asyncio.sleep(30)
        assert layer_keys(rig) == sorted([*merged, foreign])
        await check(timeline, history, history.ends[::20])

    play(story, compaction_threshold=3, scrub_period_s=10.0)


def test_a_layer_that_is_to_be_named_is_no_stray() -> None:
    """The scrub meets layers that no index names yet: it must see what is on its way."""

    async def story(rig: Rig) -> None:
        history = KvHistory()
        timeline = await rig.timeline()
        await rig.tenants.get(TENANT).timeline(TIMELINE).uploader.wait_idle()
        history.fill(20)
        await ingest(timeline, history)
        await flush(timeline)
        rig.store.service.inject(ServiceFaults(slow=1.0))
        for part in range(40):
            history.fill(10, seed=part)
            await ingest(timeline, history)
            timeline.freeze()
            await asyncio.sleep(0.7)
            assert_references_hold(rig)
        rig.store.service.inject(ServiceFaults())
        await flush(timeline)
        await timeline.uploader.wait_idle()
        await asyncio.sleep(5)
        assert_references_hold(rig)
        named = {str(name) for name, _ in newest_index(rig).layers}
        assert {key.rpartition("/")[2] for key in layer_keys(rig)} == named

    play(story, scrub_period_s=0.05)
