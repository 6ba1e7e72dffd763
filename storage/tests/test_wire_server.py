"""Server and client together on the simulated loop: queries, copies, errors, the end."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable

import pytest

import sim
from storage.errors import ProtocolError
from storage.tasks import TaskKind
from storage.tests.wire_world import World, wire_world
from storage.wire import messages as m
from storage.wire.channel import READ_AHEAD_BYTES, Channel
from storage.wire.client import ServerError
from storage.wire.codec import Connection
from storage.wire.copying import CopyStream
from storage.wire.server import ServerOptions
from storage.wire.states import Copy, Phase, Progress, Sender


def run(story: Callable[[World], Awaitable[None]], options: ServerOptions | None = None) -> None:
    async def main() -> None:
        async with wire_world(options) as world:
            await story(world)

    sim.run(main)


def test_rows_settings_and_tags() -> None:
    async def story(world: World) -> None:
        client = await world.connect(settings={"tenant_id": "a b\\c"}, user="me")
        result = await client.query("words x 'y z'")
        assert [column.name for column in result.columns] == ["word"]
        assert result.rows == [("x",), ("y z",)]
        assert result.tag == "SELECT 2"
        assert (await client.query("quiet")).tag == "QUIET 7"
        assert (await client.query("settings")).rows == [("tenant_id", "a b\\c"), ("user", "me")]
        assert client.parameters["integer_datetimes"] == "on"
        assert client.parameters["standard_conforming_strings"] == "on"
        await client.close()

    run(story)


def test_a_query_string_runs_statement_by_statement_up_to_the_first_error() -> None:
    async def story(world: World) -> None:
        client = await world.connect()
        assert (await client.query("words a; words b c")).rows == [("b",), ("c",)]
        assert (await client.query("")).tag == ""
        with pytest.raises(ServerError, match="timeline 42"):
            await client.query("quiet; refuse; copyin")
        await client.close()

    run(story)


@pytest.mark.parametrize("extended", [False, True])
@pytest.mark.parametrize(
    ("command", "sqlstate", "message", "level"),
    [
        ("refuse", "42704", "timeline 42 does not exist", logging.INFO),
        ("nonsense", "22023", "unknown command 'nonsense'", logging.INFO),
        ("storage", "58030", "the bucket is away", logging.WARNING),
        ("bug", "XX000", "internal error: ValueError: outer: caused by: KeyError: 'inner'", 40),
        ("copyout 5 3", "XX000", "internal error: ValueError: page 7 is corrupt", logging.ERROR),
        ("forget", "XX000", "internal error: AssertionError: .* did not answer 'forget'", 40),
        ("echo 0 extra words", "XX000", "internal error: TypeError", logging.ERROR),
    ],
)  # fmt: skip
def test_an_error_reaches_the_client_and_the_connection_lives_on(  # noqa: PLR0913
    extended: bool,
    command: str,
    sqlstate: str,
    message: str,
    level: int,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """SYSTEM.md D2 and C1."""
    caplog.set_level(logging.INFO)

    async def story(world: World) -> None:
        client = await world.connect()
        run_it = client.execute if extended else client.query
        with pytest.raises(ServerError, match=message) as caught:
            await run_it(command)
        assert caught.value.sqlstate == sqlstate
        assert (await run_it("words alive")).rows == [("alive",)]
        await client.close()

    run(story)
    (record,) = [each for each in caplog.records if "[sk0-1]" in each.getMessage()]
    assert record.levelno == level
    assert (record.exc_info is None) is (level == logging.INFO)


def test_the_log_shows_every_cause_with_its_backtrace(caplog: pytest.LogCaptureFixture) -> None:
    async def story(world: World) -> None:
        client = await world.connect()
        with pytest.raises(ServerError) as caught:
            await client.query("bug")
        assert caught.value.detail == "trace id sk0-1"
        await client.close()

    run(story)
    assert caplog.text.count("Traceback (most recent call last)") == 2
    assert "KeyError: 'inner'" in caplog.text
    assert "in do_bug" in caplog.text


def test_extended_protocol_binds_values_and_describes() -> None:
    async def story(world: World) -> None:
        client = await world.connect()
        result = await client.execute("words $2 $1 '$1'", ["it's", "b c"])
        assert result.rows == [("b c",), ("it's",), ("$1",)]
        assert (await client.execute("quiet")).tag == "QUIET 7"
        with pytest.raises(
            ServerError, match="supplies 1 parameters, but the statement requires 2"
        ):
            await client.execute("words $1 $2", ["a"])
        with pytest.raises(ServerError, match="cannot insert multiple commands"):
            await client.execute("quiet; quiet")
        await client.close()

    run(story)


def test_copy_out_piece_by_piece_and_failing_half_way() -> None:
    async def story(world: World) -> None:
        client = await world.connect()
        pieces = [piece async for piece in client.copy_out("copyout 300")]
        assert [int(piece[:3]) for piece in pieces] == list(range(300))
        assert {len(piece) for piece in pieces} == {1000}
        seen = []
        with pytest.raises(ServerError, match="page 7 is corrupt"):
            async for piece in client.copy_out("copyout 300 250"):
                seen.append(piece)
        assert len(seen) == 250
        assert (await client.query("words alive")).rows == [("alive",)]
        await client.close()

    run(story)


async def _chunks(*chunks: bytes) -> AsyncIterator[bytes]:
    for chunk in chunks:
        yield chunk


async def _many(count: int) -> AsyncIterator[bytes]:
    for _ in range(count):
        yield b"x" * 1000
        await asyncio.sleep(0.001)


async def _failing() -> AsyncIterator[bytes]:
    yield b"some"
    raise ValueError("the source broke")


def test_copy_in_whole_refused_and_given_up() -> None:
    async def story(world: World) -> None:
        client = await world.connect()
        assert await client.copy_in("copyin", _chunks(b"ab", b"", b"cd")) == "COPY 3"
        assert await client.copy_in("copyin", _chunks()) == "COPY 0"
        assert world.commands.uploads == [b"abcd", b""]
        with pytest.raises(ServerError, match="that is no tar"):
            await client.copy_in("copyin 2", _many(500))
        with pytest.raises(ValueError, match="the source broke"):
            await client.copy_in("copyin", _failing())
        assert world.commands.uploads == [b"abcd", b""]
        assert (await client.query("words alive")).rows == [("alive",)]
        await client.close()

    run(story)


def test_copy_both_ended_by_the_client() -> None:
    async def story(world: World) -> None:
        client = await world.connect()
        stream = await client.copy_both("echo")
        for number in range(100):
            await stream.send(b"%d" % number, b"!" * number)
        for number in range(100):
            assert await stream.receive() == b"%d" % number + b"!" * number
        await stream.done()
        assert await stream.receive() is None
        assert (await client.query("words alive")).rows == [("alive",)]
        await client.close()

    run(story)


def test_copy_both_ended_by_the_server() -> None:
    async def story(world: World) -> None:
        client = await world.connect()
        stream = await client.copy_both("count 5")
        received = []
        while (data := await stream.receive()) is not None:
            received.append(data)
            await stream.send(b"feedback nobody reads")
        assert received == [b"0", b"1", b"2", b"3", b"4"]
        await stream.done()
        assert (await client.query("words alive")).rows == [("alive",)]
        await client.close()

    run(story)


def test_an_error_inside_a_stream_reaches_the_client_although_it_keeps_sending() -> None:
    async def story(world: World) -> None:
        client = await world.connect()
        stream = await client.copy_both("echo 2")
        for _ in range(10):
            await stream.send(b"x")
        with pytest.raises(ServerError, match="message refused"):
            while await stream.receive() is not None:
                pass
        assert (await client.query("words alive")).rows == [("alive",)]
        await client.close()

    run(story)


def test_transaction_blocks_and_settings_of_stock_clients() -> None:
    async def story(world: World) -> None:
        client = await world.connect()
        for sql, tag in (
            ("BEGIN", "BEGIN"), ("quiet", "QUIET 7"), ("commit", "COMMIT"),
            ("set datestyle to 'ISO'", "SET"), ("SET client_encoding = 'utf-8'", "SET"),
            ("DISCARD ALL", "DISCARD"), ("ROLLBACK", "ROLLBACK"),
        ):  # fmt: skip
            assert (await client.query(sql)).tag == tag
        assert (await client.query("SHOW data_directory_mode")).rows == [("0700",)]
        assert (await client.query("SHOW server_version")).rows == [("15.0",)]
        with pytest.raises(ServerError, match="unknown command 'SHOW'"):
            await client.query("SHOW wal_segment_size")
        with pytest.raises(ServerError, match="use UTF8"):
            await client.query("SET client_encoding TO 'LATIN1'")
        await client.query("BEGIN")
        with pytest.raises(ServerError):
            await client.query("refuse")
        with pytest.raises(ServerError) as caught:
            await client.query("quiet")
        assert caught.value.sqlstate == "25P02"
        assert (await client.query("COMMIT")).tag == "ROLLBACK"
        assert (await client.query("quiet")).tag == "QUIET 7"
        await client.close()

    run(story)


def test_ten_thousand_connections_leave_no_entry() -> None:
    """SYSTEM.md B1 and B3."""

    async def story(world: World) -> None:
        for number in range(10_000):
            _reader, writer = await world.raw()
            if number % 4 == 0:
                writer.write(Connection(Sender.CLIENT).encode(m.SslRequest()))
            if number % 4 == 1:
                writer.transport.abort()
            writer.close()
        await asyncio.sleep(1)
        assert world.server.sessions == 0
        assert [info.kind for info in world.registry.snapshot()] == [TaskKind.WIRE_LISTENER]
        assert (await (await world.connect()).query("words alive")).rows == [("alive",)]

    run(story)


async def _speak(world: World, *raw: bytes) -> bytes:
    """Start a session by hand, send bytes, and return everything the server says to the end."""
    reader, writer = await world.raw()
    writer.write(Connection(Sender.CLIENT).encode(m.Startup({"user": "u"})))
    for piece in raw:
        writer.write(piece)
    answer = await reader.read()
    writer.close()
    return answer


@pytest.mark.parametrize(
    ("raw", "complaint"),
    [
        (b"@\0\0\0\4", b"unknown message type"),
        (b"Q\0\0\0\1", b"malformed message"),
        (b"d\x7f\0\0\0", b"is too long"),
        (b"Q\0\0\0\5x", b"without its terminating zero"),
        (b"G\0\0\0\7\0\0\0", b"unknown message type"),
    ],
)
def test_malformed_input_closes_its_connection_with_a_reason_and_no_other(
    raw: bytes, complaint: bytes
) -> None:
    async def story(world: World) -> None:
        other = await world.connect()
        answer = await _speak(world, raw)
        assert b"VFATAL\0C08P01\0" in answer
        assert complaint in answer
        assert (await other.query("words alive")).rows == [("alive",)]
        await other.close()

    run(story)


@pytest.mark.parametrize("raw", [b"GET / HTTP/1.1\r\n\r\n", b"\x16\x03\x01\x02\0\1", b"\0\0\0\0"])
def test_what_is_no_startup_packet_is_refused(raw: bytes) -> None:
    async def story(world: World) -> None:
        reader, writer = await world.raw()
        writer.write(raw)
        answer = await reader.read()
        assert answer[:1] == b"E"
        assert b"start-up packet" in answer
        writer.close()

    run(story)


def test_bad_options_are_refused_at_startup() -> None:
    async def story(world: World) -> None:
        reader, writer = await world.raw()
        startup = m.Startup({"user": "u", "options": "--nonsense"})
        writer.write(Connection(Sender.CLIENT).encode(startup))
        assert b"'nonsense' is no setting; write -c name=value" in await reader.read()
        writer.close()

    run(story)


def test_a_client_that_says_nothing_is_dropped_in_time() -> None:
    async def story(world: World) -> None:
        reader, writer = await world.raw()
        start = asyncio.get_running_loop().time()
        assert b"no start-up packet came in time" in await reader.read()
        assert asyncio.get_running_loop().time() - start == pytest.approx(7, abs=0.1)
        writer.close()

    run(story, ServerOptions(startup_timeout_s=7.0))


def test_encryption_is_declined_and_the_session_goes_on() -> None:
    async def story(world: World) -> None:
        reader, writer = await world.raw()
        codec = Connection(Sender.CLIENT)
        for request in (m.SslRequest(), m.GssEncRequest()):
            writer.write(codec.encode(request))
            assert await reader.readexactly(1) == b"N"
        writer.write(codec.encode(m.Startup({"user": "u"})))
        assert (await reader.readexactly(9)) == b"R\0\0\0\x08\0\0\0\0"
        writer.close()

    run(story)


def test_newer_minor_versions_and_unknown_protocol_options_are_negotiated_down() -> None:
    async def story(world: World) -> None:
        reader, writer = await world.raw()
        startup = m.Startup({"user": "u", "_pq_.shiny": "1"}, protocol=(3 << 16) | 2)
        writer.write(Connection(Sender.CLIENT).encode(startup))
        assert await reader.readexactly(1) == b"v"
        assert b"\0\3\0\0\0\0\0\1_pq_.shiny\0R" in await reader.readexactly(30)
        writer.close()

    run(story)


def test_cancel_request_ends_the_command_and_not_the_session() -> None:
    async def story(world: World) -> None:
        client = await world.connect(timeout_s=1000)
        waiting = asyncio.ensure_future(client.query("wait"))
        await world.commands.running.wait()
        key = next(iter(world.server._conversations.values())).key
        for secret in (b"\0\0\0\0", key.secret):
            assert not waiting.done()
            reader, writer = await world.raw()
            writer.write(Connection(Sender.CLIENT).encode(m.CancelRequest(key.process_id, secret)))
            assert await reader.read() == b""
            writer.close()
        with pytest.raises(ServerError, match="canceling statement") as caught:
            await waiting
        assert caught.value.sqlstate == "57014"
        assert (await client.query("words alive")).rows == [("alive",)]
        await client.close()

    run(story)


@pytest.mark.parametrize("command", [None, "wait", "echo", "flood"])
def test_close_ends_idle_busy_streaming_and_flooding_sessions_in_time(command: str | None) -> None:
    """A client that never reads cannot hold the server; no further connection is needed (B2)."""

    async def story(world: World) -> None:
        reader, writer = await world.raw()
        codec = Connection(Sender.CLIENT)
        writer.write(codec.encode(m.Startup({"user": "u"})))
        if command is not None:
            writer.write(b"Q" + (len(command) + 5).to_bytes(4, "big") + command.encode() + b"\0")
            await world.commands.running.wait()
        else:
            await asyncio.sleep(1)
        if command == "flood":
            writer.transport.pause_reading()  # type: ignore[attr-defined]
            await asyncio.sleep(5)
        start = asyncio.get_running_loop().time()
        await world.server.close(within_s=3.0)
        took = asyncio.get_running_loop().time() - start
        assert took <= {"wait": 3.5, "flood": 2.0}.get(command or "", 0.5)
        assert world.registry.snapshot() == []
        with pytest.raises(OSError):
            await world.raw()
        if command in (None, "echo"):
            assert b"C57P01\0" in await reader.read()
        writer.transport.abort()

    run(story)


def test_stopping_by_the_registry_stops_the_listener_too() -> None:
    async def story(world: World) -> None:
        await world.registry.shutdown(kind=TaskKind.WIRE_LISTENER)
        with pytest.raises(OSError):
            await world.raw()

    run(story)


def test_a_client_that_vanishes_frees_its_session(caplog: pytest.LogCaptureFixture) -> None:
    async def story(world: World) -> None:
        for command in ("echo", "flood"):
            world.commands.running.clear()
            client = await world.connect()
            task = asyncio.ensure_future(
                client.copy_both(command) if command == "echo" else _first(client.copy_out(command))
            )
            await world.commands.running.wait()
            client._channel.abort()
            await asyncio.gather(task, return_exceptions=True)
            await asyncio.sleep(1)
            assert world.server.sessions == 0

    run(story)
    assert [record for record in caplog.records if record.levelno >= logging.WARNING] == []


async def _first(pieces: AsyncIterator[bytes]) -> bytes:
    return await anext(pieces)


def test_client_refuses_two_commands_at_once_and_closes_on_timeout() -> None:
    async def story(world: World) -> None:
        client = await world.connect(timeout_s=2.0)
        waiting = asyncio.ensure_future(client.query("wait"))
        await world.commands.running.wait()
        with pytest.raises(ProtocolError, match="another command"):
            await client.query("quiet")
        assert not waiting.done()
        with pytest.raises(TimeoutError):
            await waiting
        with pytest.raises(ConnectionError):
            await client.query("quiet")

    run(story)


def test_a_violation_that_a_handler_finds_ends_the_session() -> None:
    async def story(world: World) -> None:
        client = await world.connect()
        with pytest.raises(ServerError, match="no consensus message") as caught:
            await client.query("violate")
        assert (caught.value.severity, caught.value.sqlstate) == ("FATAL", "08P01")
        with pytest.raises(ConnectionError):
            await client.query("quiet")
        await asyncio.sleep(1)
        assert world.server.sessions == 0

    run(story)


def test_a_receiver_that_does_not_read_holds_its_sender_and_not_the_memory() -> None:
    async def story(world: World) -> None:
        client = await world.connect()
        stream = await client.copy_both("stall")
        assert not stream.is_congested
        sent = 0
        while not stream.is_congested and sent < 64 << 20:
            stream.post(bytes(65_536))
            sent += 65_536
            await asyncio.sleep(0.01)
        assert READ_AHEAD_BYTES < sent < 8 << 20
        (conversation,) = world.server._conversations.values()
        assert conversation._channel.connection.buffered < READ_AHEAD_BYTES + (1 << 20)
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(5):
                await stream.send(b"one more")
        client._channel.abort()

    run(story)


def test_a_message_larger_than_the_read_ahead_arrives() -> None:
    async def story(world: World) -> None:
        client = await world.connect()
        stream = await client.copy_both("echo")
        await stream.send(bytes(5 << 20))
        assert await stream.receive() == bytes(5 << 20)
        await stream.done()
        await client.close()

    run(story)


class SwallowingTransport(asyncio.Transport):
    """Takes everything at once, as a socket does whose peer is faster than we are."""

    def write(self, data: bytes | bytearray | memoryview) -> None:
        """Gone."""


def test_a_sender_whose_peer_keeps_up_lets_other_tasks_run() -> None:
    async def main() -> list[int]:
        channel = Channel(Sender.CLIENT)
        channel.connection_made(SwallowingTransport())
        channel.connection.progress = Progress(Phase.SIMPLE, Copy.BOTH)
        stream = CopyStream(channel)
        turns: list[int] = []
        for number in range(40):
            asyncio.get_running_loop().call_soon(turns.append, number)
            await stream.send(bytes(1 << 16))
        return turns

    assert 30 < len(sim.run(main)) < 40


def test_nobody_listens() -> None:
    async def story(world: World) -> None:
        world.port += 1
        with pytest.raises(ConnectionError):
            await world.connect()

    run(story)
