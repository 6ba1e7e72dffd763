"""A timeline end to end below its front ends: ingest, flush, upload, reads at every LSN."""

from __future__ import annotations

import asyncio

import pytest

from sim.inode import Loss
from storage.errors import LsnOutOfScope, NotReady
from storage.events import Field, current_sink
from storage.lsn import Lsn
from storage.pageserver.read_view import ReadPoint, read_view
from storage.pageserver.states import State
from storage.tests.pageserver_world import (
    KV,
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


def test_pages_at_every_lsn_from_memory() -> None:
    async def story(rig: Rig) -> None:
        timeline, history = await rig.written(200)
        assert await check(timeline, history) >= 400

    play(story)


def test_pages_at_every_lsn_from_layers_and_after_restart() -> None:
    async def story(rig: Rig) -> None:
        history = KvHistory()
        timeline = await rig.timeline()
        for part in range(4):
            history.fill(60, seed=part)
            await ingest(timeline, history)
            await flush(timeline)
        history.fill(10, seed=9)
        await ingest(timeline, history)
        assert len(timeline.layers) == 4
        await check(timeline, history)

        tenant = await rig.restart()
        timeline = tenant.timeline(TIMELINE)
        assert timeline.last_record_lsn == history.end
        await check(timeline, history)

    play(story)


def test_a_power_cut_loses_only_what_was_not_uploaded() -> None:
    async def story(rig: Rig) -> None:
        timeline, history = await rig.written(50, flushed=True)
        safe = history.end
        history.fill(50, seed=2)
        await ingest(timeline, history)

        tenant = await rig.restart(crash=True)
        timeline = tenant.timeline(TIMELINE)
        assert timeline.last_record_lsn == safe
        assert timeline.remote_consistent.value == safe
        await ingest(timeline, history)
        await check(timeline, history)

    play(story)


def test_an_idle_timeline_is_flushed_by_time() -> None:
    async def story(rig: Rig) -> None:
        timeline, history = await rig.written(3)
        assert timeline.disk_consistent.value == START
        await asyncio.sleep(4.9)
        assert timeline.disk_consistent.value == START
        await asyncio.sleep(1)
        assert timeline.disk_consistent.value == history.end
        await timeline.remote_consistent.wait_for(history.end)

    play(story, checkpoint_timeout_s=5.0)


def test_the_open_layer_is_frozen_by_size() -> None:
    async def story(rig: Rig) -> None:
        history = KvHistory()
        timeline = await rig.timeline()
        for part in range(3):
            history.fill(100, seed=part)
            await ingest(timeline, history)
        await timeline.remote_consistent.wait_for(history.end)
        assert len(timeline.layers) == 3
        await check(timeline, history, history.ends[::10])

    play(story, checkpoint_distance=4000)


def test_reads_wait_for_their_lsn_and_give_up_in_time() -> None:
    async def story(rig: Rig) -> None:
        history = KvHistory()
        timeline = await rig.timeline()
        wanted = history.put((1, b"x"))

        async def read() -> bytes:
            async with read_view(timeline, ReadPoint.at(wanted)) as view:
                return await view.directory.relation_block(KV, 0)

        reading = asyncio.ensure_future(read())
        await asyncio.sleep(1)
        assert not reading.done()
        await ingest(timeline, history)
        assert await reading == history.page(0, wanted)

        with pytest.raises(NotReady, match=str(Lsn(wanted + 8))):
            async with read_view(timeline, ReadPoint.at(Lsn(wanted + 8))):
                pass

    play(story, wait_lsn_timeout_s=2.0)


def test_a_latest_read_is_as_of_the_last_record_not_of_its_hint() -> None:
    async def story(rig: Rig) -> None:
        history = KvHistory()
        timeline = await rig.timeline()
        first = history.put((1, b"old"))
        last = history.put((1, b"new"))
        await ingest(timeline, history)
        await raise_cutoff(timeline, last)
        async with read_view(timeline, ReadPoint(not_modified_since=first)) as view:
            assert view.lsn == last
            assert await view.directory.relation_block(KV, 0) == history.page(0, last)
        with pytest.raises(LsnOutOfScope, match=f"{first}.*{last}"):
            async with read_view(timeline, ReadPoint.at(first)):
                pass

    play(story)


def test_a_reader_inside_holds_back_whoever_raises_the_cutoff() -> None:
    async def story(rig: Rig) -> None:
        history = KvHistory()
        timeline = await rig.timeline()
        first = history.put((1, b"old"))
        last = history.put((1, b"new"))
        await ingest(timeline, history)
        async with read_view(timeline, ReadPoint.at(first)) as view:
            raising = asyncio.ensure_future(raise_cutoff(timeline, last))
            await asyncio.sleep(1)
            assert not raising.done()
            assert await view.directory.relation_block(KV, 0) == history.page(0, first)
        await raising

    play(story)


def test_disk_consistent_never_passes_a_layer_in_memory() -> None:
    async def story(rig: Rig) -> None:
        timeline, history = await rig.written(20)
        rig.disk.stall()
        timeline.freeze()
        history.fill(20, seed=2)
        await ingest(timeline, history)
        timeline.freeze()
        await asyncio.sleep(5)
        assert timeline.disk_consistent.value == START
        assert len(timeline.frozen) == 2
        await check(timeline, history, history.ends[::7])
        rig.disk.resume()
        await timeline.remote_consistent.wait_for(history.end)
        assert timeline.disk_consistent.value == history.end

    play(story)


def test_what_disk_consistent_promises_survives_a_power_cut() -> None:
    async def story(rig: Rig) -> None:
        history = KvHistory()
        timeline = await rig.timeline()
        rig.store.outage()
        for part in range(5):
            history.fill(20, seed=part)
            await ingest(timeline, history)
            timeline.freeze()
            await timeline.disk_consistent.wait_for(history.end)
            before = rig.disk.snapshot().files
            rig.disk.crash_host(Loss.EVERYTHING)
            after = rig.disk.snapshot().files
            for layer in timeline.layers:
                assert after[layer.path] == before[layer.path]
        rig.store.restore()

    play(story)


def test_positions_are_reported_in_an_order_that_makes_sense() -> None:
    reports: list[tuple[str, int]] = []

    def sink(kind: str, fields: dict[str, Field]) -> None:
        if kind == "lsn":
            reports.append((str(fields["name"]), int(fields["value"] or 0)))

    async def story(rig: Rig) -> None:
        current_sink.set(sink)
        history = KvHistory()
        timeline = await rig.timeline()
        for part in range(3):
            history.fill(5, seed=part)
            await ingest(timeline, history)
            history.put((1, b"x"))
            await ingest(timeline, history, finish=False)
            await flush(timeline)
            timeline.finish_batch()
            await asyncio.sleep(100)

    play(story, checkpoint_timeout_s=1.0)
    newest = {"last_record_lsn": 0, "disk_consistent_lsn": 0, "remote_consistent_lsn": 0}
    for name, value in reports:
        assert value > newest[name]
        newest[name] = value
        assert list(newest.values()) == sorted(newest.values(), reverse=True)
    assert len(reports) == 12


def test_closing_waits_for_a_read_of_a_file() -> None:
    async def story(rig: Rig) -> None:
        timeline, history = await rig.written(20, flushed=True)
        rig.disk.stall()
        reading = asyncio.ensure_future(timeline.get(kv_key(0), history.end))
        await asyncio.sleep(1)
        stopping = asyncio.ensure_future(rig.tenants.stop())
        await asyncio.sleep(30)
        assert timeline.state.state is State.STOPPING
        assert not reading.done()
        assert not stopping.done()
        rig.disk.resume()
        await stopping
        assert await reading == history.page(0, history.end)

    play(story, index_cache_size=0)


def test_an_outage_of_the_store_delays_only_the_remote_position() -> None:
    async def story(rig: Rig) -> None:
        timeline, history = await rig.written(20)
        rig.store.outage()
        timeline.freeze()
        await asyncio.sleep(30)
        assert timeline.disk_consistent.value == history.end
        assert timeline.remote_consistent.value == START
        rig.store.restore()
        await timeline.remote_consistent.wait_for(history.end)

    play(story)


def test_a_layer_that_is_not_local_is_downloaded() -> None:
    async def story(rig: Rig) -> None:
        timeline, history = await rig.written(50, flushed=True)
        await rig.tenants.detach(TENANT)
        assert not [path for path in rig.disk.snapshot().files if "delta" in path]
        tenant = await rig.tenants.attach(TENANT)
        timeline = tenant.timeline(TIMELINE)
        assert timeline.last_record_lsn == history.end
        await check(timeline, history, history.ends[::5])
        assert [path for path in rig.disk.snapshot().files if "delta" in path]

    play(story)


def test_key_missing_everywhere_is_none() -> None:
    async def story(rig: Rig) -> None:
        timeline, history = await rig.written(5, flushed=True)
        assert await timeline.get(kv_key(12345), history.end) is None

    play(story)
