"""Safekeepers as nodes of a simulated world, and a writer that proposes real WAL to them."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, TypeVar

from harness.backend import NodeSpec
from sim.backend import SimBackend, SimBackendOptions
from sim.loop import LoopOptions, SimLoop
from sim.policy import Fifo, Policy
from sim.run import run_on
from storage.http.client import call
from storage.ids import TenantId, TimelineId
from storage.lsn import INVALID_LSN, Lsn
from storage.node import NodeMain
from storage.safekeeper import node as safekeeper
from storage.tasks import TaskRegistry
from storage.wal.record import RecordSpec
from storage.wal.writer import WalWriter, WriterOptions
from storage.walproposer.proposer import ProposerOptions, WalProposer

TENANT, TIMELINE = TenantId("1" * 32), TimelineId("2" * 32)
START = Lsn(0x1000000)
SEGMENT = 1 << 20
SYSTEM_ID, VERSION = 7_000_000_000_000_000_001, 16
PATH = f"/v1/tenant/{TENANT}/timeline/{TIMELINE}"
Result = TypeVar("Result")


class Cluster:
    """Some safekeepers with one timeline."""

    def __init__(self, backend: SimBackend, count: int, **options: Any) -> None:
        self.backend = backend
        self.names = [f"sk{i}" for i in range(count)]
        self.options = options
        self.registry = TaskRegistry("harness")

    async def start(self, *names: str) -> None:
        for name in names or self.names:
            options = {"node_id": int(name[2:]), **self.options}
            await self.backend.spawn(NodeSpec(name, "safekeeper", options))
        for name in names or self.names:
            await self.backend.wait_ready(name, within_s=10)

    async def create(self, start_lsn: Lsn = START, **changes: Any) -> None:
        body = {
            "start_lsn": str(start_lsn),
            "system_id": SYSTEM_ID,
            "pg_version": VERSION,
            "wal_segment_size": SEGMENT,
            "safekeepers": self.addresses,
            **changes,
        }
        for name in self.names:
            await call("POST", name, 7676, PATH, body)

    @property
    def addresses(self) -> list[str]:
        return [f"{name}:5454" for name in self.names]

    async def status(self, name: str) -> dict[str, Any]:
        found: dict[str, Any] = await call("GET", name, 7676, PATH)
        return found

    def proposer(self, number: int = 1, **changes: Any) -> WalProposer:
        options = ProposerOptions(
            tenant_id=TENANT,
            timeline_id=TIMELINE,
            safekeepers=tuple(self.addresses),
            proposer_id=number,
            system_id=SYSTEM_ID,
            pg_version=VERSION,
            wal_segment_size=SEGMENT,
            **changes,
        )
        return WalProposer(options, self.registry, random.Random(number))

    async def eventually(self, check: Callable[[], Awaitable[bool]], within_s: float = 30) -> None:
        async with asyncio.timeout(within_s):
            while not await check():  # noqa: ASYNC110 - what it polls is another process
                await asyncio.sleep(0.1)

    async def stop(self) -> None:
        """Every node stops in order and by itself."""
        for name in self.names:
            if self.backend.running(name):
                await self.backend.stop(name, within_s=15)
                assert self.backend.died(name) is None

    async def level(self, lsn: Lsn, *names: str) -> None:
        """Wait until these safekeepers have flushed and committed everything up to ``lsn``."""

        async def is_level() -> bool:
            found = [await self.status(name) for name in names or self.names]
            return all(s["flush_lsn"] == s["commit_lsn"] == str(lsn) for s in found)

        await self.eventually(is_level)

    async def digests(self, until_lsn: Lsn, *names: str) -> set[str]:
        query = f"?from_lsn={START}&until_lsn={until_lsn}"
        found = [
            await call("GET", name, 7676, f"{PATH}/digest{query}") for name in names or self.names
        ]
        return {each["sha256"] for each in found}


class Writer:
    """Writes records and proposes them."""

    def __init__(self, proposer: WalProposer, start_lsn: Lsn, prev_lsn: Lsn = INVALID_LSN) -> None:
        self.proposer = proposer
        self.wal = WalWriter(WriterOptions(VERSION, SEGMENT, SYSTEM_ID), start_lsn, prev_lsn)

    def write(self, *payloads: bytes) -> Lsn:
        for payload in payloads:
            self.wal.append(RecordSpec(rmid=203, info=0, xid=0, main_data=payload))
        begin, data = self.wal.take()
        self.proposer.append(begin, data)
        return self.wal.position

    async def commit(self, *payloads: bytes) -> Lsn:
        end = self.write(*payloads)
        async with asyncio.timeout(30):
            await self.proposer.wait_committed(end)
        return end


def run_cluster(
    story: Callable[[Cluster], Awaitable[Result]],
    *,
    seed: int = 0,
    count: int = 3,
    world: SimBackendOptions | None = None,
    roles: Mapping[str, NodeMain] | None = None,
    policy: Policy | None = None,
    **options: Any,
) -> Result:
    """Run a story on a fresh cluster with its timeline created."""
    loop = SimLoop(seed, LoopOptions(policy=policy or Fifo()))

    async def main() -> Result:
        mains = {"safekeeper": safekeeper.main, **(roles or {})}
        backend = SimBackend(loop, mains, world)
        cluster = Cluster(backend, count, **options)
        try:
            await cluster.start()
            await cluster.create()
            async with asyncio.timeout(600):
                result = await story(cluster)
            await cluster.stop()
            return result
        finally:
            await cluster.registry.shutdown()
            await backend.close()

    return run_on(loop, main)
