"""What the named-host loop leaves alone, and what it says when it cannot help."""

import asyncio

import pytest

from real import preface
from real.loop import NamedHostLoop, is_cluster_host
from storage.errors import ProtocolError


def run(work):
    with asyncio.Runner(loop_factory=NamedHostLoop) as runner:
        return runner.run(work)


@pytest.mark.parametrize("host", ["sk0", "main-wp", "harness", "s3"])
def test_names_without_a_dot_are_cluster_hosts(host):
    assert is_cluster_host(host)


@pytest.mark.parametrize(
    "host", [None, "", "localhost", "127.0.0.1", "::1", "0.0.0.0", "s3.example.org", b"sk0"]
)
def test_addresses_and_other_names_are_not(host):
    assert not is_cluster_host(host)


def test_addresses_pass_through_untouched():
    async def story():
        async def serve(reader, writer):
            writer.write(await reader.readline())
            writer.close()

        server = await asyncio.start_server(serve, "127.0.0.1", 0)
        port = server.sockets[0].getsockname()[1]
        for host in ("127.0.0.1", "localhost"):
            reader, writer = await asyncio.open_connection(host, port)
            writer.write(b"hello\n")
            assert await reader.readline() == b"hello\n"
            writer.close()
        server.close()

    run(story())


def test_a_loop_outside_a_cluster_says_so():
    async def story():
        with pytest.raises(OSError, match="belongs to no cluster"):
            await asyncio.open_connection("sk0", 5454)
        with pytest.raises(OSError, match="'sk0' is not this host"):
            await asyncio.start_server(lambda *_: None, "sk0", 5454)

    run(story())


def test_abandoned_dial_leaves_no_socket_behind(play):
    async def story(backend):
        from harness.backend import HARNESS

        backend.network.cut(HARNESS, "a")
        loop = asyncio.get_running_loop()
        for _ in range(20):
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(0.01):
                    await asyncio.open_connection("a", 1)
        watched = [key.fd for key in loop._selector.get_map().values()]
        assert len(watched) == 1, "only the loop's own wake-up is watched"

    play(story)


@pytest.mark.parametrize(
    "line",
    [
        preface.Connect("sk0", "ps0", 6400),
        preface.Session("sk0", 3),
        preface.Listen(5454, 40001),
        preface.Unlisten(5454),
    ],
)
def test_prefaces_come_back(line):
    data = preface.encode(line)
    assert data.endswith(b"\n")
    assert preface.parse(data) == line


@pytest.mark.parametrize("data", [b"GET / HTTP/1.1", b"[]", b'["connect"]', b'["dial", 1]', b"{}"])
def test_anything_else_is_no_preface(data):
    with pytest.raises(ProtocolError, match="is not a hub preface"):
        preface.parse(data)


def test_a_host_name_without_end_is_refused():
    with pytest.raises(ValueError, match="host names are meant to be short"):
        preface.encode(preface.Connect("a" * preface.LINE_BYTES_MAX, "b", 1))
