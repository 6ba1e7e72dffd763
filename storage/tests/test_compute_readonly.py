"""The read-only compute: everything as of its LSN, nothing written."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable
from typing import Any, cast

import pytest

import sim
from storage.compute import readonly
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
        assert status == {"phase": "taking_base", "lsn": str(PINNED), "pageserver": "ps0:6400"}
        server.mode = Mode.ANSWER
        await context.ready.wait()

    play(story)
