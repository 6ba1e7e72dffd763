"""Single requests to S3 go wrong as they are told to, over the real client and server."""

import asyncio
import dataclasses
import random
import time

import pytest

from harness.fault_ports import NO_FAULTS, ServiceFaults
from real import s3_proxy
from real.object_store import S3ObjectStore
from real.s3_proxy import S3Proxy
from real.session import RealSession
from storage.errors import ObjectMissing, ObjectStoreError, PreconditionFailed


@pytest.fixture(scope="module")
def s3():
    session = RealSession(["real.tests.toy_roles"])
    yield session.services.s3
    session.close()


@pytest.fixture
def play(s3, monkeypatch):
    """Runs a story with a proxy and a client of a node behind it, in a part of the bucket."""
    monkeypatch.setattr(s3_proxy, "SILENCE_S_MAX", 0.2)
    monkeypatch.setattr(s3_proxy, "LATE_AFTER_S", 0.2)

    def play(story):
        async def whole():
            server = s3.endpoint.removeprefix("http://").split(":")
            proxy = S3Proxy((server[0], int(server[1])), random.Random(1))
            host, port = proxy.listen("n0")
            prefix = f"{story.__qualname__}/"
            near = dataclasses.replace(s3, endpoint=f"http://{host}:{port}", key_prefix=prefix)
            store = S3ObjectStore(near)
            truth = S3ObjectStore(dataclasses.replace(s3, key_prefix=prefix))
            try:
                async with asyncio.timeout(20):
                    await story(proxy, store, truth)
            finally:
                await store.close()
                await truth.close()
                await proxy.close()

        asyncio.run(whole())

    return play


def test_without_faults_everything_passes_unchanged(play):
    async def story(proxy, store, truth):
        etag = await store.put("a b/ü", b"x" * 100_000)
        assert await store.get("a b/ü") == b"x" * 100_000
        assert await store.get_range("a b/ü", 10, 5) == b"xxxxx"
        assert (await store.head("a b/ü")).etag == etag
        assert [found.key for found in await store.list("a")] == ["a b/ü"]
        await store.delete("a b/ü")
        with pytest.raises(ObjectMissing):
            await truth.get("a b/ü")
        assert not proxy.effects

    play(story)


def test_slow_down_does_nothing_and_an_internal_error_may(play):
    async def story(proxy, store, truth):
        proxy.faults = ServiceFaults(refused=1.0)
        with pytest.raises(ObjectStoreError, match="503 SlowDown"):
            await store.put("k", b"1")
        assert await truth.list("") == []
        proxy.faults = ServiceFaults(failed=1.0)
        for number in range(12):
            with pytest.raises(ObjectStoreError, match="500 InternalError"):
                await store.put(f"k{number}", b"1")
        assert 0 < len(await truth.list("")) < 12
        assert proxy.effects == {"calls_failed": 1, "errors_answered": 12}

    play(story)


def test_errors_that_answer_a_head_have_no_body(play):
    """HTTP forbids it; the proxy once died of its own answer."""

    async def story(proxy, store, truth):
        for faults, told in (
            (ServiceFaults(refused=1.0), "503"),
            (ServiceFaults(failed=1.0), "500"),
        ):
            proxy.faults = faults
            with pytest.raises(ObjectStoreError, match=told):
                await store.head("k")

    play(story)


def test_lost_replies_took_effect_and_lost_requests_did_not(play):
    async def story(proxy, store, truth):
        for faults, keys in (
            (ServiceFaults(lost_request=1.0), []),
            (ServiceFaults(lost_reply=1.0), ["k"]),
        ):
            proxy.faults = faults
            with pytest.raises(ObjectStoreError) as failure:
                await store.put("k", b"1")
            assert failure.value.may_have_happened
            assert [found.key for found in await truth.list("")] == keys

    play(story)


def test_a_conditional_put_whose_reply_is_lost_does_not_lose_against_itself(play):
    async def story(proxy, store, truth):
        proxy.faults = ServiceFaults(lost_reply=1.0)
        with pytest.raises(ObjectStoreError) as failure:
            await store.put("k", b"1", if_absent=True)
        assert not isinstance(failure.value, PreconditionFailed)
        assert failure.value.may_have_happened
        assert proxy.effects == {"replies_lost": 1}
        assert await truth.get("k") == b"1"

    play(story)


def test_a_late_put_comes_behind_a_newer_delete(play):
    async def story(proxy, store, truth):
        proxy.faults = ServiceFaults(late=1.0, late_s=0.1)
        with pytest.raises(ObjectStoreError):
            await store.put("k", b"1")
        proxy.faults = NO_FAULTS
        await store.delete("k")
        while not await truth.list(""):  # noqa: ASYNC110
            await asyncio.sleep(0.01)
        assert proxy.effects["late_effects"] == proxy.effects["calls_postponed"] == 1

    play(story)


def test_listings_fail_or_are_stale(play):
    async def story(proxy, store, truth):
        await store.put("a", b"1")
        proxy.faults = ServiceFaults(failing_list=1.0)
        with pytest.raises(ObjectStoreError, match="500 InternalError"):
            await store.list("")
        proxy.faults = NO_FAULTS
        proxy.listings = {}
        for key, stale in (("b", 0), ("c", 1), ("d", 2)):
            told = [found.key for found in await store.list("")]
            assert (told, proxy.effects["listings_stale"]) == (["a"], stale)
            await store.put(key, b"1")
        proxy.listings = None
        assert len(await store.list("")) == 4

    play(story)


def test_one_node_alone_loses_its_credentials(play):
    async def story(proxy, store, truth):
        proxy.denied["n0"] = None
        with pytest.raises(ObjectStoreError, match="was refused"):
            await store.put("k", b"1")
        proxy.denied = {"n1": None}
        await store.put("k", b"1")
        assert proxy.effects == {"calls_denied": 1}

    play(story)


def test_deletes_and_requests_take_longer(play):
    async def story(proxy, store, truth):
        await store.put("k", b"1")
        proxy.delete_delay_s = 0.3
        before_s = time.monotonic()
        await store.delete("k")
        assert time.monotonic() - before_s >= 0.3
        proxy.faults = ServiceFaults(slow=1.0, slow_s=0.1)
        await store.put("k", b"1")
        assert proxy.effects == {"deletes_slowed": 1, "calls_slowed": 1}

    play(story)
