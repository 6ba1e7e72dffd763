"""Nodes as contexts: every callback runs under an incarnation of a node, or under the scenario.

An incarnation is one life of a node's process. When it crashes nothing of it runs again: its ready
callbacks, timers and tasks go to the loop's graveyard, unfinalised, until the world ends. A paused
incarnation's callbacks are parked and run in order when it resumes.
"""

from __future__ import annotations

import enum
import gc
import weakref
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import Context, ContextVar, copy_context
from typing import Any, Protocol

from harness.backend import HARNESS
from sim.errors import SimulationError
from sim.tasks import SimTask


class Life(enum.Enum):
    """What an incarnation's process is doing."""

    RUNNING = "running"
    PAUSED = "paused"
    DEAD = "dead"


class Endpoint(Protocol):
    """A socket of a process: a listener, a connection or a datagram endpoint."""

    def process_died(self, *, host_died: bool) -> None:
        """The kernel's part of a process death: resets and closed ports, or silence."""
        ...


class Incarnation:
    """One life of a node. ``name`` is the node's, ``number`` counts its lives from 1."""

    __slots__ = (
        "_endpoints",
        "_failed",
        "_next_endpoint",
        "_prune_above",
        "context",
        "life",
        "name",
        "number",
        "parked",
        "tasks",
    )

    def __init__(self, name: str, number: int) -> None:
        self.name = name
        self.number = number
        self.life = Life.RUNNING
        self.tasks: list[SimTask] = []
        self._failed: list[weakref.ref[SimTask]] = []
        self.parked: list[Any] = []
        self._endpoints: dict[int, Endpoint] = {}
        self._next_endpoint = 0
        self._prune_above = 64
        self.context: Context = copy_context()
        self.context.run(current_incarnation.set, self)

    @property
    def alive(self) -> bool:
        """Whether its process exists; a paused one does."""
        return self.life is not Life.DEAD

    def adopt(self, task: SimTask) -> None:
        """Own a task until it is done; dropping finished ones is amortised."""
        task.owner = self
        self.tasks.append(task)
        if len(self.tasks) > self._prune_above:
            self.prune()

    def prune(self) -> None:
        """Let go of finished tasks; asyncio reports a failure when its last reference is gone."""
        finished = [task for task in self.tasks if task.done()]
        self.tasks = [task for task in self.tasks if not task.done()]
        self._prune_above = 2 * len(self.tasks) + 64
        self._failed += [weakref.ref(task) for task in finished if task._log_traceback]
        if self._failed:
            self._failed = [ref for ref in self._failed if (task := ref()) and task._log_traceback]

    def report_garbage(self) -> None:
        """Have failures reported whose last references are cycles; for the end of its life."""
        self.prune()
        if self._failed:
            gc.collect()

    def unretrieved(self) -> list[SimTask]:
        """Failed tasks that are still referenced somewhere and that nobody has awaited so far."""
        self.prune()
        failed = [task for task in (ref() for ref in self._failed) if task is not None]
        self._failed = []
        return [task for task in failed if task._log_traceback]

    def open_endpoint(self, endpoint: Endpoint) -> int:
        """Register a socket; the number is for :meth:`close_endpoint`."""
        self._next_endpoint += 1
        self._endpoints[self._next_endpoint] = endpoint
        return self._next_endpoint

    def close_endpoint(self, number: int) -> None:
        """Forget a socket; a dead process keeps its own, nothing of it may be finalised."""
        if self.alive:
            self._endpoints.pop(number, None)

    def endpoints(self) -> list[Endpoint]:
        """Its open sockets in the order in which they were opened."""
        return list(self._endpoints.values())

    def forget(self) -> None:
        """Drop everything it held; only after its coroutines were disposed of."""
        self.tasks.clear()
        self.parked.clear()
        self._endpoints.clear()

    def __repr__(self) -> str:
        return f"<Incarnation {self.name}#{self.number} {self.life.value}>"


current_incarnation: ContextVar[Incarnation | None] = ContextVar(
    "current_incarnation", default=None
)
"""The incarnation whose code runs; ``None`` for the scenario."""


def current_node() -> str:
    """Name of the node whose code runs now; the scenario runs as ``harness.backend.HARNESS``."""
    incarnation = current_incarnation.get()
    return HARNESS if incarnation is None else incarnation.name


class Nodes:
    """Every incarnation of a world, and the verbs that end, freeze and thaw them."""

    def __init__(self, kernel: Kernel) -> None:
        self._kernel = kernel
        self._latest: dict[str, Incarnation] = {}
        self.home = Incarnation(HARNESS, 1)
        self.dead: list[Incarnation] = []

    def start(self, name: str) -> Incarnation:
        """Begin the next life of a node; its previous one must be over."""
        previous = self._latest.get(name)
        if name == HARNESS or (previous is not None and previous.alive):
            raise SimulationError(f"node {name!r} is running; crash it before starting it again")
        incarnation = Incarnation(name, 1 if previous is None else previous.number + 1)
        self._latest[name] = incarnation
        self._kernel.power(name, up=True)
        self._kernel.process_event(incarnation, "started")
        return incarnation

    def latest(self, name: str) -> Incarnation | None:
        """The newest incarnation of a node, dead or not; ``None`` if it never ran."""
        return self._latest.get(name)

    def living(self, name: str) -> Incarnation:
        """The incarnation of a node that lives now; ``SimulationError`` if none does."""
        incarnation = self._latest.get(name)
        if incarnation is None or not incarnation.alive:
            known = ", ".join(sorted(self._latest)) or "none"
            raise SimulationError(f"node {name!r} is not running; nodes seen so far: {known}")
        return incarnation

    def owner(self) -> Incarnation:
        """The incarnation whose code runs now, the scenario's own included."""
        return current_incarnation.get() or self.home

    def everyone(self) -> list[Incarnation]:
        """The scenario and every node's newest incarnation."""
        return [self.home, *self._latest.values()]

    def crash(self, name: str, *, host: bool = False, state: str = "killed") -> None:
        """End a node's process now; with ``host`` its machine, so peers hear nothing of it.

        Synchronous code of the node that is on the stack goes on to its next ``await``, but
        nothing it does from now on has an effect.
        """
        incarnation = self.living(name)
        incarnation.report_garbage()
        incarnation.life = Life.DEAD
        self.dead.append(incarnation)
        self._kernel.process_event(incarnation, state)
        self._kernel.gate_changed()
        if host:
            self._kernel.power(name, up=False)
        for endpoint in incarnation.endpoints():
            endpoint.process_died(host_died=host)

    def pause(self, name: str) -> None:
        """Freeze a node's process; what becomes ready is parked."""
        incarnation = self.living(name)
        if incarnation.life is Life.PAUSED:
            raise SimulationError(f"node {name!r} is paused already")
        incarnation.life = Life.PAUSED
        self._kernel.process_event(incarnation, "paused")
        self._kernel.gate_changed()

    def resume(self, name: str) -> None:
        """Thaw a paused process; parked callbacks become ready in their order."""
        incarnation = self.living(name)
        if incarnation.life is not Life.PAUSED:
            raise SimulationError(f"node {name!r} is not paused")
        incarnation.life = Life.RUNNING
        self._kernel.process_event(incarnation, "resumed")
        self._kernel.gate_changed()
        parked, incarnation.parked = incarnation.parked, []
        for handle in parked:
            self._kernel.push(handle)

    def restricted(self) -> bool:
        """Whether any incarnation is dead or paused, so that callbacks must be checked."""
        if self.dead:
            return True
        return any(each.life is Life.PAUSED for each in self._latest.values())

    @contextmanager
    def acting_as(self, name: str) -> Iterator[Incarnation]:
        """Code and tasks started inside run as the node, which is started if it does not live."""
        incarnation = self._latest.get(name)
        if incarnation is None or not incarnation.alive:
            incarnation = self.start(name)
        token = current_incarnation.set(incarnation)
        try:
            yield incarnation
        finally:
            current_incarnation.reset(token)


class Kernel(Protocol):
    """What nodes need of the loop."""

    def push(self, handle: Any) -> None:
        """Make a handle ready."""
        ...

    def gate_changed(self) -> None:
        """An incarnation died, froze or thawed."""
        ...

    def power(self, host: str, *, up: bool) -> None:
        """A machine got or lost its power."""
        ...

    def process_event(self, incarnation: Incarnation, state: str) -> None:
        """Record a change of a process in the trace."""
        ...
