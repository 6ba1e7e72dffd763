"""Tasks and futures of the simulation: asyncio's own, except for how they hash.

``asyncio.wait``, ``TaskGroup`` and ``as_completed`` iterate sets of tasks, and asyncio's tasks
hash by address, so the order differs from run to run. These hash by a number of their loop.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from sim.node import Incarnation


class SimFuture(asyncio.Future[Any]):
    """A future that hashes by a number drawn from its loop when it is first hashed."""

    __slots__ = ("_sequence",)

    _sequence: int

    def __hash__(self) -> int:
        try:
            return self._sequence
        except AttributeError:
            self._sequence = self._loop.next_sequence()  # type: ignore[attr-defined]
            return self._sequence


class SimTask(asyncio.Task[Any]):
    """A task that hashes by a number drawn from its loop when it is first hashed.

    asyncio hashes every task at its creation, so the numbers follow the order of creation.
    """

    __slots__ = ("_sequence", "owner", "priority")

    owner: Incarnation
    """Whose task it is."""

    priority: float
    """Drawn by the PCT policy when it first sees the task."""

    _sequence: int

    def __hash__(self) -> int:
        try:
            return self._sequence
        except AttributeError:
            self._sequence = self._loop.next_sequence()  # type: ignore[attr-defined]
            return self._sequence


_AWAITS_SHOWN = 4


def describe_await(task: asyncio.Task[Any]) -> str:
    """What a suspended task waits for: the innermost places in its chain of awaits."""
    places = []
    position: Any = task.get_coro()
    while position is not None:
        frame = getattr(position, "cr_frame", None) or getattr(position, "gi_frame", None)
        if frame is None:
            break
        code = frame.f_code
        filename = code.co_filename.rpartition("/")[2]
        places.append(f"{code.co_qualname} ({filename}:{frame.f_lineno})")
        position = getattr(position, "cr_await", None) or getattr(position, "gi_yieldfrom", None)
    return f"{task.get_name()}: {' > '.join(places[-_AWAITS_SHOWN:])}"
