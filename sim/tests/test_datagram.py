"""Datagrams are lost, doubled and reordered as the link says; ports and peers are checked."""

import asyncio
import errno

import pytest

import sim


class Inbox(asyncio.DatagramProtocol):
    def __init__(self):
        self.got = []
        self.lost = []

    def connection_made(self, transport):
        self.transport = transport

    def datagram_received(self, data, addr):
        self.got.append((data, addr))

    def connection_lost(self, error):
        self.lost.append(error)


async def bind(name, **options):
    loop = asyncio.get_running_loop()
    _, inbox = await loop.create_datagram_endpoint(Inbox, local_addr=(name, 1), **options)
    return inbox


def exchange(count, seed=0, **link):
    """Send ``count`` numbers from "a" to "b"; returns (received numbers, effects)."""

    async def main():
        loop = asyncio.get_running_loop()
        loop.network.options = sim.LinkOptions(**link)
        a, b = await bind("a"), await bind("b")
        for number in range(count):
            a.transport.sendto(b"%d" % number, ("b", 1))
            await asyncio.sleep(0.0001)
        await asyncio.sleep(10)
        assert {addr for _, addr in b.got} <= {("a", 1)}
        return [int(data) for data, _ in b.got], loop.network.effects()

    return sim.run(main, seed=seed)


def test_a_healthy_link_with_constant_latency_keeps_order():
    received, effects = exchange(100, latency=sim.Constant(0.01))
    assert received == list(range(100))
    assert not any(effects.values())


def test_varying_latency_reorders():
    received, _ = exchange(200, latency=sim.Uniform(0.001, 0.02))
    assert sorted(received) == list(range(200))
    assert received != list(range(200))


def test_loss():
    received, effects = exchange(1000, datagram_loss=0.1)
    assert len(received) + effects["datagrams_lost"] == 1000
    assert 60 < effects["datagrams_lost"] < 140


def test_duplication():
    received, effects = exchange(1000, datagram_duplication=0.1)
    assert len(received) == 1000 + effects["datagrams_duplicated"]
    assert 60 < effects["datagrams_duplicated"] < 140


def test_loss_and_duplication_are_independent():
    received, effects = exchange(2000, datagram_loss=0.5, datagram_duplication=0.5)
    assert 900 < effects["datagrams_lost"] < 1100
    assert 400 < effects["datagrams_duplicated"] < 600
    assert len(received) == 2000 - effects["datagrams_lost"] + effects["datagrams_duplicated"]


def test_reordering_on_a_constant_link():
    received, effects = exchange(500, latency=sim.Constant(0.001), datagram_reordering=0.1)
    assert 20 < effects["datagrams_reordered"] < 90
    assert sorted(received) == list(range(500))
    assert received != sorted(received)


def test_cut_and_hold():
    async def main():
        network = asyncio.get_running_loop().network
        a, b = await bind("a"), await bind("b")
        network.cut("a", "b")
        a.transport.sendto(b"lost", ("b", 1))
        network.heal("a", "b")
        network.hold("a", "b")
        a.transport.sendto(b"held", ("b", 1))
        await asyncio.sleep(1)
        assert b.got == []
        network.heal("a", "b")
        await asyncio.sleep(1)
        return [data for data, _ in b.got]

    assert sim.run(main) == [b"held"]


def test_a_connected_endpoint_hears_its_peer_only():
    async def main():
        a = await bind("a", remote_addr=("b", 1))
        b, c = await bind("b"), await bind("c")
        c.transport.sendto(b"stranger", ("a", 1))
        b.transport.sendto(b"friend", ("a", 1))
        await asyncio.sleep(1)
        a.transport.sendto(b"answer")
        await asyncio.sleep(1)
        with pytest.raises(ValueError, match="connected"):
            a.transport.sendto(b"x", ("c", 1))
        assert a.transport.get_extra_info("peername") == ("b", 1)
        return [data for data, _ in a.got], [data for data, _ in b.got]

    assert sim.run(main) == ([b"friend"], [b"answer"])


def test_ports_are_exclusive_until_closed():
    async def main():
        a = await bind("a")
        with pytest.raises(OSError, match="in use") as caught:
            await bind("a")
        assert caught.value.errno == errno.EADDRINUSE
        a.transport.close()
        await asyncio.sleep(0)
        assert a.lost == [None]
        a.transport.sendto(b"ignored", ("b", 1))
        await bind("a")

    sim.run(main)


def test_too_long_datagrams_are_refused():
    async def main():
        a, b = await bind("a"), await bind("b")
        a.transport.sendto(bytes(65507), ("b", 1))
        with pytest.raises(OSError, match="65508") as caught:
            a.transport.sendto(bytes(65508), ("b", 1))
        assert caught.value.errno == errno.EMSGSIZE
        await asyncio.sleep(1)
        return [len(data) for data, _ in b.got]

    assert sim.run(main) == [65507]


def test_the_dead_receive_nothing_and_free_their_port():
    async def main():
        loop = asyncio.get_running_loop()
        a = await bind("a")
        with loop.nodes.acting_as("b"):
            old = await loop.create_task(bind("b"))
        loop.nodes.crash("b")
        a.transport.sendto(b"x", ("b", 1))
        old.transport.sendto(b"from the grave", ("a", 1))
        await asyncio.sleep(1)
        with loop.nodes.acting_as("b"):
            new = await loop.create_task(bind("b"))
        a.transport.sendto(b"y", ("b", 1))
        await asyncio.sleep(1)
        return a.got, old.got, [data for data, _ in new.got]

    assert sim.run(main) == ([], [], [b"y"])
