"""Lives of tenants: create, attach, detach, restart, and two pageservers with the same tenant."""

from __future__ import annotations

import asyncio
import json

import pytest

from storage.errors import Conflict, NotFound, NotReady, ObjectStoreError
from storage.failpoints import Action, Failpoint, Plan
from storage.ids import TenantId, TimelineId
from storage.pageserver import attached
from storage.pageserver.creation import NewBranch, create_timeline
from storage.pageserver.index import TimelineIndex
from storage.pageserver.states import Broken, State
from storage.pageserver.tenants import Tenants
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
    make_environment,
    play,
)

OTHER = TenantId("e" * 32)


def second(rig: Rig) -> Tenants:
    """Another pageserver on the same bucket, with a disk of its own kind of path."""
    environment = make_environment(Rig(rig.loop, rig.options), "ps1", rig.options)
    environment.ports = type(environment.ports)(
        environment.ports.disk,
        rig.store.view("ps1"),
        rig.broker.view("ps1"),
        environment.ports.clock,
        environment.ports.entropy,
    )
    return Tenants(environment)


@pytest.mark.row("A1.repeat", "A1.keeps", worlds=("sim",))
def test_attach_is_idempotent_and_detach_keeps_the_data() -> None:
    async def story(rig: Rig) -> None:
        timeline, history = await rig.written(20)
        one, two = await asyncio.gather(rig.tenants.attach(TENANT), rig.tenants.attach(TENANT))
        assert one is two is rig.tenants.get(TENANT)

        await asyncio.gather(rig.tenants.detach(TENANT), rig.tenants.detach(TENANT))
        with pytest.raises(NotFound, match="not attached"):
            await rig.tenants.detach(TENANT)
        with pytest.raises(NotFound):
            rig.tenants.get(TENANT)
        assert await attached.load(rig.disk.view()) == {}
        assert not [path for path in rig.disk.snapshot().directories if TENANT in path]
        assert rig.environment.registry.snapshot() == []

        tenant = await rig.tenants.attach(TENANT)
        assert tenant.state.state is State.ACTIVE
        timeline = tenant.timeline(TIMELINE)
        assert timeline.last_record_lsn == history.end, "a detach ships what is in memory"
        await check(timeline, history)

    play(story)


def test_a_tenant_that_does_not_exist_is_not_attached() -> None:
    async def story(rig: Rig) -> None:
        with pytest.raises(NotFound, match="does not exist in the object store"):
            await rig.tenants.attach(OTHER)
        assert rig.tenants.all() == []
        assert await attached.load(rig.disk.view()) == {}
        await rig.tenants.create(OTHER)
        with pytest.raises(Conflict):
            await rig.tenants.create(OTHER)
        with pytest.raises(Conflict):
            await second(rig).create(OTHER)

    play(story)


def test_an_attachment_survives_outage_and_restart() -> None:
    async def story(rig: Rig) -> None:
        await rig.timeline()
        await rig.tenants.detach(TENANT)
        rig.store.outage()
        tenant = await rig.tenants.attach(TENANT)
        assert tenant.state.state is State.ATTACHING
        with pytest.raises(NotReady):
            tenant.timeline(TIMELINE)
        # Once answered, the attachment is durable whatever happens.
        await rig.environment.registry.shutdown(within_s=0.0)
        rig.disk.crash_host()
        rig.begin()
        await rig.tenants.load_attached()
        tenant = rig.tenants.get(TENANT)
        await asyncio.sleep(30)
        assert tenant.state.state is State.ATTACHING
        rig.store.restore()
        await tenant.state.wait_active()
        assert tenant.timeline(TIMELINE).last_record_lsn == START

    play(story, attach_answer_timeout_s=2.0)


def test_an_index_that_cannot_be_fetched_does_not_count_as_absent() -> None:
    async def story(rig: Rig) -> None:
        await rig.timeline()
        child = TimelineId("c" * 32)
        await create_timeline(rig.tenants, TENANT, NewBranch(child, TIMELINE))
        await rig.tenants.detach(TENANT)
        key = next(key for key in rig.keys if child in key)
        data = rig.store.bucket.get(key)
        get, failures = rig.store.bucket.get, 0

        def failing(wanted: str) -> bytes:
            nonlocal failures
            if wanted == key and failures < 5:
                failures += 1
                raise_error()
            return get(wanted)

        rig.store.bucket.get = failing  # type: ignore[method-assign]
        tenant = await rig.tenants.attach(TENANT)
        await tenant.state.wait_active()
        assert failures == 5
        assert sorted(tenant.timelines) == sorted([TIMELINE, child])
        assert TimelineIndex.decode(data, key).timeline_id == child

    def raise_error() -> None:
        raise ObjectStoreError("503 slow down")

    play(story)


def test_a_corrupt_index_breaks_the_tenant_loudly(caplog: pytest.LogCaptureFixture) -> None:
    async def story(rig: Rig) -> None:
        await rig.timeline()
        await rig.tenants.detach(TENANT)
        key = next(key for key in rig.keys if "index-" in key)
        body = json.loads(rig.store.bucket.get(key))
        body["disk_consistent_lsn"] = "0/FFFF00"
        rig.store.bucket.put(key, json.dumps(body).encode(), if_absent=False, if_etag=None)
        with pytest.raises(Broken, match=f"{key} fails its checksum"):
            await rig.tenants.attach(TENANT)
        assert rig.tenants.get(TENANT).state.state is State.BROKEN
        await rig.tenants.detach(TENANT)

    play(story)
    assert [record.levelname for record in caplog.records if record.levelno >= 30] == ["ERROR"]


@pytest.mark.row("A3.stale", worlds=("sim",))
def test_the_older_of_two_attachments_serves_but_changes_nothing() -> None:
    async def story(rig: Rig) -> None:
        history = KvHistory()
        old = await rig.timeline()
        history.fill(20)
        await ingest(old, history)
        await flush(old)
        shared = history.end

        ps1 = second(rig)
        tenant = await ps1.attach(TENANT)
        new = tenant.timeline(TIMELINE)
        assert tenant.generation == rig.tenants.get(TENANT).generation + 1
        history.fill(20, seed=2)
        for timeline in (old, new):
            await ingest(timeline, history)
        await flush(new)
        old.freeze()
        await asyncio.sleep(5)

        assert old.uploader.superseded
        assert old.remote_consistent.value == shared, "it may not promise what it cannot keep"
        assert old.disk_consistent.value == history.end
        await check(old, history)
        await check(new, history)
        newest = [key for key in rig.keys if "index-" in key]
        assert [TimelineIndex.decode(rig.store.bucket.get(k), k).generation for k in newest] == [2]
        with pytest.raises(Conflict, match="attached elsewhere"):
            await create_timeline(rig.tenants, TENANT, NewBranch(TimelineId("c" * 32), TIMELINE))

        # A restart does not bring the older one back to power.
        restarted = await rig.restart()
        assert restarted.is_superseded()
        assert (await tenant.remote.newest_attachment()).node == "ps1"
        await check(restarted.timeline(TIMELINE), history, [history.end])
        await rig.tenants.detach(TENANT)
        await check(new, history)
        await ps1.stop()

    play(story)


@pytest.mark.parametrize("later_s", [number * 0.001 for number in range(1, 60, 3)])
def test_a_restart_takes_nothing_from_who_attaches_meanwhile(later_s: float) -> None:
    """Whatever comes first: somebody asked ps1 to attach, nobody asked ps0 to do so again."""

    async def story(rig: Rig) -> None:
        await rig.timeline()
        await rig.tenants.stop()
        await rig.environment.registry.shutdown(within_s=0.0)
        rig.begin()
        await rig.tenants.load_attached()
        await asyncio.sleep(later_s)
        ps1 = second(rig)
        tenant = await ps1.attach(TENANT)
        await tenant.state.wait_active()
        resumed = rig.tenants.get(TENANT)
        await resumed.state.wait_active()
        await asyncio.sleep(5)
        assert (await tenant.remote.newest_attachment()).node == "ps1"
        await create_timeline(ps1, TENANT, NewBranch(TimelineId("c" * 32), TIMELINE))
        await ps1.stop()

    play(story)


def test_an_attachment_that_begins_anew_takes_nothing_back() -> None:
    async def story(rig: Rig) -> None:
        await rig.timeline()
        await rig.tenants.detach(TENANT)
        failpoints = rig.environment.registry.failpoints
        failpoints.arm(Failpoint.PS_ATTACH_CLAIMED, Plan(Action.RETURN, count=5))
        attaching = asyncio.ensure_future(rig.tenants.attach(TENANT))
        ps1 = second(rig)
        await asyncio.sleep(0.1)
        tenant = await ps1.attach(TENANT)
        await tenant.state.wait_active()
        assert tenant.generation >= 3, "ps0 was the newest once"
        assert (await attaching).is_superseded()
        assert (await tenant.remote.newest_attachment()).node == "ps1"
        await ps1.stop()

    play(story)


def test_a_restart_takes_a_new_generation_so_that_names_never_repeat() -> None:
    async def story(rig: Rig) -> None:
        await rig.timeline()
        generations = [rig.tenants.get(TENANT).generation]
        for crash in (False, True, True):
            tenant = await rig.restart(crash=crash)
            generations.append(tenant.generation)
        assert generations == [1, 2, 3, 4]
        assert await attached.load(rig.disk.view()) == {TENANT: 4}

    play(story)


def test_detach_does_not_hang_while_the_store_is_away() -> None:
    async def story(rig: Rig) -> None:
        await rig.written(20)
        rig.store.outage()
        started = rig.loop.time()
        await rig.tenants.detach(TENANT)
        assert rig.loop.time() - started < 10
        assert rig.tenants.all() == []
        rig.store.restore()

    play(story, detach_flush_timeout_s=3.0)


def test_detach_ends_a_reader_that_waits_for_a_download() -> None:
    async def story(rig: Rig) -> None:
        timeline, history = await rig.written(20, flushed=True)
        await rig.tenants.detach(TENANT)
        timeline = (await rig.tenants.attach(TENANT)).timeline(TIMELINE)
        rig.store.outage()
        reading = asyncio.ensure_future(timeline.get(kv_key(0), history.end))
        await asyncio.sleep(1)
        await rig.tenants.detach(TENANT)
        assert reading.done()
        with pytest.raises(NotReady):
            await reading
        assert not [path for path in rig.disk.snapshot().directories if TENANT in path]
        rig.store.restore()

    play(story, detach_flush_timeout_s=1.0)


def test_attach_right_after_detach_meets_no_old_files() -> None:
    async def story(rig: Rig) -> None:
        history = KvHistory()
        timeline = await rig.timeline()
        for part in range(5):
            history.fill(10, seed=part)
            await ingest(timeline, history)
            timeline.freeze()
            detaching = asyncio.ensure_future(rig.tenants.detach(TENANT))
            await asyncio.sleep(0)
            attaching = asyncio.ensure_future(rig.tenants.attach(TENANT))
            await detaching
            timeline = (await attaching).timeline(TIMELINE)
            assert timeline.last_record_lsn == history.end
            await check(timeline, history, history.ends[-5:])

    play(story)


def test_the_nodes_stop_joins_a_detach_under_way() -> None:
    async def story(rig: Rig) -> None:
        await rig.written(20)
        detaching = asyncio.ensure_future(rig.tenants.detach(TENANT))
        await asyncio.sleep(0.001)
        await rig.tenants.stop()
        assert not [path for path in rig.disk.snapshot().directories if TENANT in path]
        await detaching
        with pytest.raises(NotReady, match="stopping"):
            await rig.tenants.attach(TENANT)

    play(story)


def test_leftovers_are_removed_at_start() -> None:
    async def story(rig: Rig) -> None:
        timeline, history = await rig.written(20, flushed=True)
        disk = rig.disk.view()
        home = f"tenants/{TENANT}/timelines"
        await disk.mkdir(f"tenants/{OTHER}/timelines")
        await disk.mkdir(f"{home}/{'f' * 32}")
        (name,) = (layer.name for layer in timeline.layers)
        for path in (f"{home}/{TIMELINE}/flush.tmp", f"{home}/{TIMELINE}/{str(name)[:-1]}9"):
            await (await disk.open(path, create=True)).pwrite(0, b"half")
        tenant = await rig.restart()
        left = [path for path in rig.disk.snapshot().files if path.startswith(home)]
        assert left == [f"{home}/{TIMELINE}/{name}"]
        assert not await disk.exists(f"tenants/{OTHER}")
        assert not await disk.exists(f"{home}/{'f' * 32}")
        await check(tenant.timeline(TIMELINE), history)

    play(story)
