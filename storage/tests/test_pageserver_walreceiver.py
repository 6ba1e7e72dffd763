"""The walreceiver: choosing safekeepers, streaming, stopping, and WAL that cannot be trusted."""

from __future__ import annotations

import asyncio
import json

import pytest

from storage.errors import BadRequest, ProtocolError
from storage.lsn import Lsn
from storage.pageserver.discovery import status_prefix
from storage.pageserver.feedback import PageserverFeedback
from storage.pageserver.options import PageserverOptions
from storage.pageserver.states import Broken, State
from storage.pageserver.timeline import Timeline
from storage.pageserver.walreceiver import parse_size
from storage.tests.pageserver_world import (
    IDENT,
    START,
    TENANT,
    TIMELINE,
    KvHistory,
    Rig,
    check,
    flush,
    play,
)
from storage.tests.scripted_safekeeper import ScriptedSafekeeper


def test_sizes_as_show_prints_them() -> None:
    assert [parse_size(text) for text in ("1MB", "16MB", "512kB", "8192B", "1GB", "7")] == [
        1 << 20,
        1 << 24,
        1 << 19,
        8192,
        1 << 30,
        7,
    ]
    for text in ("", "MB", "1TB", "-1MB"):
        with pytest.raises(ProtocolError):
            parse_size(text)


def test_feedback_survives_its_encoding() -> None:
    feedback = PageserverFeedback(Lsn(3), Lsn(2), Lsn(1))
    assert PageserverFeedback.decode(feedback.encode()) == feedback
    assert json.loads(feedback.encode()[1:])["remote_consistent_lsn"] == "0/1"
    for message in (b"", b"z", b"z{}", b"r" + feedback.encode()[1:]):
        with pytest.raises(ProtocolError):
            PageserverFeedback.decode(message)


# Streaming.


class Stage:
    """A timeline, its history and safekeepers that publish themselves."""

    def __init__(self, rig: Rig) -> None:
        self.rig = rig
        self.history = KvHistory()
        self.safekeepers: list[ScriptedSafekeeper] = []

    async def start(self, count: int = 1) -> Timeline:
        for number in range(count):
            safekeeper = ScriptedSafekeeper(f"sk{number}", START, lambda: self.history.wal)
            self.rig.loop.nodes.start(safekeeper.name)
            with self.rig.loop.nodes.acting_as(safekeeper.name):
                await self.rig.loop.create_task(safekeeper.listen())
            self.safekeepers.append(safekeeper)
            self.rig.servers.append(safekeeper)
        return await self.rig.timeline()

    async def commit(self, count: int, *safekeepers: int) -> Lsn:
        """More WAL, committed (and published) by some safekeepers, or all."""
        self.history.fill(count, seed=len(self.history.ends))
        for number, safekeeper in enumerate(self.safekeepers):
            if not safekeepers or number in safekeepers:
                safekeeper.commit(self.history.end)
                await self.publish(safekeeper)
        return self.history.end

    async def publish(self, safekeeper: ScriptedSafekeeper) -> None:
        said = {"active": True, "standby_horizon": "0/0", "pg_addr": safekeeper.address}
        status = json.dumps({**said, "commit_lsn": str(safekeeper.commit_lsn)})
        key = status_prefix(IDENT) + safekeeper.name
        await self.rig.broker.admin().publish(key, status.encode(), ttl_s=1000.0)


def test_wal_is_followed_and_positions_are_reported() -> None:
    async def story(rig: Rig) -> None:
        stage = Stage(rig)
        timeline = await stage.start()
        await timeline.last_record.wait_for(await stage.commit(50))
        await timeline.last_record.wait_for(await stage.commit(1))
        await check(timeline, stage.history, stage.history.ends[::7])
        (safekeeper,) = stage.safekeepers
        assert safekeeper.streams == 1
        await flush(timeline)
        await asyncio.sleep(0.2)
        assert safekeeper.feedback[-1] == PageserverFeedback(*[stage.history.end] * 3)
        lasts = [feedback.last_received_lsn for feedback in safekeeper.feedback]
        assert lasts == sorted(lasts)

    play(story)


def test_callmemaybe_starts_a_stream_and_is_refused_for_strangers() -> None:
    async def story(rig: Rig) -> None:
        stage = Stage(rig)
        timeline = await stage.start()
        stage.history.fill(20)
        (safekeeper,) = stage.safekeepers
        safekeeper.commit(stage.history.end)
        await asyncio.sleep(5)
        assert safekeeper.streams == 0
        rig.tenants.get(TENANT).call_me_maybe(TIMELINE, safekeeper.address)
        await timeline.last_record.wait_for(stage.history.end)
        safekeeper.end_streams()
        await asyncio.sleep(1.5)
        receiver = rig.tenants.get(TENANT).receivers[TIMELINE]
        assert receiver.describe()["state"] == "disconnected", "the end of the stream ends it"
        await asyncio.sleep(60)
        assert safekeeper.streams == 1, "it will call again when there is more"
        stage.history.fill(5)
        safekeeper.commit(stage.history.end)
        rig.tenants.get(TENANT).call_me_maybe(TIMELINE, safekeeper.address)
        await timeline.last_record.wait_for(stage.history.end)

    play(story, discovery="callmemaybe")


def test_a_stream_that_breaks_is_resumed_after_the_last_whole_record() -> None:
    async def story(rig: Rig) -> None:
        stage = Stage(rig)
        timeline = await stage.start()
        (safekeeper,) = stage.safekeepers
        safekeeper.piece = 77
        stage.history.fill(300)
        for cut in range(60, len(stage.history.wal), 701):
            safekeeper.commit(Lsn(START + cut))
            await stage.publish(safekeeper)
            await asyncio.sleep(0.5)
            rig.loop.network.reset("sk0", rig.loop.nodes.home.name)
        safekeeper.commit(stage.history.end)
        await stage.publish(safekeeper)
        await timeline.last_record.wait_for(stage.history.end)
        assert safekeeper.streams > 5
        await check(timeline, stage.history, stage.history.ends[::30])

    play(story)


def test_a_lagging_and_then_a_dead_safekeeper_are_left() -> None:
    async def story(rig: Rig) -> None:
        stage = Stage(rig)
        timeline = await stage.start(3)
        end = await stage.commit(10)
        await timeline.last_record.wait_for(end)
        first = next(n for n, sk in enumerate(stage.safekeepers) if sk.live)
        others = [n for n in range(3) if n != first]
        end = await stage.commit(10, *others)
        async with asyncio.timeout(15):
            await timeline.last_record.wait_for(end)
        current = next(n for n, sk in enumerate(stage.safekeepers) if sk.live)
        assert current != first
        rig.servers.remove(stage.safekeepers[current])
        rig.loop.nodes.crash(f"sk{current}")
        rest = [n for n in others if n != current]
        end = await stage.commit(10, *rest)
        async with asyncio.timeout(30):
            await timeline.last_record.wait_for(end)
        await check(timeline, stage.history, stage.history.ends[::5])

    play(story)


def test_a_silent_safekeeper_is_left_and_may_come_back() -> None:
    async def story(rig: Rig) -> None:
        stage = Stage(rig)
        timeline = await stage.start()
        (safekeeper,) = stage.safekeepers
        await timeline.last_record.wait_for(await stage.commit(10))
        safekeeper.is_silent = True
        end = await stage.commit(10)
        await asyncio.sleep(60)
        assert safekeeper.streams > 2
        assert timeline.last_record_lsn < end
        safekeeper.is_silent = False
        async with asyncio.timeout(20):
            await timeline.last_record.wait_for(end)

    play(story)


def test_the_broker_may_go_away() -> None:
    async def story(rig: Rig) -> None:
        stage = Stage(rig)
        timeline = await stage.start()
        await timeline.last_record.wait_for(await stage.commit(10))
        rig.broker.outage()
        stage.history.fill(10)
        stage.safekeepers[0].commit(stage.history.end)
        await timeline.last_record.wait_for(stage.history.end)
        await asyncio.sleep(30)
        rig.broker.restore()
        stage.safekeepers[0].end_streams()
        await asyncio.sleep(30)
        await timeline.last_record.wait_for(await stage.commit(10))

    play(story)


def test_an_idle_stream_stops_at_once() -> None:
    async def story(rig: Rig) -> None:
        stage = Stage(rig)
        timeline = await stage.start()
        await timeline.last_record.wait_for(await stage.commit(10))
        await flush(timeline)
        await asyncio.sleep(5)
        started = rig.loop.time()
        await rig.tenants.detach(TENANT)
        assert rig.loop.time() - started < 0.9
        await asyncio.sleep(1)
        assert stage.safekeepers[0].live == 0

    play(story)


def test_one_safekeepers_rotten_disk_is_left_for_another(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async def story(rig: Rig) -> None:
        stage = Stage(rig)
        timeline = await stage.start(2)
        end = await stage.commit(10)
        await timeline.last_record.wait_for(end)
        rotten = next(safekeeper for safekeeper in stage.safekeepers if safekeeper.live)
        rotten.rotten_at = Lsn(end + 30)
        async with asyncio.timeout(60):
            await timeline.last_record.wait_for(await stage.commit(10))
        assert timeline.state.state is State.ACTIVE
        await check(timeline, stage.history, stage.history.ends[::5])

    play(story)
    (warning,) = [record for record in caplog.records if record.levelname != "INFO"]
    assert "is damaged: record at" in warning.getMessage()
    assert warning.levelname == "WARNING"


def test_wal_of_one_safekeeper_that_stays_rotten_breaks_nothing() -> None:
    async def story(rig: Rig) -> None:
        stage = Stage(rig)
        timeline = await stage.start()
        await timeline.last_record.wait_for(end := await stage.commit(10))
        (safekeeper,) = stage.safekeepers
        safekeeper.rotten_at = Lsn(end + 30)
        newest = await stage.commit(10)
        await asyncio.sleep(30)
        assert timeline.last_record_lsn == end
        assert timeline.state.state is State.ACTIVE
        safekeeper.rotten_at = None
        async with asyncio.timeout(20):
            await timeline.last_record.wait_for(newest)

    play(story)


def test_wal_that_is_not_understood_breaks_the_timeline_loudly(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async def story(rig: Rig) -> None:
        stage = Stage(rig)
        timeline = await stage.start(2)
        end = await stage.commit(10)
        await timeline.last_record.wait_for(end)
        for safekeeper in stage.safekeepers:
            safekeeper.rotten_at = Lsn(end + 30)
        await stage.commit(1)
        with pytest.raises(Broken, match=f"ingest stopped at {end}.*CRC"):
            await timeline.last_record.wait_for(Lsn(end + 8))
        assert timeline.state.state is State.BROKEN
        assert timeline.last_record_lsn == end

    play(story)
    errors = [record for record in caplog.records if record.levelname == "ERROR"]
    assert len(errors) == 1
    assert "CRC" in errors[0].getMessage()


# Options.


def test_options_are_parsed_strictly() -> None:
    parsed = PageserverOptions.parse({"node_id": 3, "checkpoint_timeout_s": 1})
    assert (parsed.node_id, parsed.checkpoint_timeout_s) == (3, 1)
    for data, message in (
        ({}, "'node_id'"),
        ({"node_id": "1"}, "node_id: '1'"),
        ({"node_id": 1, "gc_speed": 1}, "'gc_speed'"),
        ({"node_id": 1, "discovery": "gossip"}, "gossip"),
        ({"node_id": 1, "checkpoint_distance": -1}, "negative"),
        ({"node_id": True}, "node_id"),
    ):
        with pytest.raises(BadRequest, match=message):
            PageserverOptions.parse(data)
