"""Two pageserver nodes that can be killed anywhere, and a tenant that lives on one of them."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

from harness.backend import NodeSpec
from harness.checkers.bucket import Bucket, check_bucket, read_bucket
from harness.fault_ports import Loss
from harness.faulting.control_plane import ASKING
from sim.backend import SimBackend, SimBackendOptions
from sim.disk_faults import DiskOptions
from sim.loop import LoopOptions, SimLoop
from sim.policy import Fifo
from sim.run import run_on
from storage.http.client import HttpError, call
from storage.ids import TimelineId
from storage.lsn import Lsn
from storage.pageserver import node
from storage.tasks import TaskRegistry
from storage.tests.await_points import Points
from storage.tests.pageserver_world import QUIET, START, TENANT, TIMELINE, KvHistory
from storage.tests.scripted_safekeeper import ScriptedSafekeeper
from storage.wire.client import ConnectOptions, connect
from storage.wire.errors import ServerError

SECOND, CHILD = TimelineId("d" * 32), TimelineId("c" * 32)
"""A second timeline with layers of its own, and a branch."""

TENANT_PATH = f"/tenant/{TENANT}"
STORY_S_MAX = 600.0
Result = TypeVar("Result")

EVERY_CALL_WAITS = DiskOptions(yield_probability=1.0)
"""As on a real disk, where each call is a place where a task waits."""

UNANSWERED = ASKING
"""A request that failed, or whose node died before it answered."""


def timeline_path(timeline_id: str) -> str:
    return f"{TENANT_PATH}/timeline/{timeline_id}"


class Pair:
    """``ps0`` and ``ps1``, a bucket, a safekeeper with the same WAL for every timeline."""

    def __init__(self, backend: SimBackend) -> None:
        self.backend = backend
        self.history = KvHistory()
        self.safekeeper = ScriptedSafekeeper("sk0", START, lambda: self.history.wal)

    async def begin(self, *names: str) -> None:
        """Two timelines with layers in S3 and a tail that is only in memory, on ``ps0``."""
        loop = self.backend.loop
        loop.nodes.start("sk0")
        with loop.nodes.acting_as("sk0"):
            await loop.create_task(self.safekeeper.listen())
        for name in names:
            await self.start(name)
        self.history.fill(30)
        await self.http("ps0", "POST", TENANT_PATH)
        for timeline_id in (TIMELINE, SECOND):
            body = {"timeline_id": timeline_id, "start_lsn": str(START), "pg_version": 15}
            await self.http("ps0", "POST", f"{TENANT_PATH}/timeline", body)
            await self.catch_up("ps0", timeline_id)
            await self.http("ps0", "POST", f"{timeline_path(timeline_id)}/checkpoint")
        self.history.fill(10, seed=2)
        for timeline_id in (TIMELINE, SECOND):
            await self.catch_up("ps0", timeline_id)

    async def start(self, name: str) -> None:
        options = {
            **QUIET,
            "node_id": 1 + int(name[2:]),
            "discovery": "callmemaybe",
            "detach_flush_timeout_s": 2.0,
        }
        await self.backend.spawn(NodeSpec(name, "pageserver", options))
        await self.backend.wait_ready(name, within_s=30)

    async def come_back(self, name: str, *, wiped: bool) -> None:
        """Start a node that died, perhaps with an empty disk."""
        if wiped:
            await self.backend.wipe(name)
        await self.start(name)

    async def http(self, name: str, method: str, path: str, body: Any = None) -> Any:
        return await call(method, name, 9898, f"/v1{path}", body, timeout_s=60.0)

    async def catch_up(self, name: str, timeline_id: str) -> None:
        """Have a node ingest all of the WAL."""
        self.safekeeper.commit(self.history.end)
        client = await connect(name, 6400, options=ConnectOptions(timeout_s=60.0))
        await client.query(f"callmemaybe {TENANT} {timeline_id} {self.safekeeper.address}")
        await client.query(
            f"get_page {TENANT} {timeline_id} 1663 16384 16385 0 0 {self.history.end}"
        )
        await client.close()

    async def active(self, name: str) -> bool:
        """Wait until a tenant that a node knows is active there; whether it knows it."""
        async with asyncio.timeout(60):
            while True:
                try:
                    shown = await self.http(name, "GET", TENANT_PATH)
                except HttpError as error:
                    assert error.status == 404, error
                    return False
                if shown["state"] == "Active":
                    return True
                assert shown["state"] != "Broken", shown
                await asyncio.sleep(0.1)

    async def attach(self, name: str) -> None:
        """Attach a tenant, however often it takes."""
        await self.http(name, "POST", f"{TENANT_PATH}/attach")
        assert await self.active(name)

    async def check_pages(self, name: str, timeline_id: str, lsn: Lsn) -> None:
        """Every page of a timeline at an LSN."""
        client = await connect(name, 6400, options=ConnectOptions(timeout_s=60.0))
        for block in self.history.blocks(lsn):
            try:
                result = await client.query(
                    f"get_page {TENANT} {timeline_id} 1663 16384 16385 0 {block} {lsn}"
                )
            except ServerError as error:
                raise AssertionError(f"block {block} of {timeline_id} at {lsn}: {error}") from error
            page = self.history.page(block, lsn)
            assert page is not None
            assert result.rows == [(str(lsn), "\\x" + page.hex())], f"block {block} at {lsn}"
        await client.close()

    def files(self, name: str, part: str) -> list[str]:
        """Files on a node's disk whose path has a part."""
        return [path for path in self.backend.disk(name).snapshot().files if part in path]

    async def objects(self, part: str) -> list[str]:
        """Keys in the bucket that have a part."""
        found = await self.backend.admin_objects().list("")
        return [info.key for info in found if part in info.key]

    async def bucket(self) -> Bucket:
        """The bucket, whole."""
        bucket = await read_bucket(self.backend.admin_objects())
        check_bucket(bucket)
        return bucket

    async def end(self) -> None:
        """Every node stops in order and by itself."""
        for name in ("ps0", "ps1"):
            if name in self.backend._nodes and self.backend.running(name):
                await self.backend.stop(name, within_s=30)
                assert self.backend.died(name) is None
        await self.bucket()
        await self.safekeeper.close()


def run_pair(story: Callable[[Pair], Awaitable[Result]], *names: str) -> Result:
    """Run a story with some pageservers."""
    loop = SimLoop(0, LoopOptions(policy=Fifo()))

    async def main() -> Result:
        backend = SimBackend(
            loop, {"pageserver": node.main}, SimBackendOptions(disk=EVERY_CALL_WAITS)
        )
        pair = Pair(backend)
        try:
            async with asyncio.timeout(STORY_S_MAX):
                await pair.begin(*names)
                result = await story(pair)
                await pair.end()
            return result
        finally:
            await backend.close()

    return run_on(loop, main)


class Killer:
    """Kills the node whose task comes to a point: its process, or with ``host`` its machine."""

    def __init__(self) -> None:
        self.points = Points(self._kill, both_ends=True)
        self.host = False
        self.backend: SimBackend | None = None

    def _kill(self, registry: TaskRegistry) -> None:
        assert self.backend is not None
        assert registry.failpoints._die is not None
        registry.failpoints._die("killed at a point")
        if self.host:
            self.backend.disk(registry.node).crash_host(Loss.EVERYTHING)
