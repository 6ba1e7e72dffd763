"""In which order callbacks run that are ready at one instant.

:class:`Fifo` is asyncio's own order. :class:`SeededRandom` and :class:`Pct` permute tasks, timers
and deliveries, but keep what asyncio promises: plain ``call_soon`` callbacks run in the order they
were registered. PCT is Burckhardt et al., "A Randomized Scheduler with Probabilistic Guarantees of
Finding Bugs" (ASPLOS 2010): random priorities with ``depth - 1`` random points of priority change.
"""

from __future__ import annotations

import random
from collections import deque
from dataclasses import dataclass
from heapq import heapify, heappop, heappush
from typing import Any, Protocol

from sim.handles import SimHandle
from sim.tasks import SimTask


class ReadyQueue(Protocol):
    """Ready handles; false when there are none."""

    def push(self, handle: Any) -> None:
        """Add a ready handle."""
        ...

    def take(self) -> Any:
        """Remove and return the handle to run next; there must be one."""
        ...

    def __len__(self) -> int: ...


class Policy(Protocol):
    """A named order; makes a queue for each run from the run's own generator."""

    @property
    def name(self) -> str:
        """As written in a replay line: ``fifo``, ``random``, ``pct``."""
        ...

    def ready_queue(self, entropy: random.Random) -> ReadyQueue:
        """A fresh, empty queue that draws from ``entropy`` only."""
        ...


@dataclass(frozen=True, slots=True)
class Fifo:
    """asyncio's order: first ready, first run."""

    name: str = "fifo"

    def ready_queue(self, entropy: random.Random) -> ReadyQueue:
        """A plain deque; draws nothing."""
        return _FifoQueue()


@dataclass(frozen=True, slots=True)
class SeededRandom:
    """Each choice is uniform among ready tasks, timers, deliveries and the oldest callback."""

    name: str = "random"

    def ready_queue(self, entropy: random.Random) -> ReadyQueue:
        """A queue that draws one number per choice among two or more."""
        return _RandomQueue(entropy)


@dataclass(frozen=True, slots=True)
class Pct:
    """The ready entity of highest priority runs; ``depth - 1`` times its priority sinks.

    ``steps`` is the guess of how many choices a run makes; ``fairness_steps`` bounds how long a
    spinning task can starve the others before it sinks too.
    """

    name: str = "pct"
    depth: int = 3
    steps: int = 20_000
    fairness_steps: int = 1_000

    def ready_queue(self, entropy: random.Random) -> ReadyQueue:
        """A queue that draws a priority per entity and the change points at the start."""
        return _PctQueue(entropy, self)


POLICIES: dict[str, Policy] = {each.name: each for each in (Fifo(), SeededRandom(), Pct())}
"""The policies by name, with their default settings."""


class _FifoQueue(deque[Any]):
    """A deque whose C methods are the queue's methods."""

    push = deque.append
    take = deque.popleft


def _mover(handle: Any) -> Any:
    """The entity that a handle moves: a task, or itself; ``None`` for a plain callback."""
    if type(handle) is not SimHandle:
        return handle
    owner = getattr(handle._callback, "__self__", None)
    return owner if type(owner) is SimTask else None


_LANE: Any = object()
"""Stands in a queue for all ready plain callbacks, of which the oldest is next."""


class _RandomQueue(list[Any]):
    """The choices: handles that may run in any order, and the lane while it holds callbacks."""

    __slots__ = ("_draw", "_lane")

    def __init__(self, entropy: random.Random) -> None:
        self._draw = entropy.random
        self._lane: deque[Any] = deque()

    def push(self, handle: Any) -> None:
        # The same as asking _mover, without the call: this is the hottest path of random order.
        if type(handle) is not SimHandle or (
            type(getattr(handle._callback, "__self__", None)) is SimTask
        ):
            self.append(handle)
            return
        if not self._lane:
            self.append(_LANE)
        self._lane.append(handle)

    def take(self) -> Any:
        handle = self.pop()
        count = len(self)
        if count:
            chosen = int(self._draw() * (count + 1))
            if chosen != count:
                handle, self[chosen] = self[chosen], handle
        if handle is not _LANE:
            return handle
        handle = self._lane.popleft()
        if self._lane:
            self.append(_LANE)
        return handle


class _PctQueue(list[Any]):
    """A heap by priority; plain callbacks share one entity, so they stay in order."""

    __slots__ = (
        "_changes",
        "_draw",
        "_lane_priority",
        "_options",
        "_order",
        "_running",
        "_step",
        "_streak",
        "_sunk",
    )

    def __init__(self, entropy: random.Random, options: Pct) -> None:
        assert options.depth >= 1, f"PCT needs a depth of at least 1, not {options.depth}"
        self._draw = entropy.random
        self._options = options
        self._changes = sorted(
            (int(entropy.random() * options.steps) for _ in range(options.depth - 1)), reverse=True
        )
        self._lane_priority = entropy.random()
        self._order = 0
        self._step = 0
        self._sunk = 1.0
        self._streak = 0
        self._running: Any = None

    def push(self, handle: Any) -> None:
        self._order += 1
        heappush(self, (self._priority(_mover(handle)), self._order, handle))

    def _priority(self, mover: Any) -> float:
        """Smaller runs earlier; drawn from 0 … 1, sunk ones lie above 1."""
        if mover is None:
            return self._lane_priority
        if type(mover) is not SimTask:
            return self._draw()
        try:
            return mover.priority
        except AttributeError:
            mover.priority = self._draw()
            return mover.priority

    def take(self) -> Any:
        handle = heappop(self)[2]
        mover = _mover(handle)
        self._step += 1
        self._streak = self._streak + 1 if mover is self._running else 0
        self._running = mover
        if self._changes and self._step >= self._changes[-1]:
            self._changes.pop()
            self._sink(mover)
        elif self._streak >= self._options.fairness_steps:
            self._streak = 0
            self._sink(mover)
        return handle

    def _sink(self, mover: Any) -> None:
        """Let everybody else overtake; callbacks that wait in the lane keep their order."""
        self._sunk += 1.0
        if mover is None:
            self._lane_priority = self._sunk
            self[:] = [self._relaned(entry) for entry in self]
            heapify(self)
        elif type(mover) is SimTask:
            mover.priority = self._sunk

    def _relaned(self, entry: Any) -> Any:
        return (self._sunk, *entry[1:]) if _mover(entry[2]) is None else entry
