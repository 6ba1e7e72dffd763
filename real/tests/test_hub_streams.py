"""Faults of streams in the hub: writes that break in two, connections that are half open."""

import asyncio

import pytest

from harness.backend import HARNESS
from harness.errors import UnsupportedFault
from harness.fault_ports import CALM, LinkFaults
from real.tests.test_hub import say, silent, start
from real.tests.toy_roles import PORT


def test_broken_writes_arrive_whole_in_two_pieces(play):
    async def story(backend):
        await start(backend, "a")
        backend.network.disturb(HARNESS, "a", LinkFaults(fragmentation=1.0))
        stream = await asyncio.open_connection("a", PORT)
        assert await say(stream, "in pieces") == "a in pieces"
        assert backend.network.effects()["writes_broken"] >= 2
        backend.network.disturb(HARNESS, "a", CALM)
        broken = backend.network.effects()["writes_broken"]
        assert await say(stream, "whole") == "a whole"
        assert backend.network.effects()["writes_broken"] == broken
        with pytest.raises(UnsupportedFault, match="not datagrams"):
            backend.network.disturb(HARNESS, "a", LinkFaults(datagram_loss=0.5))
        stream[1].close()

    play(story)


def test_a_half_open_connection_is_silent_and_a_new_one_is_not(play):
    async def story(backend):
        await start(backend, "a")
        backend.assign("broker", 1, backend.host_port("a", PORT))
        stream = await asyncio.open_connection("broker", 1)
        assert await say(stream, "before") == "a before"
        backend.broker.half_open(HARNESS)
        assert await silent(say(stream, "lost"))
        fresh = await asyncio.open_connection("broker", 1)
        assert await say(fresh, "again") == "a again"
        assert backend.broker.effects() == {"streams_muted": 1}
        stream[1].close()
        fresh[1].close()

    play(story)
