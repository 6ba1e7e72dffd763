"""Faults a scenario can cause, as context managers that heal on exit.

Each verb notes itself among the run's faults, so that the verdict can tell a run whose faults had
an effect from one that proved nothing.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from harness.backend import Backend
from harness.fault_ports import NO_FAULTS, ServiceFaults, Switch
from harness.nodes import NodeHandle


class Faults:
    """The fault verbs of a world."""

    def __init__(self, backend: Backend) -> None:
        self._backend = backend

    @asynccontextmanager
    async def partition(
        self, source: str, target: str, *, both: bool = True
    ) -> AsyncIterator[None]:
        """Nothing passes from ``source`` to ``target`` (nor back, with ``both``)."""
        network = self._backend.network
        network.cut(source, target, both=both)
        try:
            yield
        finally:
            network.heal(source, target, both=both)

    @asynccontextmanager
    async def isolate(self, node: str, peers: list[str]) -> AsyncIterator[None]:
        """``node`` cannot talk to any of ``peers``, nor they to it."""
        network = self._backend.network
        for peer in peers:
            network.cut(node, peer)
        try:
            yield
        finally:
            for peer in peers:
                network.heal(node, peer)

    @asynccontextmanager
    async def hold(self, source: str, target: str, *, both: bool = True) -> AsyncIterator[None]:
        """What is sent is kept, in order, and delivered at the end."""
        network = self._backend.network
        network.hold(source, target, both=both)
        try:
            yield
        finally:
            network.heal(source, target, both=both)

    @asynccontextmanager
    async def delay(
        self, source: str, target: str, seconds: float, *, both: bool = True
    ) -> AsyncIterator[None]:
        """Everything sent takes ``seconds`` longer."""
        network = self._backend.network
        network.delay(source, target, seconds, both=both)
        try:
            yield
        finally:
            network.heal(source, target, both=both)

    def reset(self, source: str, target: str) -> None:
        """Reset the connections between two nodes; new ones work at once."""
        self._backend.network.reset(source, target)

    @asynccontextmanager
    async def pause(self, node: NodeHandle) -> AsyncIterator[None]:
        """Freeze a process."""
        await node.pause()
        try:
            yield
        finally:
            await node.resume()

    @asynccontextmanager
    async def disk_stall(
        self, node: NodeHandle, *, syncs_only: bool = False
    ) -> AsyncIterator[None]:
        """No call of a node's disk returns, or no sync: what is written then may be lost."""
        disk = self._backend.disk(node.name)
        disk.stall(syncs_only=syncs_only)
        try:
            yield
        finally:
            disk.resume()

    @asynccontextmanager
    async def slow_disk(self, node: NodeHandle, by_s: float) -> AsyncIterator[None]:
        """Every call of a node's disk takes ``by_s`` seconds longer."""
        disk = self._backend.disk(node.name)
        disk.slow(by_s)
        try:
            yield
        finally:
            disk.slow(0.0)

    @asynccontextmanager
    async def object_store_outage(self) -> AsyncIterator[None]:
        """S3 is away."""
        async with _outage(self._backend.object_store):
            yield

    @asynccontextmanager
    async def object_store_faults(self, faults: ServiceFaults) -> AsyncIterator[None]:
        """Requests to S3 fail by chance, in these ways."""
        self._backend.object_store.inject(faults)
        try:
            yield
        finally:
            self._backend.object_store.inject(NO_FAULTS)

    @asynccontextmanager
    async def broker_outage(self) -> AsyncIterator[None]:
        """The broker is away."""
        async with _outage(self._backend.broker):
            yield

    @asynccontextmanager
    async def failpoint(
        self, node: NodeHandle, name: str, action: str, **plan: Any
    ) -> AsyncIterator[None]:
        """Have a failpoint of a node act; the end disarms it, if the node still lives."""
        await node.arm(name, action, **plan)
        try:
            yield
        finally:
            if node.running:
                await node.disarm(name)

    def effects(self) -> dict[str, int]:
        """Every non-zero effect counter of the world, by name."""
        effects = self._backend.effects()
        return {name: effects[name] for name in sorted(effects) if effects[name]}


@asynccontextmanager
async def _outage(switch: Switch) -> AsyncIterator[None]:
    switch.outage()
    try:
        yield
    finally:
        switch.restore()
