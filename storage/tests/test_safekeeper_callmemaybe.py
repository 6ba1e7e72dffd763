"""Callmemaybe: who is called, for how long, and what ends it (SYSTEM.md A2)."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest

from harness.backend import NodeSpec
from harness.errors import NodeDied
from storage.durable import read_file
from storage.errors import NotFound, NotReady
from storage.http.client import HttpError, call
from storage.lsn import Lsn
from storage.node import NodeContext
from storage.tasks import TaskRegistry
from storage.tests.safekeeper_cluster import (
    PATH,
    START,
    TENANT,
    TIMELINE,
    Cluster,
    Writer,
    run_cluster,
)
from storage.wire.client import ConnectOptions, connect
from storage.wire.replication import XLogData, parse_from_server
from storage.wire.server import serve
from storage.wire.session import Session


class FakePageserver:
    """Answers calls as told, and streams from whoever called if it is told to."""

    def __init__(self) -> None:
        self.calls: list[str] = []
        self.answer: Exception | None = None
        self.stream = False
        self.remote_lsn = START
        self.report_all = False
        self.streaming: set[str] = set()
        self.started = False

    async def main(self, context: NodeContext) -> None:
        registry = TaskRegistry(context.name)

        async def handle(session: Session, text: str) -> None:
            word, tenant, timeline, address = text.split()
            assert (word, tenant, timeline) == ("callmemaybe", TENANT, TIMELINE)
            self.calls.append(address)
            if self.answer is not None:
                raise self.answer
            if self.stream and address not in self.streaming:
                self.streaming.add(address)
                asyncio.get_running_loop().create_task(self.receive(context.name, address))
            await session.complete("CALLMEMAYBE")

        self.started = True
        server = await serve(context.name, 6400, handle, registry)
        context.ready.set()
        await context.stopping.wait()
        await server.close()

    async def receive(self, name: str, address: str) -> None:
        host, port = address.split(":")
        settings = {"tenant_id": TENANT, "timeline_id": TIMELINE}
        options = ConnectOptions(settings=settings, replication=True, application_name=name)
        try:
            client = await connect(host, int(port), options=options)
            stream = await client.copy_both(f"START_REPLICATION PHYSICAL {START}")
            while (message := await stream.receive()) is not None:
                parsed = parse_from_server(message)
                if isinstance(parsed, XLogData) and self.report_all:
                    self.remote_lsn = Lsn(parsed.start_lsn + len(parsed.data))
                lsn = str(self.remote_lsn)
                body = {"last_received_lsn": lsn, "disk_consistent_lsn": lsn}
                body["remote_consistent_lsn"] = lsn
                await stream.send(b"z" + json.dumps(body).encode())
            await stream.done()
            await client.close()
        except ConnectionError:
            pass
        self.streaming.discard(address)


def run(story: Any, **options: Any) -> None:
    pageserver = FakePageserver()

    async def whole(cluster: Cluster) -> None:
        await story(cluster, pageserver)
        if pageserver.started:
            await cluster.backend.stop("ps0", within_s=10)

    run_cluster(whole, roles={"pageserver": pageserver.main}, count=1, **options)


async def start(cluster: Cluster) -> None:
    await cluster.backend.spawn(NodeSpec("ps0", "pageserver"))
    await cluster.backend.wait_ready("ps0", within_s=5)


async def subscribe(cluster: Cluster, method: str = "PUT") -> None:
    await call(method, "sk0", 7676, f"{PATH}/subscription/ps0:6400")


async def subscriptions(cluster: Cluster) -> list[dict[str, Any]]:
    return (await cluster.status("sk0"))["subscriptions"]


async def leader(cluster: Cluster, **options: Any) -> Writer:
    proposer = cluster.proposer(**options)
    return Writer(proposer, (await proposer.elect()).start_lsn)


@pytest.mark.row("A2.calls", "A2.pauses", worlds=("sim",))
def test_a_proposers_pageserver_is_called_until_it_streams_and_again_after_that():
    async def story(cluster: Cluster, pageserver: FakePageserver):
        writer = await leader(cluster, pageserver="ps0:6400")
        await writer.commit(b"x")
        await asyncio.sleep(10)
        assert pageserver.calls == []
        await start(cluster)
        await asyncio.sleep(15)
        assert len(pageserver.calls) > 5
        assert set(pageserver.calls) == {"sk0:5454"}
        pageserver.stream = True
        await asyncio.sleep(5)
        assert await subscriptions(cluster) == [{"pageserver": "ps0:6400", "paused": True}]
        count = len(pageserver.calls)
        await asyncio.sleep(20)
        assert len(pageserver.calls) == count
        cluster.backend.network.reset("sk0", "ps0")
        await asyncio.sleep(5)
        assert len(pageserver.calls) > count
        assert pageserver.streaming
        await writer.proposer.close()

    run(story)


@pytest.mark.row("A2.restart", worlds=("sim",))
def test_a_lagging_pageserver_is_called_after_the_writer_has_gone_and_after_a_restart():
    async def story(cluster: Cluster, pageserver: FakePageserver):
        await start(cluster)
        writer = await leader(cluster, pageserver="ps0:6400")
        await cluster.level(await writer.commit(b"x"))
        await writer.proposer.close()
        await asyncio.sleep(10)
        pageserver.calls.clear()
        await asyncio.sleep(10)
        assert pageserver.calls, "it lacks WAL and must be called"
        await cluster.backend.kill("sk0", host=True)
        pageserver.calls.clear()
        await cluster.start("sk0")
        await asyncio.sleep(10)
        assert pageserver.calls, "a restart forgets no subscription"
        pageserver.stream = pageserver.report_all = True
        await asyncio.sleep(10)
        pageserver.calls.clear()
        assert not pageserver.streaming, "nothing is left to stream"
        await asyncio.sleep(20)
        assert pageserver.calls == []
        assert await subscriptions(cluster) == [{"pageserver": "ps0:6400", "paused": False}]

    run(story)


@pytest.mark.row("A2.dropped", worlds=("sim",))
def test_a_pageserver_that_is_not_attached_is_dropped_for_good():
    async def story(cluster: Cluster, pageserver: FakePageserver):
        pageserver.answer = NotFound("tenant is not attached")
        await start(cluster)
        writer = await leader(cluster, pageserver="ps0:6400")
        await writer.commit(b"x")
        await asyncio.sleep(5)
        assert len(pageserver.calls) == 1
        assert await subscriptions(cluster) == []
        await writer.proposer.close()
        await cluster.backend.kill("sk0", host=True)
        await cluster.start("sk0")
        assert await subscriptions(cluster) == []
        pageserver.answer = NotReady("still attaching")
        await subscribe(cluster)
        await asyncio.sleep(20)
        assert len(pageserver.calls) > 3
        assert len(await subscriptions(cluster)) == 1

    run(story)


def test_a_wish_repeated_during_the_refusal_is_not_lost():
    async def story(cluster: Cluster, pageserver: FakePageserver):
        pageserver.answer = NotFound("tenant is not attached")
        await start(cluster)
        writer = await leader(cluster)
        await writer.commit(b"x")
        cluster.backend.network.hold("ps0", "sk0", both=False)
        await subscribe(cluster)
        await asyncio.sleep(2)
        await subscribe(cluster)
        pageserver.answer = None
        cluster.backend.network.heal("ps0", "sk0", both=False)
        await asyncio.sleep(10)
        assert len(await subscriptions(cluster)) == 1
        await writer.proposer.close()

    run(story)


@pytest.mark.row("A2.dropped", worlds=("sim",))
def test_unsubscribed_means_not_called():
    async def story(cluster: Cluster, pageserver: FakePageserver):
        await start(cluster)
        writer = await leader(cluster)
        await writer.commit(b"x")
        await subscribe(cluster)
        await asyncio.sleep(5)
        assert pageserver.calls
        await subscribe(cluster, "DELETE")
        await subscribe(cluster, "DELETE")
        await asyncio.sleep(1)
        pageserver.calls.clear()
        await asyncio.sleep(20)
        assert pageserver.calls == []
        await writer.proposer.close()

    run(story)


def test_an_address_that_is_none_is_refused():
    async def story(cluster: Cluster, pageserver: FakePageserver):
        with pytest.raises(HttpError, match="'ps0' is not host:port"):
            await call("PUT", "sk0", 7676, f"{PATH}/subscription/ps0")

    run(story)


def test_a_corrupt_list_of_subscriptions_is_refused_by_name():
    async def story(cluster: Cluster, pageserver: FakePageserver):
        await subscribe(cluster)
        await cluster.backend.kill("sk0")
        disk = cluster.backend.disk("sk0").view()
        data = await read_file(disk, "callmemaybe.json")
        assert data.count(b"ps0") == 1
        file = await disk.open("callmemaybe.json")
        await file.pwrite(data.index(b"ps0"), b"ps1")  # As likely a list as the true one.
        await cluster.backend.spawn(NodeSpec("sk0", "safekeeper", {"node_id": 0}))
        with pytest.raises(NodeDied, match=r"callmemaybe\.json: .*remove it"):
            await cluster.backend.wait_ready("sk0", within_s=10)

    run(story)
