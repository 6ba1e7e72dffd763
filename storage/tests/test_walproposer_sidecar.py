"""The sidecar between a (pretended) PostgreSQL and real safekeepers."""

from __future__ import annotations

import asyncio
import random
import re
from typing import Any

import pytest

from harness.backend import NodeSpec
from harness.errors import NodeDied
from storage.http.client import HttpError, call
from storage.lsn import Lsn
from storage.node import NodeContext
from storage.tasks import TaskRegistry
from storage.tests.safekeeper_cluster import (
    SEGMENT,
    START,
    SYSTEM_ID,
    TENANT,
    TIMELINE,
    VERSION,
    Cluster,
    run_cluster,
)
from storage.wal.record import RecordSpec
from storage.wal.writer import WalWriter, WriterOptions
from storage.walproposer import sidecar
from storage.wire.replication import (
    StandbyStatus,
    answer_identify_system,
    keepalive,
    parse_from_standby,
    xlog_data_header,
)
from storage.wire.server import serve
from storage.wire.session import Session

SERVER = {"host": "pg", "port": 5432, "user": "postgres", "slot": "walproposer"}


class FakePostgres:
    """Writes records, and streams what it has written in pieces of any size, as walsenders do."""

    def __init__(self, start_lsn: Lsn = START, seed: int = 0) -> None:
        self.chance = random.Random(seed)
        self.begin_lsn = start_lsn
        self.wal = b""
        self.writer = WalWriter(WriterOptions(VERSION, SEGMENT, SYSTEM_ID), start_lsn, Lsn(0))
        self.system_id = SYSTEM_ID
        self.flushed_lsn = Lsn(0)
        self.acknowledged: list[Lsn] = []
        self.standbys: list[str] = []
        self.slots: list[str | None] = []
        self.written = asyncio.Event()
        self.moved = asyncio.Event()

    def write(self, *payloads: bytes, visible: int | None = None) -> Lsn:
        """Write records; ``visible`` leaves that many bytes of them unflushed for now."""
        for payload in payloads:
            self.writer.append(RecordSpec(rmid=203, info=0, xid=0, main_data=payload))
        self.wal += self.writer.take()[1]
        self.flushed_lsn = Lsn(self.begin_lsn + len(self.wal) - (visible or 0))
        self.written.set()
        return self.writer.position

    async def commit(self, *payloads: bytes) -> Lsn:
        """Write and wait for the synchronous standby."""
        end = self.write(*payloads)
        async with asyncio.timeout(30):
            while not self.acknowledged or self.acknowledged[-1] < end:
                self.moved.clear()
                await self.moved.wait()
        return end

    async def main(self, context: NodeContext) -> None:
        registry = TaskRegistry(context.name)
        server = await serve(context.name, 5432, self.handle, registry)
        context.ready.set()
        await context.stopping.wait()
        await server.close()

    async def handle(self, session: Session, text: str) -> None:
        if text == "IDENTIFY_SYSTEM":
            await answer_identify_system(
                session, system_id=self.system_id, timeline=1, flush_lsn=self.flushed_lsn
            )
            return
        match = re.fullmatch(r'START_REPLICATION (?:SLOT "(\w+)" )?PHYSICAL (\S+) TIMELINE 1', text)
        assert match, text
        name = session.parameters["application_name"]
        stream = await session.copy_both()
        listener = asyncio.get_running_loop().create_task(self.listen(name, stream))
        self.standbys.append(name)
        self.slots.append(match[1])
        position = Lsn.parse(match[2])
        try:
            while True:
                self.written.clear()
                while position < self.flushed_lsn:
                    size = min(self.chance.randint(1, 9000), self.flushed_lsn - position)
                    offset = position - self.begin_lsn
                    data = self.wal[offset : offset + size]
                    header = xlog_data_header(position, self.flushed_lsn, 0)
                    await stream.send(header, data)
                    position = Lsn(position + size)
                await stream.send(keepalive(position, 0, reply_requested=False))
                await self.written.wait()
        finally:
            listener.cancel()

    async def listen(self, name: str, stream: Any) -> None:
        try:
            while (message := await stream.receive()) is not None:
                status = parse_from_standby(message)
                if name == "walproposer" and isinstance(status, StandbyStatus):
                    assert status.write_lsn == status.flush_lsn
                    self.acknowledged.append(status.flush_lsn)
                    self.moved.set()
        except ConnectionError:
            pass
        self.written.set()


def options(cluster: Cluster, **changes: Any) -> dict[str, Any]:
    return {
        "tenant_id": TENANT,
        "timeline_id": TIMELINE,
        "pageserver": "ps0:6400",
        "safekeepers": cluster.addresses,
        "proposer_id": 1,
        "system_id": SYSTEM_ID,
        "pg_version": VERSION,
        "wal_segment_size": SEGMENT,
        **changes,
    }


async def start(cluster: Cluster, name: str = "pg-wp", **changes: Any) -> None:
    await cluster.backend.spawn(NodeSpec(name, "walproposer", options(cluster, **changes)))
    await cluster.backend.wait_ready(name, within_s=10)


async def status(name: str = "pg-wp") -> dict[str, Any]:
    found: dict[str, Any] = await call("GET", name, 5480, "/v1/status")
    return found


async def phase(cluster: Cluster, wanted: str, name: str = "pg-wp") -> dict[str, Any]:
    async def reached() -> bool:
        return (await status(name))["phase"] == wanted

    await cluster.eventually(reached)
    return await status(name)


async def post_stream(name: str = "pg-wp", **changes: Any) -> dict[str, Any]:
    found: dict[str, Any] = await call("POST", name, 5480, "/v1/stream", {**SERVER, **changes})
    return found


def run(story: Any) -> None:
    postgres = FakePostgres()

    async def whole(cluster: Cluster) -> None:
        await cluster.backend.spawn(NodeSpec("pg", "postgres"))
        await cluster.backend.wait_ready("pg", within_s=5)
        await story(cluster, postgres)
        for name in ("pg-wp", "pg"):
            if name == "pg" or postgres.standbys:
                await cluster.backend.kill(name)

    run_cluster(whole, roles={"postgres": postgres.main, "walproposer": sidecar.main})


def test_a_commit_returns_when_a_quorum_has_it():
    async def story(cluster: Cluster, postgres: FakePostgres):
        await start(cluster)
        elected = await phase(cluster, "elected")
        assert (elected["term"], elected["start_lsn"]) == (1, str(START))
        await post_stream()
        await phase(cluster, "streaming")
        for size in (10, 5000, 20_000, 100):
            end = await postgres.commit(bytes(size), b"commit")
        assert postgres.acknowledged == sorted(postgres.acknowledged)
        assert postgres.standbys[-1] == "walproposer"
        assert postgres.slots[-1] == "walproposer"
        await cluster.level(end)
        assert len(await cluster.digests(end)) == 1
        found = await status()
        assert found["commit_lsn"] == found["flush_lsn"] == str(end)
        await post_stream()
        with pytest.raises(HttpError, match="streams from"):
            await post_stream(slot="other")

    run(story)


def test_without_a_quorum_nothing_is_acknowledged():
    async def story(cluster: Cluster, postgres: FakePostgres):
        await start(cluster)
        await phase(cluster, "elected")
        await post_stream()
        first = await postgres.commit(b"with")
        for name in ("sk1", "sk2"):
            await cluster.backend.kill(name)
        second = postgres.write(b"without")
        await asyncio.sleep(20)
        assert postgres.acknowledged[-1] == first
        await cluster.start("sk1")
        async with asyncio.timeout(10):
            while postgres.acknowledged[-1] < second:
                postgres.moved.clear()
                await postgres.moved.wait()

    run(story)


def test_half_a_record_is_never_proposed():
    async def story(cluster: Cluster, postgres: FakePostgres):
        await start(cluster)
        await phase(cluster, "elected")
        await post_stream()
        whole = await postgres.commit(b"whole")
        postgres.write(bytes(3000), visible=1500)
        await asyncio.sleep(5)
        found = await status()
        assert found["flush_lsn"] == found["commit_lsn"] == str(whole)
        end = await postgres.commit(b"rest")
        assert (await status())["commit_lsn"] == str(end)

    run(story)


def test_a_restarted_sidecar_goes_on_where_the_quorum_stands():
    async def story(cluster: Cluster, postgres: FakePostgres):
        await start(cluster)
        await phase(cluster, "elected")
        await post_stream()
        end = await postgres.commit(b"x" * 5000)
        await cluster.backend.kill("pg-wp")
        ahead = postgres.write(b"ahead of the quorum" * 100)
        await start(cluster)
        again = await phase(cluster, "elected")
        assert (again["term"], again["start_lsn"]) == (2, str(end))
        assert postgres.acknowledged[-1] == end
        await post_stream()
        async with asyncio.timeout(10):
            while postgres.acknowledged[-1] < ahead:
                postgres.moved.clear()
                await postgres.moved.wait()

    run(story)


def test_a_lost_connection_to_postgresql_is_made_again():
    async def story(cluster: Cluster, postgres: FakePostgres):
        await start(cluster)
        await phase(cluster, "elected")
        await post_stream()
        await postgres.commit(b"one")
        cluster.backend.network.reset("pg", "pg-wp")
        await postgres.commit(b"two" * 1000)
        cluster.backend.network.cut("pg", "pg-wp")
        end = postgres.write(b"three")
        await asyncio.sleep(20)
        cluster.backend.network.heal("pg", "pg-wp")
        await asyncio.sleep(20)
        assert postgres.acknowledged[-1] == end
        await cluster.level(end)
        assert len(await cluster.digests(end)) == 1

    run(story)


def test_a_server_of_another_history_is_refused():
    async def story(cluster: Cluster, postgres: FakePostgres):
        await start(cluster)
        await phase(cluster, "elected")
        await post_stream()
        await postgres.commit(b"the quorum's")
        await cluster.backend.kill("pg-wp")
        other = FakePostgres(seed=1)
        other.write(b"another writer's")
        postgres.wal, postgres.flushed_lsn = other.wal, other.flushed_lsn
        await start(cluster)
        await phase(cluster, "elected")
        with pytest.raises(HttpError, match="differs from the quorum's at 0/10000") as refused:
            await post_stream()
        assert refused.value.status == 409
        assert (await status())["phase"] == "elected"
        postgres.system_id = 5
        with pytest.raises(HttpError, match="is system 5"):
            await post_stream()

    run(story)


def test_a_newer_sidecar_deposes_the_older_for_good():
    async def story(cluster: Cluster, postgres: FakePostgres):
        await start(cluster)
        await phase(cluster, "elected")
        await post_stream()
        end = await postgres.commit(b"x")
        await start(cluster, "new-wp", proposer_id=2)
        assert (await phase(cluster, "elected", "new-wp"))["start_lsn"] == str(end)
        postgres.write(b"too late")
        await asyncio.sleep(10)
        assert (await status())["phase"] == "deposed"
        assert postgres.acknowledged[-1] == end
        with pytest.raises(HttpError, match="the sidecar is deposed"):
            await post_stream(slot="again")
        await cluster.backend.stop("new-wp", within_s=10)

    run(story)


def test_what_cannot_work_is_said():
    async def story(cluster: Cluster, postgres: FakePostgres):
        for changes, complaint in (
            ({"cache_pages": 5}, "unknown option 'cache_pages'"),
            ({"proposer_id": "7"}, "option proposer_id is '7'; int expected"),
            ({"system_id": -1}, "option system_id is -1; int expected"),
            ({"pg_version": True}, "option pg_version is True; int expected"),
            ({"callmemaybe": 1}, "option callmemaybe is 1; bool expected"),
            ({"safekeepers": "sk0:5454"}, "option safekeepers is 'sk0:5454'"),
            ({"tenant_id": 5}, "option tenant_id is 5; str expected"),
            ({"pageserver": "ps0"}, "'ps0' is not host:port"),
            ({"tenant_id": "zzz"}, "'zzz' is not a TenantId"),
        ):
            await cluster.backend.spawn(NodeSpec("bad", "walproposer", options(cluster, **changes)))
            with pytest.raises(NodeDied, match=complaint):
                await cluster.backend.wait_ready("bad", within_s=5)
        for name in cluster.names:
            await cluster.backend.kill(name)
        await start(cluster)
        with pytest.raises(HttpError, match="streams once it is elected") as refused:
            await post_stream()
        assert refused.value.status == 503
        await cluster.start()
        await phase(cluster, "elected")
        with pytest.raises(HttpError, match="cannot stream from nobody"):
            await post_stream(host="nobody")
        await call("PUT", "pg-wp", 5480, "/v1/pageserver", {"pageserver": "ps1:6400"})
        assert (await status())["pageserver"] == "ps1:6400"
        await cluster.backend.stop("pg-wp", within_s=10)

    run(story)
