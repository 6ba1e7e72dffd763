"""Compaction and images: the same pages at every LSN, from fewer and better layers."""

from __future__ import annotations

import asyncio
from itertools import pairwise

import pytest

from storage.ids import TimelineId
from storage.lsn import INVALID_LSN
from storage.pageserver.compaction import Compactor
from storage.pageserver.creation import NewBranch, create_timeline
from storage.pageserver.images import keys_of
from storage.pageserver.keys import FIRST_KEY, LAST_KEY, Key, relation_size
from storage.pageserver.layer import Layer, pinned
from storage.pageserver.layer_name import LayerKind
from storage.pageserver.timeline import Timeline
from storage.pageserver.values import Image, Removed
from storage.tests.pageserver_world import (
    KV,
    TENANT,
    TIMELINE,
    KvHistory,
    Rig,
    check,
    flush,
    ingest,
    kv_key,
    play,
)

SMALL = {
    "compaction_threshold": 3,
    "compaction_target_size": 2000,
    "image_creation_threshold": 2,
    "page_cache_size": 0,
}


def kinds(timeline: Timeline) -> dict[LayerKind, int]:
    found = dict.fromkeys(LayerKind, 0)
    for layer in timeline.layers:
        found[layer.name.kind] += 1
    return found


async def grow(timeline: Timeline, history: KvHistory, parts: int, *, seed: int = 0) -> None:
    """Write level-0 layers."""
    for part in range(parts):
        history.fill(40, keys=400, seed=100 * seed + part)
        await ingest(timeline, history)
        await flush(timeline)


def layer_files(rig: Rig) -> list[str]:
    names = (path.rpartition("/")[2] for path in rig.disk.snapshot().files)
    return sorted(name for name in names if name.startswith(("delta", "image")))


def layer_objects(rig: Rig) -> list[str]:
    return sorted(key.rpartition("/")[2] for key in rig.keys if "/layers/" in key)


def test_a_merge_keeps_every_version_and_replaces_its_inputs() -> None:
    async def story(rig: Rig) -> None:
        history = KvHistory()
        timeline = await rig.timeline()
        compactor = Compactor(timeline)
        await grow(timeline, history, 2)
        await compactor.compact()
        assert kinds(timeline)[LayerKind.DELTA_0] == 2
        await grow(timeline, history, 1, seed=1)
        await compactor.compact()
        found = kinds(timeline)
        assert found[LayerKind.DELTA_0] == 0
        assert found[LayerKind.DELTA_1] > 1, "the target size splits the output"
        assert found[LayerKind.IMAGE] == 0
        await check(timeline, history)
        await timeline.uploader.wait_idle()
        listed = sorted(str(layer.name) for layer in timeline.layers)
        assert layer_files(rig) == listed
        assert layer_objects(rig) == listed
        await check((await rig.restart()).timeline(TIMELINE), history)

    play(story, **SMALL)


def test_a_pass_ends_however_fast_layers_come() -> None:
    async def story(rig: Rig) -> None:
        history = KvHistory()
        timeline = await rig.timeline()
        await grow(timeline, history, 3)
        merges = 0

        class Outpaced(Compactor):
            async def _merge(self, inputs: list[Layer]) -> None:
                nonlocal merges
                merges += 1
                assert merges == 1, "what came during the first merge is for the next pass"
                await grow(timeline, history, 3, seed=merges)
                await super()._merge(inputs)

        await Outpaced(timeline).compact()
        assert kinds(timeline)[LayerKind.DELTA_0] == 3
        merges = 0
        await Outpaced(timeline).compact()
        assert kinds(timeline)[LayerKind.DELTA_0] == 3
        await check(timeline, history, history.ends[::10])

    play(story, **SMALL)


def test_images_shorten_histories_and_are_complete() -> None:
    async def story(rig: Rig) -> None:
        history = KvHistory()
        timeline = await rig.timeline()
        compactor = Compactor(timeline)
        for seed in range(2):
            assert not kinds(timeline)[LayerKind.IMAGE]
            await grow(timeline, history, 3, seed=seed)
            await compactor.compact()
        images = sorted(
            (layer.name for layer in timeline.layers if layer.name.is_image),
            key=lambda name: name.first,
        )
        assert len(images) > 2
        assert images[0].first == FIRST_KEY
        assert images[-1].last == LAST_KEY
        for one, other in pairwise(images):
            after = int.from_bytes(one.last.encode(), "big") + 1
            assert after == int.from_bytes(other.first.encode(), "big")
        for seed in range(2, 6):
            await grow(timeline, history, 3, seed=seed)
            await compactor.compact()
        assert kinds(timeline)[LayerKind.IMAGE] > len(images)
        await check(timeline, history, [*history.ends[::6], history.end])
        search = timeline.layers.search(kv_key(0), history.end)
        assert search.image is not None
        assert len(search.deltas) <= 3
        await timeline.uploader.wait_idle()
        await check((await rig.restart()).timeline(TIMELINE), history, history.ends[::9])

    play(story, **SMALL)


def test_an_image_omits_what_does_not_exist() -> None:
    async def story(rig: Rig) -> None:
        history = KvHistory()
        timeline = await rig.timeline()
        compactor = Compactor(timeline)
        await grow(timeline, history, 3)
        modification = timeline.modification
        modification.begin(timeline.prev_record_lsn, type(history.end)(history.end + 64))
        await modification.truncate_relation(KV, 2)
        modification.put(Key(12, 0, 0, 1, 0, 0), Image(b"file"))
        modification.put(Key(12, 0, 0, 2, 0, 0), Image(b"file"))
        modification.commit()
        modification.begin(timeline.prev_record_lsn, type(history.end)(history.end + 128))
        modification.put(Key(12, 0, 0, 2, 0, 0), Removed())
        modification.commit()
        timeline.finish_batch()
        await flush(timeline)
        await compactor.compact()
        end = timeline.last_record_lsn
        (image,) = (layer for layer in timeline.layers if layer.name.is_image)
        with pinned([image]):
            reader = await timeline.files.reader(image)
            held = [Key.decode(k) async for batch in reader.distinct_keys() for k in batch]
        assert [key for key in held if key.kind == 0] == [kv_key(0), kv_key(1)]
        assert Key(12, 0, 0, 1, 0, 0) in held
        assert Key(12, 0, 0, 2, 0, 0) not in held
        assert await timeline.get(kv_key(5), end) is None
        assert await timeline.get(kv_key(1), end) == history.page(1, history.end)
        assert await timeline.get(relation_size(KV), end) == b"\2\0\0\0"
        await check(timeline, history, history.ends[::10])

    play(story, **{**SMALL, "image_creation_threshold": 1, "compaction_target_size": 1 << 20})


def test_a_branchs_image_holds_what_it_inherits() -> None:
    async def story(rig: Rig) -> None:
        history = KvHistory()
        root = await rig.timeline()
        history.fill(60, keys=1200)
        await ingest(root, history)
        point, blocks = history.end, len(history.versions)
        child = await create_timeline(
            rig.tenants, TENANT, NewBranch(TimelineId("c" * 32), TIMELINE)
        )
        on_child = KvHistory(point, root.prev_record_lsn)
        await grow(child, on_child, 3)
        await Compactor(child).compact()
        assert kinds(child)[LayerKind.IMAGE] == 1
        everything = await keys_of(child, (FIRST_KEY, LAST_KEY), child.last_record_lsn)
        assert len([k for k in everything if k[0] == 0]) >= blocks
        root.break_down("the child does not need it for what its image holds")
        inherited = set(history.versions) - set(on_child.versions)
        assert len(inherited) > 5
        for block in sorted(inherited):
            assert await child.get(kv_key(block), child.last_record_lsn) == history.page(
                block, point
            )

    play(story, **{**SMALL, "image_creation_threshold": 1, "compaction_target_size": 1 << 20})


@pytest.mark.parametrize("seconds", [0.0, 0.0005, 0.002, 0.004, 0.01, 0.02, 0.05])
def test_a_power_cut_in_the_middle_of_a_compaction(seconds: float) -> None:
    async def story(rig: Rig) -> None:
        history = KvHistory()
        timeline = await rig.timeline()
        await grow(timeline, history, 3)
        compacting = asyncio.ensure_future(Compactor(timeline).compact())
        await asyncio.sleep(seconds)
        compacting.cancel()
        timeline = (await rig.restart(crash=True)).timeline(TIMELINE)
        assert timeline.last_record_lsn == history.end
        await check(timeline, history)
        await Compactor(timeline).compact()
        assert kinds(timeline)[LayerKind.DELTA_0] == 0
        await check(timeline, history)
        await timeline.uploader.wait_idle()
        listed = sorted(str(layer.name) for layer in timeline.layers)
        assert layer_files(rig) == listed
        assert set(listed) <= set(layer_objects(rig))

    play(story, **{**SMALL, "image_creation_threshold": 1})


def test_reads_go_on_while_layers_are_replaced() -> None:
    async def story(rig: Rig) -> None:
        history = KvHistory()
        timeline = await rig.timeline()
        await grow(timeline, history, 3)
        compacting = asyncio.ensure_future(Compactor(timeline).compact())
        reads = 0
        while not compacting.done():
            reads += await check(timeline, history, history.ends[reads % 7 :: 40])
            await asyncio.sleep(0.0003)
        await compacting
        assert reads > 10
        await check(timeline, history, history.ends[::20])

    play(story, **{**SMALL, "image_creation_threshold": 1, "index_cache_size": 0})


def test_nothing_is_compacted_by_a_superseded_attachment() -> None:
    async def story(rig: Rig) -> None:
        history = KvHistory()
        timeline = await rig.timeline()
        await grow(timeline, history, 3)
        timeline.uploader.superseded = True
        await Compactor(timeline).compact()
        assert kinds(timeline)[LayerKind.DELTA_0] == 3
        assert timeline.prev_record_lsn > INVALID_LSN

    play(story, **SMALL)
