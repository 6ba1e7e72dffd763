"""Our client against a stock PostgreSQL, and a stock standby behind our server."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator, Coroutine, Iterator
from dataclasses import dataclass
from typing import Any

import pytest

from storage.errors import ProtocolError
from storage.lsn import Lsn
from storage.tasks import TaskRegistry
from storage.tests.postgres_server import Server, installations, scratch_directory
from storage.wire.client import Client, ConnectOptions, ServerError, connect
from storage.wire.copying import CopyStream
from storage.wire.replication import (
    Keepalive,
    StandbyStatus,
    XLogData,
    complete_streaming,
    parse_from_server,
    standby_status,
)
from storage.wire.server import serve
from storage.wire.session import Session

pytestmark = pytest.mark.skipif(15 not in installations(), reason="needs PostgreSQL 15")


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@dataclass
class Primary:
    """A running PostgreSQL 15 that listens on loopback."""

    server: Server
    port: int

    async def connect(self, **options: Any) -> Client:
        chosen = ConnectOptions(user="postgres", database="postgres", **options)
        return await connect("127.0.0.1", self.port, options=chosen)


@pytest.fixture(scope="module")
def primary() -> Iterator[Primary]:
    with scratch_directory() as home:
        server = Server(installations()[15], home, "primary")
        server.initdb()
        port = free_port()
        with server.running("listen_addresses=127.0.0.1", f"port={port}", "max_wal_senders=5"):
            yield Primary(server, port)


def run(work: Coroutine[Any, Any, None]) -> None:
    async def bounded() -> None:
        async with asyncio.timeout(60):
            await work

    asyncio.run(bounded())


def test_queries_by_both_protocols(primary: Primary) -> None:
    async def story() -> None:
        client = await primary.connect(settings={"seawall.note": "a b\\c"})
        assert client.parameters["server_version"].startswith("15.")
        result = await client.query("SELECT 1 AS one; SELECT 'x' AS a, NULL AS b")
        assert [column.name for column in result.columns] == ["a", "b"]
        assert result.rows == [("x", None)]
        assert result.tag == "SELECT 1"
        assert (await client.query("SHOW seawall.note")).rows == [("a b\\c",)]
        result = await client.execute("SELECT $1::int + 1, $2::text", ["41", None])
        assert result.rows == [("42", None)]
        for ask in (client.query, client.execute):
            with pytest.raises(ServerError, match="division by zero") as caught:
                await ask("SELECT 1/0")
            assert caught.value.sqlstate == "22012"
        assert (await client.query("")).tag == ""
        await client.close()

    run(story())


async def _rows() -> AsyncIterator[bytes]:
    for number in range(1000):
        yield b"%d\tvalue\n" % number


async def _failing() -> AsyncIterator[bytes]:
    yield b"1\tx\n"
    raise ValueError("no more")


def test_copies_in_and_out(primary: Primary) -> None:
    async def story() -> None:
        client = await primary.connect()
        await client.query("CREATE TEMP TABLE t (k int, v text)")
        assert await client.copy_in("COPY t FROM STDIN", _rows()) == "COPY 1000"
        with pytest.raises(ValueError, match="no more"):
            await client.copy_in("COPY t FROM STDIN", _failing())
        pieces = [piece async for piece in client.copy_out("COPY t TO STDOUT")]
        assert b"".join(pieces) == b"".join([row async for row in _rows()])
        with pytest.raises(ServerError, match="does not exist"):
            await client.copy_in("COPY nowhere FROM STDIN", _rows())
        with pytest.raises(ServerError, match="invalid input syntax"):
            await client.copy_in("COPY t (v, k) FROM STDIN", _rows())
        assert (await client.query("SELECT count(*) FROM t")).rows == [("1000",)]
        await client.close()

    run(story())


async def _identify(client: Client) -> Lsn:
    result = await client.query("IDENTIFY_SYSTEM")
    assert [column.name for column in result.columns] == [
        "systemid", "timeline", "xlogpos", "dbname",
    ]  # fmt: skip
    assert result.rows[0][2] is not None
    return Lsn.parse(result.rows[0][2])


def test_physical_replication(primary: Primary) -> None:
    async def story() -> None:
        client = await primary.connect(replication=True)
        start = await _identify(client)
        stream = await client.copy_both(f"START_REPLICATION PHYSICAL {start} TIMELINE 1")
        writer = await primary.connect()
        await writer.query("CREATE TABLE replicated AS SELECT generate_series(1, 1000)")
        result = await writer.query("SELECT pg_current_wal_flush_lsn()")
        await writer.close()
        flushed = Lsn.parse(str(result.rows[0][0]))
        assert flushed > start
        position = int(start)
        while position < flushed:
            data = await stream.receive()
            assert data is not None
            message = parse_from_server(data)
            if isinstance(message, XLogData):
                assert message.start_lsn == position
                position += len(message.data)
        here = Lsn(position)
        await stream.send(standby_status(StandbyStatus(here, here, here, 0, True)))
        while True:
            data = await stream.receive()
            assert data is not None
            if isinstance(parse_from_server(data), Keepalive):
                break
        await stream.done()
        assert await _identify(client) >= flushed
        await client.close()

    run(story())


def test_replication_refused_reaches_the_caller_and_the_session_goes_on(primary: Primary) -> None:
    async def story() -> None:
        client = await primary.connect(replication=True)
        with pytest.raises(ServerError, match="does not exist"):
            await client.copy_both("START_REPLICATION SLOT nowhere 0/0 TIMELINE 1")
        stream = await client.copy_both("START_REPLICATION FF/0 TIMELINE 1")
        with pytest.raises(ServerError, match="requested starting point"):
            await stream.receive()
        assert await _identify(client) > 0
        await client.close()

    run(story())


def test_a_server_that_wants_a_password_is_refused_clearly(primary: Primary) -> None:
    hba = primary.server.data / "pg_hba.conf"
    trusting = hba.read_text()
    hba.write_text("host all all 127.0.0.1/32 scram-sha-256\n" + trusting)
    primary.server.run("pg_ctl", "-D", str(primary.server.data), "reload")

    async def story() -> None:
        with pytest.raises(ProtocolError, match="authentication method 10; only trust works"):
            while True:  # The reload takes effect a moment after pg_ctl returns.
                await (await primary.connect()).close()

    try:
        run(story())
    finally:
        hba.write_text(trusting)
        primary.server.run("pg_ctl", "-D", str(primary.server.data), "reload")


def test_a_server_that_stops_ends_queries_with_its_reason(primary: Primary) -> None:
    async def story() -> None:
        client, killer = await primary.connect(), await primary.connect()
        (pid,) = (await client.query("SELECT pg_backend_pid()")).rows[0]
        waiting = asyncio.ensure_future(client.query("SELECT pg_sleep(30)"))
        while not (await killer.query(f"SELECT pg_terminate_backend({pid})")).rows:
            pass
        with pytest.raises(ServerError, match="terminating connection") as caught:
            await waiting
        assert caught.value.sqlstate == "57P01"
        with pytest.raises(ConnectionError):
            await client.query("SELECT 1")
        await killer.close()

    run(story())


class Relay:
    """A server that hands a stock walreceiver's replication commands to a real primary."""

    def __init__(self, primary: Primary) -> None:
        self._primary = primary
        self.commands: list[str] = []

    async def __call__(self, session: Session, sql: str) -> None:
        self.commands.append(sql.split()[0])
        upstream = await self._primary.connect(replication=True)
        try:
            if sql.startswith("START_REPLICATION"):
                await self._stream(session, await upstream.copy_both(sql))
            else:
                result = await upstream.query(sql)
                await session.rows(result.columns, result.rows, result.tag)
        finally:
            await upstream.close()

    async def _stream(self, session: Session, upstream: CopyStream) -> None:
        downstream = await session.copy_both()
        copying = asyncio.ensure_future(self._copy(upstream, downstream))
        await self._copy(downstream, upstream)
        copying.cancel()
        await downstream.done()
        await complete_streaming(session)

    async def _copy(self, source: CopyStream, target: CopyStream) -> None:
        while (data := await source.receive()) is not None:
            await target.send(data)


def test_a_stock_standby_follows_through_our_server(primary: Primary) -> None:
    """The walreceiver is the pickiest client: start-up, IDENTIFY_SYSTEM, streaming, feedback."""
    home = primary.server.home
    standby = Server(primary.server.installation, home, "standby")
    primary.server.run(
        "pg_basebackup", "-h", str(home), "-p", str(primary.port), "-U", "postgres",
        "-D", str(standby.data), "-X", "stream", "-c", "fast", "--no-sync",
    )  # fmt: skip
    (standby.data / "standby.signal").touch()

    async def story() -> None:
        registry = TaskRegistry("relay")
        relay = Relay(primary)
        server = await serve("127.0.0.1", 0, relay, registry)
        port = free_port()
        await asyncio.to_thread(
            standby.start,
            [f"primary_conninfo='host=127.0.0.1 port={server.port} user=postgres'", f"port={port}",
             "listen_addresses=127.0.0.1"],
        )  # fmt: skip
        try:
            writer = await primary.connect()
            await writer.query("CREATE TABLE followed AS SELECT 7 AS seven")
            reader = await Primary(standby, port).connect()
            while (await reader.query("SELECT to_regclass('followed')")).rows == [(None,)]:
                pass
            assert (await reader.query("SELECT seven FROM followed")).rows == [("7",)]
            assert relay.commands[:2] == ["IDENTIFY_SYSTEM", "START_REPLICATION"]
            status = await writer.query("SELECT state FROM pg_stat_replication")
            assert status.rows == [("streaming",)]
            await reader.close()
            await writer.close()
        finally:
            await asyncio.to_thread(standby.stop, "immediate")
            await server.close()
        assert registry.snapshot() == []

    run(story())
