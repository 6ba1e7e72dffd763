"""The read-only compute: everything as of its LSN, nothing written."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable
from typing import Any, cast

import pytest

import sim
from storage.compute import readonly
from storage.errors import LsnOutOfScope, NotReady
from storage.http.client import call
from storage.kv.page import Page, encode
from storage.lsn import Lsn
from storage.node import NodeContext
from storage.ports import Ports
from storage.tests.scripted_pageserver import Mode, ScriptedPageserver
from storage.wire.client import ServerError, connect

PINNED = Lsn(0x2000)


async def page_of(block: int, lsn: Lsn) -> bytes:
    return encode(Page(0x1000 + block * 8, 1, {block * 32 + n: b"%d" % n for n in range(3)}))


def play(story: Callable[[ScriptedPageserver, NodeContext], Awaitable[None]]) -> None:
    async def main() -> None:
        loop = asyncio.get_running_loop()
        assert isinstance(loop, sim.SimLoop)
        server = ScriptedPageserver("ps0", page_of, lambda: 4)
        loop.nodes.start("ps0")
        with loop.nodes.acting_as("ps0"):
            await loop.create_task(server.start())
        options = {
            "tenant_id": "a" * 32,
            "timeline_id": "b" * 32,
            "pageserver": "ps0:6400",
            "cache_pages": 2,
            "lsn": str(PINNED),
        }
        ports = Ports(*cast(Any, (None, None, None, None)), random.Random(4))
        context = NodeContext("replica", ports, options)
        loop.nodes.start("replica")
        with loop.nodes.acting_as("replica"):
            life = loop.create_task(readonly.main(context))
        await story(server, context)
        context.stopping.set()
        await life

    sim.run(main, seed=5)


def test_reads_are_taken_at_the_pinned_lsn() -> None:
    async def story(server: ScriptedPageserver, context: NodeContext) -> None:
        await context.ready.wait()
        client = await connect("replica", 5432)
        get = await client.query("get 33")
        assert (get.rows, get.tag) == ([("1",)], f"GET {PINNED}")
        assert (await client.query("get 40")).rows == []
        assert (await client.query("get 999")).rows == []
        scan = await client.query("scan 30 66")
        assert scan.rows == [("32", "0"), ("33", "1"), ("34", "2"), ("64", "0"), ("65", "1")]
        assert (await client.query("sum")).rows == [("12",)]
        asked = {(r.request_lsn, r.not_modified_since) for r in server.requests}
        assert asked == {(PINNED, PINNED)}

    play(story)


@pytest.mark.parametrize("command", ["put 1 x", "delete 1", 'txn {"1": "x"}'])
def test_writes_are_refused(command: str) -> None:
    async def story(server: ScriptedPageserver, context: NodeContext) -> None:
        await context.ready.wait()
        client = await connect("replica", 5432)
        with pytest.raises(ServerError, match="read-only") as refusal:
            await client.query(command)
        assert refusal.value.sqlstate == "25006"
        assert (await client.query("get 1")).rows == [("1",)]

    play(story)


def test_it_waits_for_its_pageserver_and_says_so() -> None:
    async def story(server: ScriptedPageserver, context: NodeContext) -> None:
        server.mode = Mode.REFUSE
        await asyncio.sleep(100)
        assert not context.ready.is_set()
        status = await call("GET", "replica", 5480, "/v1/status")
        assert status == {
            "phase": "taking_base", "lsn": str(PINNED), "pageserver": "ps0:6400", "leased": True,
        }  # fmt: skip
        server.mode = Mode.ANSWER
        await context.ready.wait()

    play(story)


def test_lease_is_renewed_long_before_it_ends() -> None:
    async def story(server: ScriptedPageserver, context: NodeContext) -> None:
        await context.ready.wait()
        await asyncio.sleep(60)
        assert set(server.leases) == {str(PINNED)}
        assert 20 <= len(server.leases) <= 42
        status = await call("GET", "replica", 5480, "/v1/status")
        assert status["leased"] is True

    play(story)


def test_start_waits_for_the_lease_and_a_lost_server_ends_it() -> None:
    async def story(server: ScriptedPageserver, context: NodeContext) -> None:
        server.lease_refusal = NotReady("attaching")
        await asyncio.sleep(5)
        assert not context.ready.is_set()
        server.lease_refusal = None
        await context.ready.wait()
        server.lease_refusal = NotReady("gone")
        await asyncio.sleep(12)
        assert (await call("GET", "replica", 5480, "/v1/status"))["leased"] is False
        client = await connect("replica", 5432)
        assert (await client.query("get 33")).rows == [("1",)]
        await client.close()

    play(story)


def test_what_is_refused_although_it_is_leased_is_a_broken_promise() -> None:
    async def story(server: ScriptedPageserver, context: NodeContext) -> None:
        await context.ready.wait()
        server.mode, server.sqlstate = Mode.REFUSE, LsnOutOfScope.sqlstate
        client = await connect("replica", 5432)
        with pytest.raises(ServerError, match="the lease at 0/2000 is valid, but block 1"):
            await client.query("get 33")
        server.lease_refusal = LsnOutOfScope("collected")
        await asyncio.sleep(12)
        with pytest.raises(ServerError) as caught:
            await client.query("get 66")
        assert caught.value.sqlstate == LsnOutOfScope.sqlstate
        await client.close()

    play(story)


def test_a_start_below_the_cutoff_serves_refusals() -> None:
    async def story(server: ScriptedPageserver, context: NodeContext) -> None:
        server.lease_refusal = LsnOutOfScope("collected")
        server.mode, server.sqlstate = Mode.REFUSE, LsnOutOfScope.sqlstate
        await context.ready.wait()
        client = await connect("replica", 5432)
        for statement in ("get 33", "scan 0 10"):
            with pytest.raises(ServerError) as caught:
                await client.query(statement)
            assert caught.value.sqlstate == LsnOutOfScope.sqlstate
        await client.close()

    play(story)
