"""Faults on links between real processes, seen from both ends."""

import asyncio
import contextlib
import time

import pytest

from harness.backend import HARNESS, NodeSpec
from harness.errors import HarnessError
from real.tests.toy_roles import PORT

SILENCE_S = 0.15


async def start(backend, *names, role="echo"):
    for name in names:
        await backend.spawn(NodeSpec(name, role))
    for name in names:
        await backend.wait_ready(name, within_s=10)


async def say(stream, text):
    reader, writer = stream
    writer.write(text.encode() + b"\n")
    return (await reader.readline()).decode().strip()


async def silent(awaitable):
    """Whether nothing comes of it."""
    try:
        async with asyncio.timeout(SILENCE_S):
            await awaitable
    except TimeoutError:
        return True
    return False


def test_bytes_arrive_whole_and_in_order(play):
    async def story(backend):
        await start(backend, "a", role="bulk")
        reader, writer = await asyncio.open_connection("a", PORT)
        blob = bytes(range(256)) * 4096
        for _ in range(16):
            writer.write(blob)
        await writer.drain()
        assert await reader.readexactly(16) == b"." * 16
        writer.write_eof()
        assert await reader.read() == b""
        writer.close()

    play(story)


def test_echoed_lines_are_the_ones_sent(play):
    async def story(backend):
        await start(backend, "a")
        reader, writer = await asyncio.open_connection("a", PORT)
        lines = [f"{number} {'x' * (number * 37 % 5000)}".encode() for number in range(500)]
        writer.write(b"".join(line + b"\n" for line in lines))
        answers = [await reader.readline() for _ in lines]
        assert answers == [b"a " + line + b"\n" for line in lines]
        writer.close()

    play(story)


def test_nobody_listening_is_refused_by_name(play):
    async def story(backend):
        await start(backend, "a")
        with pytest.raises(ConnectionRefusedError, match="nothing listens on a:7001"):
            await asyncio.open_connection("a", 7001)
        with pytest.raises(ConnectionRefusedError, match="nothing listens on nobody:1"):
            await asyncio.open_connection("nobody", 1)

    play(story)


def test_a_host_cannot_listen_as_another_nor_twice(play):
    async def story(backend):
        with pytest.raises(OSError, match="'a' is not this host"):
            await asyncio.start_server(lambda *_: None, "a", 1)
        server = await asyncio.start_server(lambda *_: None, HARNESS, 1)
        with pytest.raises(OSError, match="harness:1 is in use"):
            await asyncio.start_server(lambda *_: None, HARNESS, 1)
        server.close()
        await server.wait_closed()
        with pytest.raises(ConnectionRefusedError):
            await asyncio.open_connection(HARNESS, 1)
        again = await asyncio.start_server(lambda *_: None, HARNESS, 1)
        again.close()

    play(story)


def test_cut_swallows_bytes_and_attempts_and_silences_for_ever(play):
    async def story(backend):
        await start(backend, "a")
        stream = await asyncio.open_connection("a", PORT)
        assert await say(stream, "one") == "a one"

        backend.network.cut(HARNESS, "a")
        assert await silent(say(stream, "two"))
        assert await silent(asyncio.open_connection("a", PORT))

        backend.network.heal(HARNESS, "a")
        assert await silent(stream[0].readline()), "a cut connection stays silent"
        fresh = await asyncio.open_connection("a", PORT)
        assert await say(fresh, "three") == "a three"
        effects = backend.network.effects()
        assert effects["bytes_cut"] == len("two\n")
        assert effects["connections_cut"] == 1
        for _, writer in (stream, fresh):
            writer.close()

    play(story)


def test_one_way_cut_lets_requests_through_and_no_answer(play):
    async def story(backend):
        await start(backend, "a")
        stream = await asyncio.open_connection("a", PORT)
        backend.network.cut("a", HARNESS, both=False)

        assert await silent(say(stream, "heard"))
        assert await silent(asyncio.open_connection("a", PORT)), "its answer would not come back"
        backend.network.heal("a", HARNESS, both=False)
        stream[1].close()

    backend = play(story)
    assert [event.kind for event in backend.events() if event.node == "a"].count("echo") == 1
    assert backend.network.effects()["bytes_cut"] == len("a heard\n")


def test_cut_hides_the_end_of_a_stream(play):
    async def story(backend):
        await start(backend, "a")
        reader, writer = await asyncio.open_connection("a", PORT)
        backend.network.cut(HARNESS, "a")
        await backend.kill("a")
        assert await silent(reader.read()), "a peer behind a partition does not see the crash"
        writer.close()

    play(story)


def test_hold_keeps_bytes_and_attempts_in_order_until_heal(play):
    async def story(backend):
        await start(backend, "a")
        reader, writer = await asyncio.open_connection("a", PORT)
        backend.network.hold(HARNESS, "a")
        attempt = asyncio.ensure_future(asyncio.open_connection("a", PORT))
        for number in range(50):
            writer.write(f"{number}\n".encode())
            await asyncio.sleep(0)
        assert await silent(reader.readline())
        assert not attempt.done()

        backend.network.heal(HARNESS, "a")
        assert [await reader.readline() for _ in range(50)] == [
            f"a {number}\n".encode() for number in range(50)
        ]
        other = await attempt
        assert await say(other, "hello") == "a hello"
        effects = backend.network.effects()
        assert effects["bytes_held"] == sum(len(f"{number}\n") for number in range(50))
        assert effects["connections_held"] == 1
        writer.close()
        other[1].close()

    play(story)


def test_hold_keeps_the_end_of_a_stream_behind_its_bytes(play):
    async def story(backend):
        await start(backend, "a")
        reader, writer = await asyncio.open_connection("a", PORT)
        backend.network.hold("a", HARNESS, both=False)
        writer.write(b"last\n")
        await until(lambda: backend.network.effects().get("bytes_held") == len("a last\n"))
        await backend.kill("a")
        assert await silent(reader.readline())
        backend.network.heal("a", HARNESS, both=False)
        assert await reader.readline() == b"a last\n"
        with contextlib.suppress(ConnectionResetError):
            assert await reader.readline() == b""
        writer.close()

    play(story)


async def until(check):
    async with asyncio.timeout(5):
        while not check():  # noqa: ASYNC110 - it is another process that counts
            await asyncio.sleep(0.005)


def test_delay_adds_latency_to_each_way_and_keeps_order(play):
    async def story(backend):
        await start(backend, "a")
        stream = await asyncio.open_connection("a", PORT)
        backend.network.delay(HARNESS, "a", 0.04)
        began = time.monotonic()
        assert await say(stream, "one") == "a one"
        assert 0.08 <= time.monotonic() - began < 0.5
        for number in range(20):
            stream[1].write(f"{number}\n".encode())
        assert [await stream[0].readline() for _ in range(20)] == [
            f"a {number}\n".encode() for number in range(20)
        ]
        began = time.monotonic()
        other = await asyncio.open_connection("a", PORT)
        assert time.monotonic() - began >= 0.08, "a handshake crosses twice"

        backend.network.heal(HARNESS, "a")
        began = time.monotonic()
        assert await say(stream, "fast") == "a fast"
        assert time.monotonic() - began < 0.04
        assert backend.network.effects()["bytes_delayed"] > 0
        for _, writer in (stream, other):
            writer.close()

    play(story)


def test_reset_breaks_connections_and_new_ones_work(play):
    async def story(backend):
        await start(backend, "a", "b")
        stream = await asyncio.open_connection("a", PORT)
        bystander = await asyncio.open_connection("b", PORT)
        backend.network.reset("a", HARNESS)
        with pytest.raises(ConnectionResetError):
            await say(stream, "one")
            await stream[0].readexactly(1)
        assert await say(bystander, "here") == "b here"
        fresh = await asyncio.open_connection("a", PORT)
        assert await say(fresh, "two") == "a two"
        assert backend.network.effects() == {"connections_reset": 1}
        for _, writer in (stream, bystander, fresh):
            writer.close()

    play(story)


def test_killed_process_is_noticed_and_its_name_is_free_again(play):
    async def story(backend):
        await start(backend, "a")
        reader, writer = await asyncio.open_connection("a", PORT)
        await backend.kill("a")
        async with asyncio.timeout(2):
            with contextlib.suppress(ConnectionResetError):
                assert await reader.read() == b""
        writer.close()
        await start(backend, "a")
        stream = await asyncio.open_connection("a", PORT)
        assert await say(stream, "again") == "a again"
        stream[1].close()

    play(story)


def test_dead_host_is_silent_until_it_is_back(play):
    async def story(backend):
        await start(backend, "a")
        reader, writer = await asyncio.open_connection("a", PORT)
        await backend.kill("a", host=True)
        assert await silent(reader.read())
        assert await silent(asyncio.open_connection("a", PORT))
        await start(backend, "a")
        stream = await asyncio.open_connection("a", PORT)
        assert await say(stream, "again") == "a again"
        assert backend.network.effects()["connections_silenced"] == 1
        writer.close()
        stream[1].close()

    play(story)


def test_paused_process_says_nothing_and_loses_nothing(play):
    async def story(backend):
        await start(backend, "a")
        stream = await asyncio.open_connection("a", PORT)
        await backend.pause("a")
        assert backend.running("a")
        assert await silent(say(stream, "frozen"))
        await backend.resume("a")
        assert await stream[0].readline() == b"a frozen\n"
        stream[1].close()

    play(story)


def test_sender_into_a_black_hole_feels_it_in_the_end(play):
    async def story(backend):
        await start(backend, "a", role="bulk")
        _, writer = await asyncio.open_connection("a", PORT)
        backend.network.cut(HARNESS, "a")
        blob = bytes(1 << 20)

        async def send_much():
            for _ in range(64):
                writer.write(blob)
                await writer.drain()

        assert await silent(send_much()), "64 MiB went into a black hole without back pressure"
        writer.close()

    play(story)


def test_outage_of_a_service_resets_and_refuses_until_restored(play):
    async def story(backend):
        await start(backend, "a")
        backend.assign("s3", 1, backend.host_port("a", PORT))
        stream = await asyncio.open_connection("s3", 1)
        assert await say(stream, "put") == "a put"
        backend.object_store.outage()
        with pytest.raises(ConnectionResetError):
            await say(stream, "put")
            await stream[0].readexactly(1)
        with pytest.raises(ConnectionRefusedError, match="s3 is out of service"):
            await asyncio.open_connection("s3", 1)
        backend.object_store.restore()
        again = await asyncio.open_connection("s3", 1)
        assert await say(again, "put") == "a put"
        stream[1].close()
        again[1].close()

    backend = play(story)
    assert backend.object_store.effects() == {"connections_reset": 1, "calls_failed": 1}
    assert backend.broker.effects() == {}


def test_plain_forward_serves_clients_that_know_no_names(play):
    async def story(backend):
        await start(backend, "a")
        host, port = backend.host_port("a", PORT)
        assert host == "127.0.0.1"
        assert backend.host_port("a", PORT) == (host, port)
        stream = await asyncio.open_connection(host, port)
        assert await say(stream, "psql") == "a psql"
        backend.network.reset(HARNESS, "a")
        with pytest.raises(ConnectionResetError):
            await say(stream, "psql")
            await stream[0].readexactly(1)
        stream[1].close()

    play(story)


def test_messages_and_faults_are_events(play):
    async def story(backend):
        await start(backend, "a")
        stream = await asyncio.open_connection("a", PORT)
        await say(stream, "one")
        backend.network.cut(HARNESS, "a")
        await silent(say(stream, "two"))
        stream[1].close()

    events = play(story).events()
    messages = [dict(event.fields) for event in events if event.kind == "message"]
    assert {"src": HARNESS, "dst": "a", "bytes": 4} in messages
    assert {"src": "a", "dst": HARNESS, "bytes": 6} in messages
    assert {"src": HARNESS, "dst": "a", "bytes": 4, "lost": True} in messages
    faults = [dict(event.fields) for event in events if event.kind == "fault"]
    assert faults == [{"verb": "cut", "source": HARNESS, "target": "a", "both": True}]
    assert [event.at_s for event in events] == sorted(event.at_s for event in events)


def test_negative_delay_is_refused(play):
    async def story(backend):
        with pytest.raises(HarnessError, match="a delay of -1 s"):
            backend.network.delay("a", "b", -1)

    play(story)
