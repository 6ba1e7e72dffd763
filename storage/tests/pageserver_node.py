"""A whole pageserver node in the simulation, with a safekeeper that it is called by."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable
from typing import Any

import sim
from sim.broker import SimBroker
from sim.clock import SimClock
from sim.disk import SimDisk
from sim.object_store import SimObjectStore
from storage.http.client import call
from storage.node import NodeContext
from storage.pageserver import node
from storage.ports import Ports
from storage.tests.pageserver_world import QUIET, START, STORY_S_MAX, TENANT, TIMELINE, KvHistory
from storage.tests.scripted_safekeeper import ScriptedSafekeeper
from storage.wire.client import Client, ConnectOptions, connect

IDS = f"{TENANT} {TIMELINE}"
PATH = f"/tenant/{TENANT}/timeline/{TIMELINE}"


class Node:
    """The node ``ps0`` with a safekeeper ``sk0`` that it is called by."""

    def __init__(self, loop: sim.SimLoop, options: dict[str, Any]) -> None:
        self.loop = loop
        self.history = KvHistory()
        self.safekeeper = ScriptedSafekeeper("sk0", START, lambda: self.history.wal)
        self.store = SimObjectStore(loop, random.Random(2))
        self.disk = SimDisk(loop, random.Random(1))
        self._broker = SimBroker(loop, random.Random(3))
        self._options = {**QUIET, "discovery": "callmemaybe", **options}
        self.context: NodeContext | None = None
        self.life: asyncio.Task[None] | None = None

    async def start(self) -> None:
        ports = Ports(
            self.disk.view(),
            self.store.view("ps0"),
            self._broker.view("ps0"),
            SimClock(self.loop, random.Random(4)),
            random.Random(5),
        )
        context = self.context = NodeContext("ps0", ports, self._options)
        self.loop.nodes.start("ps0")
        with self.loop.nodes.acting_as("ps0"):
            self.life = self.loop.create_task(node.main(context))
        waiting = self.loop.create_task(context.ready.wait())
        await asyncio.wait((self.life, waiting), return_when=asyncio.FIRST_COMPLETED)
        if self.life.done():
            self.life.result()

    async def stop(self) -> None:
        assert self.context is not None
        assert self.life is not None
        self.context.stopping.set()
        await self.life
        self.loop.nodes.crash("ps0")

    async def http(self, method: str, path: str, body: Any = None) -> Any:
        return await call(method, "ps0", 9898, f"/v1{path}", body, timeout_s=100.0)

    async def client(self) -> Client:
        return await connect("ps0", 6400, options=ConnectOptions(timeout_s=100.0))

    async def timeline(self, count: int = 0) -> None:
        """A tenant and a timeline, with so many transactions ingested."""
        await self.http("POST", f"/tenant/{TENANT}")
        body = {"timeline_id": TIMELINE, "start_lsn": str(START), "pg_version": 15}
        await self.http("POST", f"/tenant/{TENANT}/timeline", body)
        if count:
            await self.more(count)

    async def more(self, count: int) -> None:
        self.history.fill(count, seed=len(self.history.ends))
        self.safekeeper.commit(self.history.end)
        client = await self.client()
        await client.query(f"callmemaybe {IDS} {self.safekeeper.address}")
        await client.query(f"get_page {IDS} 1663 16384 16385 0 0 {self.history.end}")
        await client.close()


def play(story: Callable[[Node], Awaitable[None]], **options: Any) -> None:
    async def main() -> None:
        loop = asyncio.get_running_loop()
        assert isinstance(loop, sim.SimLoop)
        stage = Node(loop, options)
        loop.nodes.start("sk0")
        with loop.nodes.acting_as("sk0"):
            await loop.create_task(stage.safekeeper.listen())
        await stage.start()
        async with asyncio.timeout(STORY_S_MAX):
            await story(stage)
        await stage.stop()
        await stage.safekeeper.close()

    sim.run(main, seed=9)
