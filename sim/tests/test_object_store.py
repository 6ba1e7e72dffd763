"""The simulated bucket's troubles: whatever a real client of S3 can meet, and nothing forbidden."""

import asyncio

import pytest

import sim
from sim.latency import Constant
from sim.object_store import ObjectStoreOptions, SimObjectStore
from sim.service import ServiceFaults, ServiceOptions
from storage.errors import ObjectMissing, ObjectStoreError, PreconditionFailed


class Process:
    def __init__(self):
        self.alive = True


def run(test, seed=0, options=None):
    async def main():
        loop = asyncio.get_running_loop()
        store = SimObjectStore(loop, loop.seeds.child("object-store"), options)
        return await test(store, store.view("a"))

    return sim.run(main, seed=seed)


async def failure(call):
    with pytest.raises(ObjectStoreError) as raised:
        await call
    assert type(raised.value) is ObjectStoreError
    return raised.value


def test_a_refused_request_did_not_happen():
    async def test(store, view):
        store.service.inject(ServiceFaults(refused=1.0))
        error = await failure(view.put("k", b"x"))
        assert not error.may_have_happened
        assert await store.admin().list("") == []
        assert store.effects()["calls_failed"] == 1

    run(test)


def test_a_lost_request_and_a_lost_reply_look_the_same():
    async def test(store, view):
        loop = asyncio.get_running_loop()
        errors = []
        for key, faults in (
            ("lost", ServiceFaults(lost_request=1.0)),
            ("done", ServiceFaults(lost_reply=1.0)),
        ):
            store.service.inject(faults)
            begun_s = loop.time()
            errors.append(await failure(view.put(key, b"x")))
            assert loop.time() - begun_s == pytest.approx(store.options.service.timeout_s)
        assert [error.may_have_happened for error in errors] == [True, True]
        assert [each.key for each in await store.admin().list("")] == ["done"]
        assert store.effects()["requests_lost"] == 1
        assert store.effects()["replies_lost"] == 1

    run(test)


def test_a_late_put_overwrites_what_came_after_it():
    """A retry succeeds, and the request that was given up lands on top of it."""

    async def test(store, view):
        store.service.inject(ServiceFaults(late=1.0))
        await failure(view.put("k", b"first"))
        store.service.inject(ServiceFaults())
        await view.put("k", b"second")
        assert await view.get("k") == b"second"
        await asyncio.sleep(60)
        assert store.effects()["late_effects"] == 1
        return await view.get("k")

    assert {run(test, seed) for seed in range(5)} == {b"first"}


def test_a_late_conditional_put_cannot_do_harm():
    async def test(store, view):
        store.service.inject(ServiceFaults(late=1.0))
        await failure(view.put("k", b"first", if_absent=True))
        store.service.inject(ServiceFaults())
        await view.put("k", b"second", if_absent=True)
        await asyncio.sleep(60)
        assert await view.get("k") == b"second"

    run(test)


def test_concurrent_put_and_delete_take_effect_in_either_order():
    async def test(store, view):
        await view.put("k", b"old")
        await asyncio.gather(view.put("k", b"new"), view.delete("k"))
        return [each.size for each in await view.list("")]

    assert {tuple(run(test, seed)) for seed in range(40)} == {(), (3,)}


def test_one_request_after_the_other_is_never_reordered():
    async def test(store, view):
        for number in range(30):
            await view.put("k", b"%d" % number)
            assert await store.view("b").get("k") == b"%d" % number
        await view.delete("k")
        with pytest.raises(ObjectMissing):
            await store.view("b").get("k")

    run(test)


def test_slow_deletes_delay_nothing_else():
    async def test(store, view):
        loop = asyncio.get_running_loop()
        await view.put("k", b"x")
        store.slow_deletes(30.0)
        begun_s = loop.time()
        deleting = asyncio.ensure_future(view.delete("k"))
        await view.get("k")
        assert loop.time() - begun_s < 5.0
        await deleting
        assert loop.time() - begun_s > 30.0

    run(test)


def test_slots_make_requests_queue():
    options = ObjectStoreOptions(
        service=ServiceOptions(travel=Constant(0.0), work=Constant(1.0), slots=2, timeout_s=100.0)
    )

    async def test(store, view):
        loop = asyncio.get_running_loop()
        begun_s = loop.time()
        await asyncio.gather(*(view.list("") for _ in range(6)))
        return loop.time() - begun_s

    assert run(test, options=options) == pytest.approx(3.0)


def test_an_outage_cuts_off_what_is_under_way():
    async def test(store, view):
        putting = asyncio.ensure_future(view.put("k", b"x" * 10_000_000))
        await asyncio.sleep(0.01)
        store.outage()
        error = await failure(putting)
        assert error.may_have_happened
        store.restore()
        assert await view.list("") == []
        assert store.effects()["calls_cut"] == 1

    run(test)


def test_during_an_outage_requests_fail_at_once_or_hang():
    async def test(store, view):
        loop = asyncio.get_running_loop()
        store.outage()
        begun_s = loop.time()
        await failure(view.get("k"))
        return loop.time() - begun_s

    waits = [run(test, seed) for seed in range(20)]

    assert min(waits) < 0.1
    assert max(waits) == pytest.approx(ObjectStoreOptions().service.timeout_s)


def test_faults_of_one_node_are_not_anothers():
    async def test(store, view):
        other = store.view("b")
        store.service.cut("a")
        await failure(view.put("k", b"x"))
        await other.put("k", b"y")
        store.service.heal("a")
        assert await view.get("k") == b"y"
        store.service.deny("a")
        assert not (await failure(view.put("k", b"x"))).may_have_happened
        assert await other.get("k") == b"y"
        store.service.allow("a")
        store.service.inject(ServiceFaults(refused=1.0), "a")
        await failure(view.get("k"))
        assert await other.get("k") == b"y"

    run(test)


def test_a_request_of_a_node_that_died_may_still_take_effect_and_is_never_answered():
    async def test(store, view):
        process = Process()
        dying = store.view("b", process)
        putting = asyncio.ensure_future(dying.put("k", b"x"))
        await asyncio.sleep(0)
        process.alive = False
        await asyncio.sleep(60)
        assert not putting.done()
        putting.cancel()
        await asyncio.gather(putting, return_exceptions=True)
        effects = store.effects()
        assert effects["orphans_applied"] + effects["orphans_dropped"] == 1
        return len(await view.list(""))

    assert {run(test, seed) for seed in range(20)} == {0, 1}


def test_a_dead_incarnation_asks_nothing():
    async def test(store, view):
        process = Process()
        dead = store.view("b", process)
        process.alive = False
        calls = [dead.put("k", b"x"), dead.get("k"), dead.list(""), dead.delete("k")]
        tasks = [asyncio.ensure_future(call) for call in calls]
        await asyncio.sleep(60)
        assert not any(task.done() for task in tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        assert await view.list("") == []

    run(test)


def test_a_cancelled_request_may_still_take_effect():
    async def test(store, view):
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.0005):
                await view.put("k", b"x")
        await asyncio.sleep(60)
        return len(await view.list(""))

    assert {run(test, seed) for seed in range(20)} == {0, 1}


def test_what_was_put_cannot_be_changed_by_its_owner():
    async def test(store, view):
        data = bytearray(b"first")
        putting = asyncio.ensure_future(view.put("k", data))
        await asyncio.sleep(0)
        data[:] = b"other"
        await putting
        assert await view.get("k") == b"first"

    run(test)


def test_the_oracle_sees_past_every_fault_and_takes_no_time():
    async def test(store, view):
        loop = asyncio.get_running_loop()
        etag = await view.put("k", b"0123")
        store.outage()
        begun_s = loop.time()
        admin = store.admin()
        assert await admin.get("k") == b"0123"
        assert await admin.get_range("k", 1, 2) == b"12"
        assert (await admin.head("k")).etag == etag
        with pytest.raises(PreconditionFailed):
            await admin.put("k", b"", if_absent=True)
        await admin.delete("k")
        with pytest.raises(ObjectMissing):
            await admin.get("k")
        assert loop.time() == begun_s

    run(test)


def test_impossible_chances_are_refused():
    with pytest.raises(ValueError, match="between 0 and 1"):
        ServiceFaults(refused=0.7, late=0.7)
    with pytest.raises(ValueError, match="between 0 and 1"):
        ServiceFaults(slow=-0.1)


def test_chances_come_true_about_as_often_as_they_say():
    async def test(store, view):
        store.service.inject(ServiceFaults(refused=0.25, lost_reply=0.25))
        outcomes = await asyncio.gather(
            *(view.put(f"k{i}", b"") for i in range(400)), return_exceptions=True
        )
        errors = [each for each in outcomes if isinstance(each, ObjectStoreError)]
        doubtful = [error for error in errors if error.may_have_happened]
        assert 60 < len(doubtful) < 140
        assert 60 < len(errors) - len(doubtful) < 140
        assert len(await store.admin().list("")) == 400 - (len(errors) - len(doubtful))

    run(test)


def test_same_seed_same_story():
    async def test(store, view):
        store.service.inject(ServiceFaults(refused=0.2, lost_reply=0.2, late=0.2, slow=0.5))
        outcomes = await asyncio.gather(
            *(view.put(f"k{i % 7}", b"%d" % i) for i in range(50)), return_exceptions=True
        )
        await asyncio.sleep(60)
        objects = [await store.admin().get(each.key) for each in await store.admin().list("")]
        return [str(each) for each in outcomes], objects, store.effects()

    assert run(test, 3) == run(test, 3)
    assert run(test, 3) != run(test, 4)
