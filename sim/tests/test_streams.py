"""Streams keep asyncio's contracts: half-close, flow control, names, errors, unmodified servers."""

import asyncio

import pytest

import sim


async def pair(host="server", port=1):
    """A connected pair of (reader, writer), client first."""
    accepted = asyncio.get_running_loop().create_future()

    async def accept(reader, writer):
        accepted.set_result((reader, writer))

    server = await asyncio.start_server(accept, host, port)
    client = await asyncio.open_connection(host, port)
    return client, await accepted, server


def test_bytes_arrive_whole_and_in_order():
    async def main():
        (_, writer), (reader, other), _ = await pair()
        sent = bytes(range(256)) * 8192

        async def send():
            for start in range(0, len(sent), 10_000):
                writer.write(sent[start : start + 10_000])
                await writer.drain()
            writer.close()

        _, received = await asyncio.gather(send(), reader.read())
        other.close()
        return received == sent

    assert sim.run(main)


def test_half_close_lets_the_other_direction_live():
    async def main():
        (client_reader, client_writer), (reader, writer), _ = await pair()
        client_writer.write(b"question")
        client_writer.write_eof()
        assert await reader.read() == b"question"
        writer.write(b"answer")
        writer.close()
        assert await client_reader.read() == b"answer"
        with pytest.raises(RuntimeError, match="write_eof"):
            client_writer.write(b"more")
        client_writer.close()

    sim.run(main)


def test_names_of_both_ends():
    async def main():
        (_, client_writer), (_, writer), server = await pair()
        assert client_writer.get_extra_info("peername") == ("server", 1)
        assert client_writer.get_extra_info("sockname")[0] == "harness"
        assert writer.get_extra_info("peername") == client_writer.get_extra_info("sockname")
        assert writer.get_extra_info("sockname") == ("server", 1)
        assert writer.get_extra_info("socket") is None
        assert [each.getsockname() for each in server.sockets] == [("server", 1)]
        client_writer.close()
        writer.close()

    sim.run(main)


def test_nobody_listens():
    async def main():
        with pytest.raises(ConnectionRefusedError, match="nobody listens on server:9"):
            await asyncio.open_connection("server", 9)

    sim.run(main)


def test_a_closed_server_refuses_at_once_and_frees_its_port():
    async def main():
        (_, client_writer), (_, writer), server = await pair()
        server.close()
        assert not server.is_serving()
        with pytest.raises(ConnectionRefusedError):
            await asyncio.open_connection("server", 1)
        again = await asyncio.start_server(lambda reader, writer: None, "server", 1)
        assert again.is_serving()
        client_writer.close()
        writer.close()
        await server.wait_closed()

    sim.run(main)


def test_drain_waits_for_a_reader_that_does_not_read():
    async def main():
        (_, writer), (reader, other), _ = await pair()
        written = 0
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(10):
                while True:
                    writer.write(bytes(10_000))
                    written += 10_000
                    await writer.drain()
        assert 256 * 1024 < written < 1024 * 1024
        read = 0
        while read < written:
            read += len(await reader.read(65536))
        async with asyncio.timeout(1):
            await writer.drain()
        assert writer.transport.get_write_buffer_size() == 0
        writer.close()
        other.close()

    sim.run(main)


class Recorder(asyncio.Protocol):
    def __init__(self):
        self.calls = []

    def connection_made(self, transport):
        self.transport = transport
        self.calls.append("made")

    def data_received(self, data):
        self.calls.append(bytes(data))

    def eof_received(self):
        self.calls.append("eof")

    def pause_writing(self):
        self.calls.append("pause")

    def resume_writing(self):
        self.calls.append("resume")

    def connection_lost(self, error):
        self.calls.append(type(error))


async def recorders():
    loop = asyncio.get_running_loop()
    made = []
    server = await loop.create_server(lambda: made.append(Recorder()) or made[-1], "server", 1)
    _, client = await loop.create_connection(Recorder, "server", 1)
    await asyncio.sleep(0.1)
    return client, made[0], server


def test_protocol_calls_of_an_orderly_end():
    async def main():
        client, served, _ = await recorders()
        client.transport.write(b"x")
        client.transport.close()
        client.transport.write(b"ignored")
        await asyncio.sleep(1)
        return client.calls, served.calls

    assert sim.run(main) == (["made", type(None)], ["made", b"x", "eof", type(None)])


def test_protocol_calls_of_an_abort():
    async def main():
        client, served, _ = await recorders()
        client.transport.write(b"x")
        client.transport.abort()
        await asyncio.sleep(1)
        return client.calls, served.calls

    assert sim.run(main) == (["made", type(None)], ["made", b"x", ConnectionResetError])


def test_writing_to_a_closed_peer_is_answered_with_a_reset():
    async def main():
        client, served, _ = await recorders()
        served.eof_received = lambda: True
        client.transport.close()
        await asyncio.sleep(1)
        served.transport.write(b"too late")
        await asyncio.sleep(1)
        return served.calls

    assert sim.run(main) == ["made", ConnectionResetError]


def test_an_orderly_end_on_both_sides_is_no_error():
    async def main():
        client, served, _ = await recorders()
        client.eof_received = lambda: True
        served.transport.close()
        await asyncio.sleep(1)
        client.transport.write_eof()
        await asyncio.sleep(1)
        assert client.calls == ["made"]
        client.transport.close()
        await asyncio.sleep(1)
        return client.calls, served.calls

    assert sim.run(main) == (["made", type(None)], ["made", type(None)])


def test_a_reader_that_has_paused_does_not_see_the_end():
    async def main():
        client, served, _ = await recorders()
        served.transport.pause_reading()
        client.transport.close()
        await asyncio.sleep(1)
        assert served.calls == ["made"]
        served.transport.resume_reading()
        await asyncio.sleep(1)
        return served.calls

    assert sim.run(main) == ["made", "eof", type(None)]


def test_water_marks_of_the_write_buffer():
    async def main():
        client, served, _ = await recorders()
        served.transport.pause_reading()
        client.transport.set_write_buffer_limits(high=1000)
        assert client.transport.get_write_buffer_limits() == (250, 1000)
        client.transport.write(bytes(256 * 1024 + 1000))
        assert client.calls == ["made"]
        client.transport.write(b"1")
        assert client.calls == ["made", "pause"]
        assert client.transport.get_write_buffer_size() == 1001
        served.transport.resume_reading()
        await asyncio.sleep(1)
        assert client.calls == ["made", "pause", "resume"]
        assert sum(len(each) for each in served.calls[1:]) == 256 * 1024 + 1001

    sim.run(main)


def test_close_sends_what_is_buffered_first():
    async def main():
        client, served, _ = await recorders()
        served.transport.pause_reading()
        client.transport.write(bytes(1_000_000))
        client.transport.close()
        await asyncio.sleep(1)
        assert client.calls[-1] == "pause"
        served.transport.resume_reading()
        await asyncio.sleep(1)
        assert sum(len(each) for each in served.calls[1:-2]) == 1_000_000
        return client.calls[-1], served.calls[-2:]

    assert sim.run(main) == (type(None), ["eof", type(None)])


def test_a_reset_reaches_a_reader_that_has_paused():
    async def main():
        client, served, _ = await recorders()
        served.transport.pause_reading()
        client.transport.write(b"unread")
        await asyncio.sleep(1)
        client.transport.abort()
        await asyncio.sleep(1)
        return served.calls

    assert sim.run(main) == ["made", ConnectionResetError]


def test_a_protocol_that_fails_loses_its_connection_and_fails_the_run():
    class Broken(Recorder):
        def data_received(self, data):
            raise ValueError("cannot read this")

    async def main():
        loop = asyncio.get_running_loop()
        await loop.create_server(Broken, "server", 1)
        _, client = await loop.create_connection(Recorder, "server", 1)
        client.transport.write(b"x")
        await asyncio.sleep(1)
        assert client.calls == ["made", ConnectionResetError]

    with pytest.raises(sim.ScenarioFailed, match="cannot read this"):
        sim.run(main)


def test_buffered_protocols_receive_into_their_own_buffer():
    class Buffered(asyncio.BufferedProtocol):
        def __init__(self):
            self.buffer = bytearray(4)
            self.read = b""

        def get_buffer(self, sizehint):
            return self.buffer

        def buffer_updated(self, size):
            self.read += self.buffer[:size]

    async def main():
        loop = asyncio.get_running_loop()
        made = []
        await loop.create_server(lambda: made.append(Buffered()) or made[-1], "server", 1)
        transport, _ = await loop.create_connection(Recorder, "server", 1)
        transport.write(b"0123456789")
        await asyncio.sleep(1)
        return made[0].read

    assert sim.run(main) == b"0123456789"


def test_a_cancelled_connection_attempt_leaves_nothing_behind():
    async def main():
        loop = asyncio.get_running_loop()
        await recorders()
        loop.network.configure("server", "harness", both=False, latency=sim.Constant(5.0))
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(asyncio.open_connection("server", 1), 1)
        await asyncio.sleep(10)
        return len(loop.network._connections), loop.environment.scheduled()

    assert sim.run(main) == (2, False)


def test_a_thousand_connections_leave_no_trace():
    async def main():
        loop = asyncio.get_running_loop()

        async def answer(reader, writer):
            writer.write(await reader.read())
            writer.close()

        await asyncio.start_server(answer, "server", 1)
        for _ in range(1000):
            reader, writer = await asyncio.open_connection("server", 1)
            writer.write(b"x")
            writer.write_eof()
            assert await reader.read() == b"x"
            writer.close()
            await writer.wait_closed()
        await asyncio.sleep(5)
        assert len(loop.network._connections) == 0
        assert len(loop.nodes.home.endpoints()) == 1
        assert len(loop.environment) < 130  # Cancelled timers wait for a compaction.

    sim.run(main)
