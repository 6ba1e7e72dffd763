"""Sessions from start-up to end on the simulated loop: odd packets, cancelling, shutdown."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import pytest

import sim
from storage.tasks import TaskKind
from storage.tests.wire_world import World, wire_world
from storage.wire import messages as m
from storage.wire.client import ServerError
from storage.wire.codec import Connection
from storage.wire.server import ServerOptions
from storage.wire.states import Sender


def run(story: Callable[[World], Awaitable[None]], options: ServerOptions | None = None) -> None:
    async def main() -> None:
        async with wire_world(options) as world:
            await story(world)

    sim.run(main)


@pytest.mark.row("B1.leak", "B3.dropped", worlds=("sim",))
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


@pytest.mark.parametrize(("replication", "ends"), [("true", True), ("false", False)])
def test_only_an_idle_replication_session_is_ended(replication: str, ends: bool) -> None:
    async def story(world: World) -> None:
        reader, writer = await world.raw()
        codec = Connection(Sender.CLIENT)
        writer.write(codec.encode(m.Startup({"user": "u", "replication": replication})))
        rest = asyncio.create_task(reader.read())
        began_s = asyncio.get_running_loop().time()
        while not rest.done() and asyncio.get_running_loop().time() < began_s + 30:
            await asyncio.wait([rest], timeout=1.0)
        assert rest.done() is ends
        rest.cancel()
        writer.close()

    run(story, ServerOptions(replication_idle_s=7.0))


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


@pytest.mark.row("B2.sigterm", worlds=("sim",))
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


@pytest.mark.row("B2.sigterm", worlds=("sim",))
def test_what_was_asked_in_advance_does_not_hold_the_server() -> None:
    """It went on answering until nothing was buffered any more, or until it was cancelled."""

    async def story(world: World) -> None:
        _, writer = await world.raw()
        writer.write(Connection(Sender.CLIENT).encode(m.Startup({"user": "u"})))
        writer.write(b"Q\0\0\0\x0bslowly\0" * 500)
        await world.commands.running.wait()
        start = asyncio.get_running_loop().time()
        await world.server.close(within_s=3.0)
        assert asyncio.get_running_loop().time() - start <= 0.5
        assert world.commands.done <= 2
        writer.transport.abort()

    run(story)


def test_a_client_that_asks_in_advance_gives_way_to_others() -> None:
    async def story(world: World) -> None:
        _, writer = await world.raw()
        writer.write(Connection(Sender.CLIENT).encode(m.Startup({"user": "u"})))
        writer.write(b"Q\0\0\0\x0aquiet\0" * 1000)
        await world.commands.running.wait()
        assert 0 < world.commands.done <= 100
        writer.transport.abort()

    run(story)


@pytest.mark.row("B2.listener", worlds=("sim",))
def test_stopping_by_the_registry_stops_the_listener_too() -> None:
    async def story(world: World) -> None:
        await world.registry.shutdown(kind=TaskKind.WIRE_LISTENER)
        with pytest.raises(OSError):
            await world.raw()

    run(story)
