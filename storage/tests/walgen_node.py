"""A whole walgen node in the simulation, above a quorum in memory and a scripted pageserver."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable
from typing import Any, cast

import sim
from storage.compute import walgen
from storage.lsn import Lsn
from storage.node import NodeContext
from storage.ports import Ports
from storage.tests.compute_world import MemoryPages, MemoryQuorum
from storage.tests.scripted_pageserver import ScriptedPageserver
from storage.walproposer.options import Deposed, Elected

COMMIT_DELAY_S = 0.002


class MemoryProposer(MemoryQuorum):
    """Stands in for the walproposer: a quorum that has WAL ``COMMIT_DELAY_S`` after it is sent."""

    def __init__(self) -> None:
        super().__init__(commits_by_itself=False)
        self.term = 0
        self.commits_held = False
        self._deposed: asyncio.Future[None] | None = None
        self._on_deposed: list[Callable[[Deposed], object]] = []

    @property
    def flush_lsn(self) -> Lsn:
        return self.end_lsn

    async def elect(self) -> Elected:
        self.term += 1
        self._callbacks.clear()
        self._on_deposed.clear()
        self._deposed = asyncio.get_running_loop().create_future()
        self.commit()
        return Elected(self.term, self.end_lsn)

    def append(self, begin_lsn: Lsn, data: bytes) -> None:
        super().append(begin_lsn, data)
        asyncio.get_running_loop().call_later(COMMIT_DELAY_S, self._arrived, self.end_lsn)

    def _arrived(self, lsn: Lsn) -> None:
        if not self.commits_held:
            self.commit(lsn)

    def on_deposed(self, callback: Callable[[Deposed], object]) -> None:
        self._on_deposed.append(callback)

    def depose(self) -> None:
        error = Deposed("term 9 rules")
        for callback in self._on_deposed:
            callback(error)
        assert self._deposed is not None
        self._deposed.set_exception(error)

    async def wait_committed(self, lsn: Lsn) -> None:
        assert self._deposed is not None
        await self._deposed

    async def close(self) -> None:
        return


class WalgenRig:
    """The node ``main`` and its surroundings; ``lives`` runs one incarnation after another."""

    def __init__(self, loop: sim.SimLoop) -> None:
        self.loop = loop
        self.proposer = MemoryProposer()
        self.pages = MemoryPages(self.proposer)
        self.pageservers = [
            ScriptedPageserver(name, self.pages.fetch, self._blocks) for name in ("ps0", "ps1")
        ]
        self.options: dict[str, Any] = {
            "tenant_id": "a" * 32,
            "timeline_id": "b" * 32,
            "pageserver": "ps0:6400",
            "safekeepers": ["sk0:5454"],
            "proposer_id": 1,
            "system_id": 77,
            "pg_version": 15,
            "wal_segment_size": 1 << 20,
            "cache_pages": 2,
            "read_timeout_s": 5.0,
        }
        self.context: NodeContext | None = None

    def _blocks(self) -> int:
        self.pages.redo()
        return max(self.pages.pages, default=-1) + 1

    async def start_pageservers(self) -> None:
        for server in self.pageservers:
            self.loop.nodes.start(server.name)
            with self.loop.nodes.acting_as(server.name):
                await self.loop.create_task(server.start())

    async def start(self) -> asyncio.Task[None]:
        """Start the next incarnation and wait until it serves; returns its main's task."""
        entropy = random.Random(4)
        ports = Ports(*cast(Any, (None, None, None, None)), entropy)
        context = self.context = NodeContext("main", ports, self.options)
        self.loop.nodes.start("main")
        with self.loop.nodes.acting_as("main"):
            life = self.loop.create_task(walgen.main(context))
        waits = {life, self.loop.create_task(context.ready.wait())}
        await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
        if life.done():
            life.result()
        return life

    async def stop(self, life: asyncio.Task[None]) -> None:
        assert self.context is not None
        self.context.stopping.set()
        await life
        self.loop.nodes.crash("main")


def play(story: Callable[[WalgenRig], Awaitable[None]], monkeypatch: Any) -> None:
    """Run a story with the rig's proposer in place of the real one."""

    async def main() -> None:
        loop = asyncio.get_running_loop()
        assert isinstance(loop, sim.SimLoop)
        rig = WalgenRig(loop)
        monkeypatch.setattr(walgen, "WalProposer", lambda *_: rig.proposer)
        await rig.start_pageservers()
        await story(rig)

    sim.run(main, seed=5)
