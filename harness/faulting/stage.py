"""Where faults are caused: a running cluster, its traffic, and what the faults did to them."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable
from functools import partial
from typing import TYPE_CHECKING

from harness.backend import HARNESS
from harness.errors import HarnessError
from harness.fault_ports import BrokerSwitch, ObjectStoreSwitch
from harness.faulting.control_plane import ControlPlane

if TYPE_CHECKING:
    from harness.backend import Backend
    from harness.cluster import Cluster
    from harness.endpoint_handle import EndpointHandle
    from harness.faulting.traffic import Traffic
    from harness.nodes import NodeHandle, PageserverHandle
    from harness.world import World


class Stage:
    """One campaign's cluster. Faults change ``held_down`` and ``excused``; the supervisor obeys."""

    def __init__(self, world: World, cluster: Cluster, traffic: Traffic) -> None:
        self.world = world
        self.cluster = cluster
        self.traffic = traffic
        self.counts: Counter[str] = Counter()
        """Effects that only the one who caused them can count, as ``"process/sk0.kills"``."""
        self.held_down: dict[str, str] = {}
        """Nodes that nobody may start now, and the fault that wants it."""
        self.excused: dict[str, str] = {}
        """Nodes whose incarnation may end by itself, and why."""
        self.starting: dict[str, asyncio.Task[None]] = {}
        """Computes that the supervisor starts just now."""
        self.lost: dict[str, None] = {}
        """Safekeepers whose copy of the WAL is gone."""
        self.control = ControlPlane(self, traffic.primary.timeline, traffic.primary.pageserver)
        self.cancelled = 0
        """Writes that clients gave up; each has a value of its own."""
        self._rivals = 0

    @property
    def backend(self) -> Backend:
        """The world's primitives."""
        return self.world.backend

    def handle(self, name: str) -> NodeHandle:
        """The handle of a storage node."""
        for node in self.cluster.nodes:
            if node.name == name:
                return node
        raise HarnessError(f"there is no storage node {name!r} to strike")

    def machine(self, name: str) -> list[NodeHandle]:
        """What a name of the cast stands for: a storage node, or every node of a compute."""
        endpoint = self.cluster.endpoints.get(name)
        return [self.handle(name)] if endpoint is None else endpoint.nodes

    def hosts(self, name: str) -> list[str]:
        """The hosts that a name of the cast, or the harness's own, stands for."""
        return [name] if name == HARNESS else [node.name for node in self.machine(name)]

    async def act(self, node: NodeHandle, verb: Callable[[], Awaitable[None]]) -> bool:
        """Do something to a node that runs; whether it did. One may end by itself at any time."""
        if not node.running:
            return False
        try:
            await verb()
        except HarnessError:
            if node.running:
                raise
            return False
        return True

    async def crash_compute(self, endpoint: EndpointHandle, *, host: bool = False) -> bool:
        """Crash whatever runs of a compute and hang up on it; whether anything ran.

        Nobody is left who would go on starting it.
        """
        start = self.starting.get(endpoint.name)
        if start is not None and start is not asyncio.current_task():
            start.cancel()
            await asyncio.gather(start, return_exceptions=True)
            self.starting.pop(endpoint.name, None)
        ran = [await self.act(node, partial(node.kill, host=host)) for node in endpoint.nodes]
        await endpoint.disconnect()
        return any(ran)

    def pageserver(self, name: str) -> PageserverHandle:
        """The handle of a pageserver."""
        return next(node for node in self.cluster.pageservers if node.name == name)

    def running(self, name: str) -> bool:
        """Whether an incarnation of the node, or of any node of the compute, lives now."""
        return any(node.running for node in self.machine(name))

    def is_compute(self, name: str) -> bool:
        """Whether the name is a compute's."""
        return name in self.cluster.endpoints

    def service(self, name: str) -> ObjectStoreSwitch | BrokerSwitch:
        """The switch of a shared service, by its name in the effect counters."""
        return self.backend.broker if name == "broker" else self.backend.object_store

    def excuse(self, name: str, *, complaints: str, reason: str) -> None:
        """From now on a node may end by itself, and may complain in words that match."""
        self.excused[name] = reason
        self.world.expect_log(complaints, reason=reason, node=name)

    def distrust(self, name: str, *, reason: str) -> None:
        """From now on a node may end by itself and complain, and others may complain of it."""
        self.excuse(name, complaints="", reason=reason)
        self.world.expect_log(rf"\b{name}:\d", reason=reason)

    def note_emptied(self, name: str) -> None:
        """A node's disk is empty now: the control plane must know what it lost."""
        if any(node.name == name for node in self.cluster.safekeepers):
            self.lost[name] = None
        else:
            self.control.forgot(name)

    def next_rival(self) -> str:
        """A fresh name for another compute."""
        self._rivals += 1
        return f"rival{self._rivals}"

    async def pass_time(self, seconds: float) -> None:
        """Let the system run on for a while, as part of a fault."""
        assert seconds >= 0, f"{seconds} s cannot pass"
        await asyncio.sleep(seconds)

    def effects(self) -> dict[str, int]:
        """Every counter of this world's faults and of this stage's own."""
        return {**self.world.faults.effects(), **self.counts}

    def measure(self, names: tuple[str, ...]) -> int:
        """The sum of some effect counters."""
        effects = self.effects()
        return sum(effects.get(name, 0) for name in names)
