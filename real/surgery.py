"""Safekeepers that can be operated on while they live: for tests and benchmarks of runtimes.

Nothing of the product knows of this. ``RealOptions(roles="real.surgery:ROLES")`` runs the same node
main with one more listener, on the main thread, that blocks, measures or ends its runtimes.
A request is one JSON line ``{"verb": …}``, answered by one JSON line.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import json
import time
from collections.abc import Mapping
from typing import Any

from real.disk_pool import DiskPool
from real.node_main import load
from real.runtimes import ThreadRuntime, ThreadRuntimes
from storage.node import NodeContext, NodeMain
from storage.runtimes import RuntimeName

PORT = 7999
DISK = "disk"
SERVICES = tuple(str(name) for name in RuntimeName if name is not RuntimeName.MAIN)
PLACES = (*SERVICES, DISK)
"""What can be blocked and measured."""

PROBE_PAUSE_S = 0.004
_ROLES: Mapping[str, NodeMain] = load("storage.roles:ROLES")


async def safekeeper(context: NodeContext) -> None:
    """A safekeeper on the operating table."""
    table = _Table(context)
    server = await asyncio.start_server(table.serve, context.name, PORT)
    try:
        await _ROLES["safekeeper"](context)
    finally:
        server.close()


ROLES: Mapping[str, NodeMain] = {**_ROLES, "safekeeper": safekeeper}


class _Table:
    """The verbs, in the node's own process."""

    def __init__(self, context: NodeContext) -> None:
        runtimes = context.ports.runtimes
        assert isinstance(runtimes, ThreadRuntimes), "only real nodes have threads to operate on"
        self._runtimes = runtimes
        self._disk: Any = context.ports.disk

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Answer one request."""
        request = json.loads(await reader.readline())
        verb = getattr(self, f"verb_{request.pop('verb')}")
        writer.write(json.dumps(await verb(**request)).encode() + b"\n")
        writer.close()

    def _runtime(self, name: str) -> ThreadRuntime:
        runtime = self._runtimes.opened(RuntimeName(name))
        assert runtime is not None, f"the node has not opened {name}"
        return runtime

    @property
    def _pool(self) -> DiskPool:
        pool: DiskPool = self._disk._disk.pool
        return pool

    async def verb_block(self, *, place: str, seconds: float, busy: bool) -> None:
        """Have a runtime, or every disk thread, do nothing but sleep or count for a while."""
        hold = functools.partial(_count if busy else time.sleep, seconds)
        if place == DISK:
            for _ in range(self._pool.threads):
                self._pool.submit(hold)
        else:
            self._runtime(place).post(hold)

    async def verb_probe(self, *, seconds: float) -> dict[str, list[float]]:
        """How long each place takes to do nothing, in seconds, again and again for a while."""
        delays = await asyncio.gather(*(self._probe(place, seconds) for place in PLACES))
        return dict(zip(PLACES, delays, strict=True))

    async def _probe(self, place: str, seconds: float) -> list[float]:
        end_s = time.perf_counter() + seconds
        delays = []
        while (started_s := time.perf_counter()) < end_s:
            if place == DISK:
                await self._pool.submit(int)
            else:
                await self._runtime(place).call(_nothing)
            delays.append(time.perf_counter() - started_s)
            await asyncio.sleep(PROBE_PAUSE_S)
        return delays

    async def verb_end(self, *, place: str) -> None:
        """End a runtime's loop, and with it its thread."""
        self._runtime(place).post(lambda: asyncio.get_running_loop().stop())

    async def verb_cancel(self, *, place: str, task: str) -> int:
        """Cancel the tasks of a name (``kind:name``) on a runtime; returns how many there were."""

        async def cancel() -> int:
            found = [each for each in asyncio.all_tasks() if each.get_name() == task]
            for each in found:
                each.cancel()
            return len(found)

        return await self._runtime(place).call(cancel)


def _count(seconds: float) -> None:
    """Keep the interpreter busy."""
    end_s = time.perf_counter() + seconds
    while time.perf_counter() < end_s:
        pass


async def _nothing() -> None:
    return


async def operate(node: str, verb: str, **arguments: Any) -> Any:
    """Send one request to a node that runs here; from the loop of a real cluster."""
    reader, writer = await asyncio.open_connection(node, PORT, limit=1 << 24)
    writer.write(json.dumps({"verb": verb, **arguments}).encode() + b"\n")
    try:
        return json.loads(await reader.readline())
    finally:
        writer.close()
        with contextlib.suppress(ConnectionError):
            await writer.wait_closed()
