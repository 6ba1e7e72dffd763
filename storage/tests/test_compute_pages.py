"""The page client: pipelining, retries, stalls, moves, and when it gives up."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable

import pytest

import sim
from storage.compute.basebackup import BaseState, check_base, fetch_base, read_signal
from storage.compute.options import PageServiceOptions
from storage.compute.page_client import PageClient
from storage.errors import CorruptData, LsnOutOfScope, NotReady, SeawallError
from storage.ids import TenantId, TimelineId
from storage.kv.page import PAGE_SIZE
from storage.lsn import Lsn
from storage.pageserver.page_protocol import LATEST_LSN
from storage.tasks import TaskRegistry
from storage.tests.scripted_pageserver import Mode, ScriptedPageserver

HINT = Lsn(0x1000)
OPTIONS = PageServiceOptions(
    TenantId("a" * 32), TimelineId("b" * 32), "ps0:6400", read_timeout_s=20.0, stall_s=3.0
)


async def numbered_page(block: int, lsn: Lsn) -> bytes:
    return block.to_bytes(4, "big") * (PAGE_SIZE // 4)


class Bench:
    """Two pageservers and a client on the node ``main``."""

    def __init__(self) -> None:
        self.loop = asyncio.get_running_loop()
        assert isinstance(self.loop, sim.SimLoop)
        self.servers = [ScriptedPageserver(name, numbered_page) for name in ("ps0", "ps1")]
        self.registry = TaskRegistry("main")
        self.client = PageClient(OPTIONS, self.registry, random.Random(1))

    async def start(self) -> None:
        assert isinstance(self.loop, sim.SimLoop)
        for server in self.servers:
            self.loop.nodes.start(server.name)
            with self.loop.nodes.acting_as(server.name):
                await self.loop.create_task(server.start())
        self.client.start()

    async def page(self, block: int) -> int:
        return int.from_bytes((await self.client.page(block, HINT))[:4], "big")


def play(story: Callable[[Bench], Awaitable[None]]) -> None:
    async def main() -> None:
        bench = Bench()
        await bench.start()
        await story(bench)
        await bench.registry.shutdown(within_s=1.0)
        assert bench.registry.snapshot() == []

    sim.run(main, seed=3)


def test_pages_are_asked_for_without_waiting_for_each_other() -> None:
    async def story(bench: Bench) -> None:
        began_s = bench.loop.time()
        await bench.page(0)
        one_s = bench.loop.time() - began_s
        began_s = bench.loop.time()
        assert await asyncio.gather(*map(bench.page, range(50))) == list(range(50))
        assert bench.loop.time() - began_s < 3 * one_s
        assert bench.servers[0].sessions == 1
        request = bench.servers[0].requests[-1]
        assert (request.request_lsn, request.not_modified_since) == (LATEST_LSN, HINT)

    play(story)


def test_a_pinned_read_names_its_lsn_exactly() -> None:
    async def story(bench: Bench) -> None:
        await bench.client.page_at(7, Lsn(0x2000))
        request = bench.servers[0].requests[-1]
        assert (request.request_lsn, request.not_modified_since) == (0x2000, 0x2000)

    play(story)


def test_the_size_of_a_missing_relation_is_zero() -> None:
    async def story(bench: Bench) -> None:
        assert await bench.client.blocks(HINT, HINT) == 0

    play(story)


@pytest.mark.parametrize("mode", [Mode.REFUSE, Mode.HANG_UP, Mode.SILENT])
def test_a_read_survives_what_passes(mode: Mode) -> None:
    async def story(bench: Bench) -> None:
        bench.servers[0].mode = mode
        read = asyncio.create_task(bench.page(5))
        await asyncio.sleep(7)
        assert not read.done()
        bench.servers[0].mode = Mode.ANSWER
        assert await read == 5
        assert len(bench.servers[0].requests) >= 2

    play(story)


@pytest.mark.parametrize("mode", [Mode.REFUSE, Mode.HANG_UP, Mode.SILENT])
def test_a_read_gives_up_after_its_timeout(mode: Mode) -> None:
    async def story(bench: Bench) -> None:
        bench.servers[0].mode = mode
        began_s = bench.loop.time()
        with pytest.raises(NotReady, match=r"block 5 as of 0/1000 within 20 s.*ps0"):
            await bench.page(5)
        assert bench.loop.time() - began_s == pytest.approx(20.0, abs=0.1)

    play(story)


def test_a_final_refusal_is_not_retried() -> None:
    async def story(bench: Bench) -> None:
        bench.servers[0].mode = Mode.REFUSE
        bench.servers[0].sqlstate = "22003"
        with pytest.raises(LsnOutOfScope, match="no page for you"):
            await bench.page(5)
        assert len(bench.servers[0].requests) == 1

    play(story)


@pytest.mark.parametrize("mode", [Mode.ANSWER, Mode.SILENT])
def test_a_move_takes_effect_at_once_and_takes_open_reads_along(mode: Mode) -> None:
    async def story(bench: Bench) -> None:
        await bench.page(1)
        bench.servers[0].mode = mode
        if mode is Mode.SILENT:
            reads = [asyncio.create_task(bench.page(block)) for block in range(3)]
            await asyncio.sleep(0.5)
        else:
            reads = []
        asked = len(bench.servers[0].requests)
        moved_s = bench.loop.time()
        bench.client.move("ps1:6400")
        assert await bench.page(9) == 9
        assert [await read for read in reads] == list(range(len(reads)))
        assert bench.loop.time() - moved_s < 0.5
        assert len(bench.servers[0].requests) == asked

    play(story)


def test_a_move_works_while_the_old_host_is_unreachable() -> None:
    async def story(bench: Bench) -> None:
        assert isinstance(bench.loop, sim.SimLoop)
        await bench.page(1)
        bench.loop.network.cut("harness", "ps0")
        read = asyncio.create_task(bench.page(2))
        await asyncio.sleep(4.5)
        bench.client.move("ps1:6400")
        moved_s = bench.loop.time()
        assert await read == 2
        assert bench.loop.time() - moved_s < 2

    play(story)


def test_a_silent_connection_is_replaced() -> None:
    async def story(bench: Bench) -> None:
        bench.servers[0].mode = Mode.SILENT
        read = asyncio.create_task(bench.page(2))
        await asyncio.sleep(2.9)
        assert bench.servers[0].sessions == 1
        bench.servers[0].mode = Mode.ANSWER
        await asyncio.sleep(0.5)
        assert bench.servers[0].sessions == 2
        assert await read == 2

    play(story)


def test_an_idle_connection_is_not_taken_for_silent() -> None:
    async def story(bench: Bench) -> None:
        await bench.page(1)
        await asyncio.sleep(30)
        await bench.page(2)
        assert bench.servers[0].sessions == 1

    play(story)


def test_a_cancelled_read_leaves_nothing_behind() -> None:
    async def story(bench: Bench) -> None:
        bench.servers[0].mode = Mode.SILENT
        read = asyncio.create_task(bench.page(2))
        await asyncio.sleep(1)
        read.cancel()
        await asyncio.gather(read, return_exceptions=True)
        bench.servers[0].mode = Mode.ANSWER
        assert await bench.page(3) == 3

    play(story)


def test_the_base_is_fetched_until_it_is_there() -> None:
    async def story(bench: Bench) -> None:
        bench.servers[0].base_refusals = 3
        bench.servers[0].prev_lsn = "0/FE8"
        base = await fetch_base(bench.client, OPTIONS, HINT, random.Random(1))
        assert base == BaseState(HINT, Lsn(0xFE8))

    play(story)


def test_the_base_is_taken_from_where_the_compute_was_moved_to() -> None:
    async def story(bench: Bench) -> None:
        bench.servers[0].base_refusals = 10**9
        fetch = asyncio.create_task(fetch_base(bench.client, OPTIONS, HINT, random.Random(1)))
        await asyncio.sleep(5)
        bench.client.move("ps1:6400")
        assert (await fetch).prev_lsn == 0

    play(story)


def test_a_base_of_another_lsn_is_refused() -> None:
    check_base(BaseState(HINT, Lsn(8)), HINT)
    with pytest.raises(SeawallError, match="0/1008"):
        check_base(BaseState(Lsn(0x1008), Lsn(8)), HINT)


def test_what_is_no_base_is_refused() -> None:
    with pytest.raises(CorruptData, match="no tar"):
        read_signal(b"x" * 1024, HINT)
    with pytest.raises(CorruptData, match="no signal"):
        read_signal(bytes(10240), HINT)
