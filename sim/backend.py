"""The simulated world's primitives: ``harness.backend.Backend`` over one loop.

A node is an incarnation that runs a node main on simulated ports. Disk and clock belong to the
host and outlive incarnations; every incarnation gets fresh views, which are inert once it is dead.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from harness.backend import HARNESS, RETURNED_UNASKED, Ability, Event, LogLine, NodeSpec
from harness.errors import HarnessError, NodeDied, NotLive
from harness.fault_ports import Loss
from harness.leftovers import report_leftovers
from sim.broker import BrokerOptions, SimBroker
from sim.capture import LogCapture
from sim.clock import ClockOptions, SimClock
from sim.disk import SimDisk
from sim.disk_faults import DiskOptions
from sim.link import LinkOptions
from sim.loop import SimLoop
from sim.network import SimNetwork
from sim.node import Incarnation, Life
from sim.object_store import ObjectStoreOptions, SimObjectStore
from sim.tasks import describe_await
from sim.transport import StreamTransport
from storage.events import Field, Sink, current_sink
from storage.node import NodeContext, NodeMain
from storage.ports import Broker, ObjectStore, Ports

_log = logging.getLogger("sim.node")


@dataclass(frozen=True)
class SimBackendOptions:
    """What a healthy world is like; ``log_level`` is ``logging``'s number.

    Writes break in two now and then, because TCP promises bytes and not messages.
    """

    link: LinkOptions = field(default_factory=lambda: LinkOptions(fragmentation=0.05))
    disk: DiskOptions = field(default_factory=DiskOptions)
    object_store: ObjectStoreOptions = field(default_factory=ObjectStoreOptions)
    broker: BrokerOptions = field(default_factory=BrokerOptions)
    clock: ClockOptions = field(default_factory=ClockOptions)
    log_level: int = logging.INFO


class SimNode:
    """One node through all its incarnations, as the backend keeps it."""

    def __init__(self, name: str, disk: SimDisk, clock: SimClock) -> None:
        self.name = name
        self.disk = disk
        self.clock = clock
        self.incarnation: Incarnation | None = None
        self.context: NodeContext | None = None
        self.ended = asyncio.Event()
        self.answered = asyncio.Event()
        self.stopping = False
        self.died: str | None = None

    @property
    def running(self) -> bool:
        """Whether an incarnation lives, paused or not."""
        return self.incarnation is not None and self.incarnation.alive


class _ReadyEvent(asyncio.Event):
    """``NodeContext.ready``: tells the backend as well."""

    def __init__(self, loop: SimLoop, incarnation: Incarnation, answered: asyncio.Event) -> None:
        super().__init__()
        self._sim_loop = loop
        self._incarnation = incarnation
        self._answered = answered

    def set(self) -> None:
        """The node accepts connections."""
        if not self.is_set() and self._incarnation.alive:
            super().set()
            self._sim_loop.process_event(self._incarnation, "ready")
            self._answered.set()


class SimBackend:
    """:class:`harness.backend.Backend` for one run on ``loop``; ``mains`` are the roles."""

    def __init__(
        self,
        loop: SimLoop,
        mains: Mapping[str, NodeMain],
        options: SimBackendOptions | None = None,
    ) -> None:
        self.options = options or SimBackendOptions()
        self.loop = loop
        self.world = "sim"
        self.clock_error_s = 0.0
        self.abilities = frozenset(set(Ability) - {Ability.POSTGRES})
        self.network: SimNetwork = loop.network
        self.network.options = self.options.link
        self.object_store = SimObjectStore(
            loop, loop.seeds.child("object-store"), self.options.object_store
        )
        self.broker = SimBroker(loop, loop.seeds.child("broker"), self.options.broker)
        self._mains = mains
        self._nodes: dict[str, SimNode] = {}
        self._capture = LogCapture(loop, self.options.log_level)
        self._capture.install()

    def now_s(self) -> float:
        """Virtual seconds since the run began."""
        return self.loop.environment.now - self.loop.trace.start_s

    # Lives of nodes.

    async def spawn(self, spec: NodeSpec) -> None:
        """Start a node's next incarnation on its disk (empty the first time); not yet ready."""
        main = self._mains.get(spec.role)
        if main is None:
            known = ", ".join(sorted(self._mains))
            raise HarnessError(f"no role {spec.role!r} for node {spec.name!r}; there are: {known}")
        node = self._nodes.get(spec.name)
        if node is None:
            node = self._nodes[spec.name] = self._new_node(spec.name)
        if node.running:
            raise HarnessError(f"node {spec.name!r} runs already; stop or kill it first")
        incarnation = self.loop.nodes.start(spec.name)
        node.incarnation = incarnation
        node.ended, node.answered = asyncio.Event(), asyncio.Event()
        node.stopping, node.died = False, None
        node.context = NodeContext(
            spec.name,
            self._ports(node, incarnation),
            spec.options,
            ready=_ReadyEvent(self.loop, incarnation, node.answered),
            die=lambda reason: self._die(node, incarnation, reason),
        )
        incarnation.context.run(current_sink.set, self._sink(incarnation))
        self.loop.create_task(
            self._live(node, main, incarnation),
            name=f"{spec.name}#{incarnation.number}",
            context=incarnation.context.copy(),
        )

    def _new_node(self, name: str) -> SimNode:
        seeds = self.loop.seeds

        def note(**fields: Field) -> None:
            self.note("fault", {**fields, "target": name})

        disk = SimDisk(self.loop, seeds.child(f"disk/{name}"), self.options.disk, note)
        clock = SimClock(self.loop, seeds.child(f"clock/{name}"), self.options.clock, note)
        return SimNode(name, disk, clock)

    def _ports(self, node: SimNode, incarnation: Incarnation) -> Ports:
        name = f"entropy/{node.name}/{incarnation.number}"
        return Ports(
            disk=node.disk.view(incarnation),
            objects=self.object_store.view(node.name, incarnation),
            broker=self.broker.view(node.name, incarnation),
            clock=node.clock,
            entropy=self.loop.seeds.child(name),
        )

    def _sink(self, incarnation: Incarnation) -> Sink:
        def sink(kind: str, fields: dict[str, Field]) -> None:
            if incarnation.alive:
                self.loop.observe(incarnation.name, kind, fields)

        return sink

    async def _live(self, node: SimNode, main: NodeMain, incarnation: Incarnation) -> None:
        """The process: the main, and what the operating system does when it ends."""
        assert node.context is not None, "a node that lives has a context"
        try:
            await main(node.context)
            await report_leftovers(incarnation.tasks)
            for socket in incarnation.endpoints():
                if isinstance(socket, StreamTransport) and not socket.made:
                    continue  # Accepted as the listener closed; only the kernel knows of it.
                _log.warning("a %s is still open after its main returned", type(socket).__name__)
        except BaseException as error:
            if not incarnation.alive:
                raise  # The world is over and this is its disposal; nobody listens.
            node.died = f"{type(error).__name__}: {error}"
            _log.error("node %s crashed: %s", node.name, node.died, exc_info=error)
        else:
            if not node.stopping:
                node.died = RETURNED_UNASKED
                _log.error("node %s: %s", node.name, node.died)
        self.loop.nodes.crash(node.name, state="stopped")
        node.answered.set()
        node.ended.set()

    async def wait_ready(self, name: str, *, within_s: float) -> None:
        """Return once the node's main set ``ready``; ``NodeDied`` if it ended instead."""
        node = self._node(name)
        try:
            async with asyncio.timeout(within_s):
                await node.answered.wait()
        except TimeoutError:
            raise NotLive(
                f"node {name!r} is not ready after {within_s:g} s; {self._waits_for(node)}",
                checker="wait_ready",
            ) from None
        if node.ended.is_set():
            reason = node.died or "it was stopped or killed"
            raise NodeDied(f"node {name!r} ended before it was ready: {reason}")

    async def stop(self, name: str, *, within_s: float) -> None:
        """Ask the node to end (SIGTERM); ``NotLive`` if it still runs after ``within_s``."""
        node = self._running_node(name)
        assert node.context is not None, "a running node has a context"
        assert node.incarnation is not None, "a running node has an incarnation"
        node.stopping = True
        self.loop.process_event(node.incarnation, "stopping")
        node.context.stopping.set()
        try:
            async with asyncio.timeout(within_s):
                await node.ended.wait()
        except TimeoutError:
            raise NotLive(
                f"node {name!r} still runs {within_s:g} s after it was asked to stop; "
                + self._waits_for(node),
                checker="stop",
            ) from None

    async def kill(self, name: str, *, host: bool = False, loss: Loss = Loss.RANDOM) -> None:
        """Crash the process now, or with ``host`` the machine, which loses unsynced data."""
        node = self._running_node(name)
        self.loop.nodes.crash(name, host=host)
        if host:
            node.disk.crash_host(loss)
        node.answered.set()
        node.ended.set()
        if not self.loop.nodes.owner().alive:
            await self.loop.create_future()  # A node that kills itself never comes back from it.

    def _die(self, node: SimNode, incarnation: Incarnation, reason: str) -> None:
        """The process ends itself at once; nothing of it runs after the present call returns."""
        assert incarnation.alive, f"{node.name} is dead already"
        node.died = reason
        self.loop.nodes.crash(node.name)
        node.answered.set()
        node.ended.set()

    async def pause(self, name: str) -> None:
        """Freeze the process (SIGSTOP): its connections stay open and say nothing."""
        self._running_node(name)
        self.loop.nodes.pause(name)

    async def resume(self, name: str) -> None:
        """Undo :meth:`pause`."""
        self._running_node(name)
        self.loop.nodes.resume(name)

    async def wipe(self, name: str) -> None:
        """Erase the disk of a node that is not running."""
        node = self._node(name)
        if node.running:
            raise HarnessError(f"node {name!r} runs; stop or kill it before wiping its disk")
        node.disk.wipe()
        self.loop.observe(name, "process", {"state": "wiped"})

    def running(self, name: str) -> bool:
        """Whether an incarnation of the node runs now (paused counts as running)."""
        return self._node(name).running

    def died(self, name: str) -> str | None:
        """Why the node's last incarnation ended by itself, or ``None`` if it did not."""
        return self._node(name).died

    # What only this world has.

    def disk(self, name: str) -> SimDisk:
        """A host's disk, with its fault verbs."""
        return self._node(name).disk

    def clock(self, name: str) -> SimClock:
        """A host's wall clock, with its fault verbs."""
        return self._node(name).clock

    def effects(self) -> Mapping[str, int]:
        """Counters of what every fault of this world did, as ``"disk/sk0.bytes_lost"``."""
        counters: dict[str, Mapping[str, int]] = {
            "network": self.network.effects(),
            "object_store": self.object_store.effects(),
            "broker": self.broker.effects(),
        }
        for node in self._nodes.values():
            counters[f"disk/{node.name}"] = node.disk.effects
            counters[f"clock/{node.name}"] = node.clock.effects
        return {
            f"{place}.{name}": count
            for place, effects in counters.items()
            for name, count in effects.items()
        }

    # Addresses, oracles, evidence.

    def note(self, kind: str, fields: Mapping[str, Field]) -> None:
        """Put an event of the harness itself into the trace."""
        self.loop.observe(HARNESS, kind, fields)

    def follow(self, listener: Callable[[Event], None]) -> Callable[[], None]:
        """Tell ``listener`` of every event but deliveries, at once, until the returned call."""
        listeners = self.loop.trace.listeners
        listeners.append(listener)
        return lambda: listeners.remove(listener)

    def host_port(self, name: str, port: int) -> tuple[str, int]:
        """The names themselves."""
        return name, port

    def admin_objects(self) -> ObjectStore:
        """The bucket itself, past every fault, for oracles."""
        return self.object_store.admin()

    def admin_broker(self) -> Broker:
        """The broker itself, past every fault, for oracles."""
        return self.broker.admin()

    def logs(self) -> Sequence[LogLine]:
        """Every log record of every node so far, in order of time."""
        return self._capture.lines

    def events(self) -> Sequence[Event]:
        """Every event so far, in order of time; of deliveries, the newest."""
        return self.loop.trace.events()

    def observations(self) -> Sequence[Event]:
        """Every event so far but deliveries."""
        return self.loop.trace.observations()

    async def close(self) -> None:
        """End every node; the evidence stays readable."""
        for node in self._nodes.values():
            if node.running:
                self.loop.nodes.crash(node.name, state="stopped")
                node.answered.set()
                node.ended.set()
        self._capture.remove()

    def _node(self, name: str) -> SimNode:
        try:
            return self._nodes[name]
        except KeyError:
            known = ", ".join(sorted(self._nodes)) or "none"
            raise HarnessError(f"no node {name!r}; nodes spawned so far: {known}") from None

    def _running_node(self, name: str) -> SimNode:
        node = self._node(name)
        if node.running:
            return node
        if node.died is not None:
            raise NodeDied(f"node {name!r} ended by itself: {node.died}")
        raise HarnessError(f"node {name!r} is not running; start it first")

    def _waits_for(self, node: SimNode) -> str:
        incarnation = node.incarnation
        if incarnation is None or incarnation.life is Life.PAUSED:
            return "it is paused"
        waiting = [describe_await(task) for task in incarnation.tasks if not task.done()]
        return "its tasks wait in: " + "; ".join(waiting)
