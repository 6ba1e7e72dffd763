"""Runtimes: where a node's services run, so that one that is stuck does not stall the others.

A real node has a thread with an event loop for each (``top -H`` shows their names); in sim they
label the tasks of the one loop. Node code is the same: what belongs to a runtime is touched
only there, and others ask through :meth:`Runtime.call` or :meth:`Runtime.post`.
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from enum import StrEnum
from typing import Any, Protocol, TypeVar

from storage.errors import SeawallError

T = TypeVar("T")

STOP_WITHIN_S = 15.0
"""How long a runtime may take to answer when its node ends, in seconds."""


class RuntimeName(StrEnum):
    """Every runtime there is. A world runs its client of the object store on ``BACKUP`` and the
    broker's on ``BROKER``, if the node has opened them, else where they are used."""

    MAIN = "main"
    WAL_SERVICE = "wal-service"
    HTTP = "http"
    BROKER = "broker"
    BACKUP = "backup"
    METRICS = "metrics"


class RuntimeEnded(SeawallError):
    """A runtime is gone although the node still runs, or does not answer while it stops."""


class Runtime(Protocol):
    """One place to run. Everything of asyncio that is made here is used only here."""

    @property
    def name(self) -> str:
        """What ``top -H`` and ``GET /v1/tasks`` show."""
        ...

    async def call(self, work: Callable[[], Coroutine[Any, Any, T]]) -> T:
        """Run ``work()`` there and return its result or raise its error.

        Cancelling the caller cancels the work, without waiting for its end. ``RuntimeEnded``.
        """
        ...

    def post(self, callback: Callable[[], object]) -> None:
        """Have ``callback`` called there soon; does nothing when the runtime has ended."""
        ...


class Runtimes(Protocol):
    """The runtimes of one incarnation of a node; the world that made them closes them."""

    def open(self, name: RuntimeName) -> Runtime:
        """The runtime of this name, started at the first call."""
        ...


class LabelledRuntime:
    """A runtime that is a label: its work runs in the task that asks for it."""

    def __init__(self, name: RuntimeName) -> None:
        self.name = str(name)

    async def call(self, work: Callable[[], Coroutine[Any, Any, T]]) -> T:
        """Run ``work()`` now."""
        return await work()

    def post(self, callback: Callable[[], object]) -> None:
        """Call ``callback`` now."""
        callback()


class LabelledRuntimes:
    """The runtimes of a world with one thread, such as the simulation."""

    def __init__(self) -> None:
        self._opened: dict[RuntimeName, LabelledRuntime] = {}

    def open(self, name: RuntimeName) -> Runtime:
        """The label of this name."""
        assert name is not RuntimeName.MAIN, "the main runtime is where the node's main runs"
        return self._opened.setdefault(name, LabelledRuntime(name))
