"""A layer file that rots on a pageserver's disk is replaced by the object store's copy.

Found by a campaign (swarm, seed 6069): a compute could not start, because every page behind one
rotten file was refused although S3 had the layer whole.
"""

from __future__ import annotations

import pytest

from storage.errors import CorruptData
from storage.pageserver.layer import Layer
from storage.pageserver.layer_file import HEADER_SIZE
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
    file = await rig.disk.view().open(layer.path)
    at = place % layer.size
    (byte,) = await file.pread(at, 1)
    await file.pwrite(at, bytes([byte ^ 0x10]))
    await file.close()
    return layer


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
