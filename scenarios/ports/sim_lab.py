"""The contract suite's lab in the simulation."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from scenarios.ports.lab import PortTest
from sim.broker import SimBroker
from sim.clock import SimClock
from sim.disk import SimDisk
from sim.loop import LoopOptions, SimLoop
from sim.object_store import SimObjectStore
from sim.policy import SeededRandom
from sim.run import run_on
from sim.service import NO_FAULTS, ServiceFaults
from storage.ports import Broker, Clock, Disk, ObjectStore


@dataclass
class _Process:
    alive: bool = True


class SimLab:
    """One simulated world; everything in it is drawn from ``seed``."""

    world = "sim"

    def __init__(self, seed: int) -> None:
        self._loop = SimLoop(seed, LoopOptions(policy=SeededRandom()))
        seeds = self._loop.seeds
        self._objects = SimObjectStore(self._loop, seeds.child("object-store"))
        self._broker = SimBroker(self._loop, seeds.child("broker"))
        self._clock = SimClock(self._loop, seeds.child("clock"))
        self._disks: dict[str, SimDisk] = {}
        self._processes: dict[tuple[str, str], _Process] = {}

    def run(self, test: PortTest) -> None:
        """Run a test on virtual time."""

        async def main() -> None:
            await test()

        run_on(self._loop, main)

    def disk(self, node: str = "a") -> Disk:
        """A view of the node's disk for a new incarnation."""
        if node not in self._disks:
            self._disks[node] = SimDisk(self._loop, self._loop.seeds.child(f"disk/{node}"))
        return self._disks[node].view(self._start("disk", node))

    @contextmanager
    def full_disk(self, free_bytes: int) -> Iterator[None]:
        """A small capacity."""
        for disk in self._disks.values():
            disk.limit(free_bytes)
        yield
        for disk in self._disks.values():
            disk.limit(None)

    def objects(self, node: str = "a", *, credentials: bool = True) -> ObjectStore:
        """A view of the bucket."""
        if credentials:
            self._objects.service.allow(node)
        else:
            self._objects.service.deny(node)
        return self._objects.view(node, self._start("objects", node))

    async def objects_outage(self) -> None:
        """An outage of the service."""
        self._objects.outage()

    async def objects_restore(self) -> None:
        """The service as it was."""
        self._objects.restore()
        self._objects.service.inject(NO_FAULTS)

    async def lose_replies(self) -> None:
        """Every reply is lost."""
        self._objects.service.inject(ServiceFaults(lost_reply=1.0))

    def broker(self, node: str = "a") -> Broker:
        """A view of the broker."""
        return self._broker.view(node, self._start("broker", node))

    async def crash_broker_client(self, node: str) -> None:
        """The incarnation is dead."""
        self._processes["broker", node].alive = False

    async def broker_outage(self) -> None:
        """An outage of the service."""
        self._broker.outage()

    async def broker_restore(self) -> None:
        """The end of it."""
        self._broker.restore()

    async def cut_broker(self, node: str) -> None:
        """A black hole."""
        self._broker.cut(node)

    async def heal_broker(self, node: str) -> None:
        """The end of it."""
        self._broker.heal(node)

    def clock(self) -> Clock:
        """The one clock of this world."""
        return self._clock

    def _start(self, port: str, node: str) -> _Process:
        if (port, node) in self._processes:
            self._processes[port, node].alive = False
        self._processes[port, node] = process = _Process()
        return process
