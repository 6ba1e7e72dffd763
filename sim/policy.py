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
from heapq import heappop, heappush
from typing import Any, Protocol

from sim.handles import SimHandle
from sim.tasks import SimTask


class ReadyQueue(Protocol):
    """Ready handles. ``pop`` raises ``IndexError`` when there are none."""

    def push(self, handle: Any) -> None:
        """Add a ready handle."""
        ...

    def pop(self) -> Any:
        """Remove and return the handle to run next."""
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
    pop = deque.popleft


def _mover(handle: Any) -> Any:
    """The entity that a handle moves: a task, or itself; ``None`` for a plain callback."""
    if type(handle) is not SimHandle:
        return handle
    owner = getattr(handle._callback, "__self__", None)
    return owner if type(owner) is SimTask else None


class _RandomQueue:
    __slots__ = ("_draw", "_free", "_lane")

    def __init__(self, entropy: random.Random) -> None:
        self._draw = entropy.random
        self._free: list[Any] = []
        self._lane: deque[Any] = deque()

    def push(self, handle: Any) -> None:
        if _mover(handle) is None:
            self._lane.append(handle)
        else:
            self._free.append(handle)

    def pop(self) -> Any:
        free = self._free
        count = len(free)
        choices = count + 1 if self._lane else count
        chosen = int(self._draw() * choices) if choices > 1 else 0
        if chosen == count:
            return self._lane.popleft()
        last = free.pop()
        if chosen == count - 1:
            return last
        handle = free[chosen]
        free[chosen] = last
        return handle

    def __len__(self) -> int:
        return len(self._free) + len(self._lane)


class _PctQueue:
    """A heap by priority; plain callbacks share one entity, so they stay in order."""

    __slots__ = (
        "_changes",
        "_draw",
        "_heap",
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
        self._heap: list[tuple[float, int, Any]] = []
        self._lane_priority = entropy.random()
        self._order = 0
        self._step = 0
        self._sunk = 1.0
        self._streak = 0
        self._running: Any = None

    def push(self, handle: Any) -> None:
        mover = _mover(handle)
        self._order += 1
        heappush(self._heap, (self._priority(mover), self._order, handle))

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

    def pop(self) -> Any:
        handle = heappop(self._heap)[2]
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
        self._sunk += 1.0
        if mover is None:
            self._lane_priority = self._sunk
        elif type(mover) is SimTask:
            mover.priority = self._sunk

    def __len__(self) -> int:
        return len(self._heap)
