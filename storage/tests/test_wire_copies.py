"""Copies between server and client on the simulated loop: whole, failing, flooding, cut off."""

from __future__ import annotations

import asyncio
import logging
import socket
from collections.abc import AsyncIterator, Awaitable, Callable

import pytest

import sim
from storage.tests.wire_world import World, wire_world
from storage.wire import messages as m
from storage.wire.channel import READ_AHEAD_BYTES, Channel
from storage.wire.client import ServerError
from storage.wire.copying import CopyStream
from storage.wire.server import ServerOptions
from storage.wire.states import Copy, Phase, Progress, Sender


def run(story: Callable[[World], Awaitable[None]], options: ServerOptions | None = None) -> None:
    async def main() -> None:
        async with wire_world(options) as world:
            await story(world)

    sim.run(main)


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


def test_a_client_that_says_goodbye_in_a_copy_is_no_failure(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """A standby's WAL receiver leaves like this when it is told to stop."""

    async def story(world: World) -> None:
        client = await world.connect()
        await client.copy_both("echo")
        client._channel.send(m.Terminate())
        client._channel.flush()
        await asyncio.sleep(1)
        assert world.server.sessions == 0
        await client.close()

    run(story)
    assert [record for record in caplog.records if record.levelno >= logging.WARNING] == []


async def _first(pieces: AsyncIterator[bytes]) -> bytes:
    return await anext(pieces)


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

    def is_closing(self) -> bool:
        """Never."""
        return False


def test_a_sender_whose_peer_keeps_up_lets_other_tasks_run() -> None:
    async def main() -> int:
        channel = Channel(Sender.CLIENT)
        channel.connection_made(SwallowingTransport())
        channel.connection.progress = Progress(Phase.SIMPLE, Copy.BOTH)
        stream = CopyStream(channel)
        turns: list[int] = []
        for number in range(40):
            asyncio.get_running_loop().call_soon(turns.append, number)
            await stream.send(bytes(1 << 16))
        return len(turns)

    assert 30 < sim.run(main) < 40


def test_a_write_that_failed_is_the_last_one(caplog: pytest.LogCaptureFixture) -> None:
    """asyncio tells of the loss a turn later; whoever writes on meanwhile fills the log."""

    async def main() -> None:
        server, client = socket.socketpair()
        transport, channel = await asyncio.get_running_loop().create_connection(
            lambda: Channel(Sender.SERVER), sock=server
        )
        client.close()
        with pytest.raises(ConnectionResetError, match="the connection is closed"):
            for _ in range(20):
                channel.send_last_word(b"x")
                channel._write(b"x" * 1000)
        assert channel.lost, "so whoever fails of it has nothing to complain of"
        await channel.close(within_s=1)
        assert transport.is_closing()

    asyncio.run(main())
    assert caplog.records == []
