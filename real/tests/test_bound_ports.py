"""Clients that live on another thread of the node: results, errors, cancellations cross over."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any, cast

import pytest

from real.bound_ports import BoundBroker, BoundObjectStore, Home
from real.broker import EtcdBroker
from real.object_store import S3ObjectStore
from real.runtimes import ThreadRuntimes
from storage.errors import BrokerError, ObjectMissing
from storage.ports import BrokerUpdate
from storage.runtimes import RuntimeEnded, RuntimeName


class Leadership:
    def __init__(self) -> None:
        self.fencing_token = 7
        self.resigned = threading.Event()

    async def resign(self) -> None:
        self.resigned.set()

    async def lost(self) -> None:
        await asyncio.sleep(0)


class Client:
    """Notes which thread it is used on."""

    def __init__(self) -> None:
        self.threads: list[str] = []
        self.leadership = Leadership()
        self.winning = threading.Event()
        self.cancelled = threading.Event()
        self.left = False

    def note(self) -> None:
        self.threads.append(threading.current_thread().name)

    async def get(self, key: str) -> bytes:
        self.note()
        if key == "missing":
            raise ObjectMissing(key)
        if key == "slow":
            self.winning.set()
            try:
                await asyncio.sleep(60)
            except asyncio.CancelledError:
                self.cancelled.set()
                raise
        return key.encode()

    async def campaign(self, _election: str, candidate: str, *, ttl_s: float) -> Leadership:
        self.note()
        self.winning.set()
        if candidate == "blocks":
            threading.Event().wait(0.2)  # Wins while nobody can tell it that it is cancelled.
        return self.leadership

    @asynccontextmanager
    async def subscribe(self, _prefix: str) -> AsyncIterator[AsyncIterator[BrokerUpdate]]:
        self.note()

        async def updates() -> AsyncIterator[BrokerUpdate]:
            self.note()
            yield BrokerUpdate("a", b"1")
            self.note()

        try:
            yield updates()
        finally:
            self.note()
            self.left = True

    async def close(self) -> None:
        self.note()


def play(
    story: Callable[[Client, ThreadRuntimes], Awaitable[None]], *, opened: bool = True
) -> Client:
    client = Client()

    async def whole() -> None:
        runtimes = ThreadRuntimes(asyncio.new_event_loop)
        if opened:
            for name in (RuntimeName.BACKUP, RuntimeName.BROKER):
                runtimes.open(name)
        try:
            async with asyncio.timeout(20):
                await story(client, runtimes)
        finally:
            await runtimes.close()

    asyncio.run(whole())
    return client


def store(client: Client, runtimes: ThreadRuntimes) -> BoundObjectStore:
    return BoundObjectStore(cast(S3ObjectStore, client), Home(runtimes, RuntimeName.BACKUP))


def broker(client: Client, runtimes: ThreadRuntimes) -> BoundBroker:
    return BoundBroker(cast(EtcdBroker, client), Home(runtimes, RuntimeName.BROKER))


def test_results_and_errors_cross_over_from_the_client_s_own_thread():
    async def story(client: Client, runtimes: ThreadRuntimes) -> None:
        bound = store(client, runtimes)
        assert await bound.get("key") == b"key"
        with pytest.raises(ObjectMissing, match="missing"):
            await bound.get("missing")
        await bound.close()

    assert play(story).threads == ["backup"] * 3


def test_a_node_that_opened_no_runtime_uses_its_main_loop():
    async def story(client: Client, runtimes: ThreadRuntimes) -> None:
        assert await store(client, runtimes).get("key") == b"key"
        async with broker(client, runtimes).subscribe("x") as updates:
            assert [update.key async for update in updates] == ["a"]

    threads = play(story, opened=False).threads
    assert {*threads} == {threading.main_thread().name}


def test_a_cancelled_call_is_cancelled_over_there():
    async def story(client: Client, runtimes: ThreadRuntimes) -> None:
        asking = asyncio.create_task(store(client, runtimes).get("slow"))
        await asyncio.to_thread(client.winning.wait, 10)
        asking.cancel()
        with pytest.raises(asyncio.CancelledError):
            await asking
        assert await asyncio.to_thread(client.cancelled.wait, 10)

    play(story)


def test_a_stream_of_updates_crosses_over_and_is_left_over_there():
    async def story(client: Client, runtimes: ThreadRuntimes) -> None:
        async with broker(client, runtimes).subscribe("x") as updates:
            assert [update async for update in updates] == [BrokerUpdate("a", b"1")]
        assert client.left

    assert {*play(story).threads} == {"broker"}


def test_leadership_won_in_the_moment_of_giving_up_is_resigned():
    """Its keep-alive would keep every other member from offloading while this node runs."""

    async def story(client: Client, runtimes: ThreadRuntimes) -> None:
        bound = broker(client, runtimes)
        campaign = asyncio.create_task(bound.campaign("e", "blocks", ttl_s=1))
        await asyncio.to_thread(client.winning.wait, 10)
        campaign.cancel()
        with pytest.raises(asyncio.CancelledError):
            await campaign
        assert await asyncio.to_thread(client.leadership.resigned.wait, 10)
        won = await bound.campaign("e", "again", ttl_s=1)
        assert won.fencing_token == 7
        await won.lost()
        await bound.close()

    play(story)


def test_calls_of_an_ended_runtime_fail_and_do_not_hang():
    async def story(client: Client, runtimes: ThreadRuntimes) -> None:
        bound = store(client, runtimes)
        runtime = runtimes.open(RuntimeName.BACKUP)
        asking = asyncio.create_task(bound.get("slow"))
        await asyncio.to_thread(client.winning.wait, 10)
        runtime.post(lambda: asyncio.get_running_loop().stop())
        with pytest.raises(RuntimeEnded, match="runtime backup ended"):
            await asking
        with pytest.raises(RuntimeEnded):
            await bound.get("key")

    play(story)


def test_errors_of_a_resignation_are_nobodys_business():
    async def story(client: Client, runtimes: ThreadRuntimes) -> None:
        async def fail() -> None:
            client.leadership.resigned.set()
            raise BrokerError("etcd is away")

        client.leadership.resign = cast(Any, fail)  # type: ignore[method-assign]
        bound = broker(client, runtimes)
        campaign = asyncio.create_task(bound.campaign("e", "blocks", ttl_s=1))
        await asyncio.to_thread(client.winning.wait, 10)
        campaign.cancel()
        with pytest.raises(asyncio.CancelledError):
            await campaign
        assert await asyncio.to_thread(client.leadership.resigned.wait, 10)
        await bound.close()

    play(story)
