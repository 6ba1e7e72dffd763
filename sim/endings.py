"""How callbacks, tasks and whole worlds end: failure reports, sweeps, closing."""

from __future__ import annotations

import asyncio
import gc
import logging
import sys
from collections.abc import AsyncGenerator, Callable
from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary

from sim import guard
from sim.errors import WorldOver
from sim.graveyard import Graveyard
from sim.node import Incarnation
from sim.tasks import SimTask
from sim.unsupported import UnsupportedApis

if TYPE_CHECKING:
    from sim.environment import SimEnvironment
    from sim.node import Nodes
    from sim.seeds import Seeds
    from sim.trace import Trace

_log = logging.getLogger("sim")
_HOUSEKEEPING_EVERY = 4_000
_COLLECT_YOUNG_EVERY = 12
_COLLECT_ALL_EVERY = 300


class Endings(UnsupportedApis):
    """The part of the loop that deals with ends."""

    nodes: Nodes
    environment: SimEnvironment
    seeds: Seeds
    trace: Trace
    push: Callable[[Any], None]
    _exception_handler: Any
    _running: bool

    def _start_endings(self) -> None:
        self.graveyard = Graveyard()
        self._closed = False
        self._houses_kept = 0
        self._callbacks_until_housekeeping = _HOUSEKEEPING_EVERY
        self._source = guard.Source(self.time, lambda: self.seeds.child("libraries"))
        self._async_generators: WeakKeyDictionary[Any, Incarnation] = WeakKeyDictionary()
        self.failures: list[dict[str, Any]] = []
        """Unhandled errors of the scenario itself; any of them fails the run."""

    # Garbage is collected, and finalisers run, at moments that depend on the run alone.

    def _enter_run(self) -> Any:
        sites = guard.enter(self._source)
        hooks = sys.get_asyncgen_hooks()
        sys.set_asyncgen_hooks(self._generator_started, self._generator_finalised)
        collecting = gc.isenabled()
        gc.disable()
        return hooks, collecting, sites

    def _leave_run(self, entered: Any) -> None:
        hooks, collecting, sites = entered
        guard.leave(sites)
        sys.set_asyncgen_hooks(*hooks)
        if collecting:
            gc.enable()

    def _keep_house(self) -> None:
        """From time to time, counted in callbacks: hash, drop ended tasks, collect garbage."""
        self._callbacks_until_housekeeping = _HOUSEKEEPING_EVERY
        self._houses_kept += 1
        self.trace.fold()
        for incarnation in self.nodes.everyone():
            if incarnation.alive:
                incarnation.prune()
        if self._houses_kept % _COLLECT_ALL_EVERY == 0:
            gc.collect()
        elif self._houses_kept % _COLLECT_YOUNG_EVERY == 0:
            gc.collect(1)

    def report_failures(self) -> None:
        """Report failed tasks that nobody awaited, although they are referenced; at the end."""
        for incarnation in self.nodes.everyone():
            for task in incarnation.unretrieved() if incarnation.alive else ():
                self.call_exception_handler(
                    {
                        "message": "Task exception was never retrieved",
                        "exception": task.exception(),
                        "future": task,
                    }
                )
        for message in self._source.refusals:
            self.failures.append({"message": message})
        self._source.refusals.clear()

    def _generator_started(self, generator: AsyncGenerator[Any, Any]) -> None:
        self._async_generators[generator] = self.nodes.owner()

    def _generator_finalised(self, generator: AsyncGenerator[Any, Any]) -> None:
        owner = self._async_generators.get(generator)
        if owner is None or self._closed:
            return
        if not owner.alive:
            self.graveyard.bury(generator)
        else:
            self.create_task(generator.aclose(), context=owner.context.copy())

    # Failures.

    def _callback_failed(self, handle: asyncio.Handle, error: BaseException) -> None:
        if isinstance(error, asyncio.CancelledError):
            # Not a failure: before Python 3.12 asyncio.streams asks a cancelled connection
            # handler for its exception in a done callback, which raises.
            return
        context = {"message": f"Exception in callback {handle!r}", "exception": error}
        handle._context.run(self.call_exception_handler, context)  # type: ignore[attr-defined]

    def set_exception_handler(self, handler: Any) -> None:
        """Call ``handler(loop, context)`` for unhandled errors; ``None`` restores the default."""
        self._exception_handler = handler

    def get_exception_handler(self) -> Any:
        """The handler that was set, or ``None``."""
        return self._exception_handler

    def call_exception_handler(self, context: dict[str, Any]) -> None:
        """An error that nobody handles; see :meth:`default_exception_handler`."""
        if self._closed:
            return
        if self._exception_handler is None:
            self.default_exception_handler(context)
            return
        try:
            self._exception_handler(self, context)
        except Exception as error:
            self.default_exception_handler(
                {"message": "Unhandled error in exception handler", "exception": error}
            )

    def default_exception_handler(self, context: dict[str, Any]) -> None:
        """Log at ERROR as the node that failed; a failure of the scenario also fails the run."""
        owner = self._owner_of_failure(context)
        if not owner.alive:
            return
        error = context.get("exception")
        details = [
            f"{name}: {value!r}"
            for name, value in context.items()
            if name not in ("message", "exception")
        ]
        message = context.get("message") or "Unhandled error in the event loop"
        text = "; ".join([str(message), *details])
        owner.context.copy().run(_log.error, "%s", text, exc_info=error)
        if owner is self.nodes.home:
            self.failures.append(context)

    def _owner_of_failure(self, context: dict[str, Any]) -> Incarnation:
        failed = context.get("task") or context.get("future")
        return failed.owner if isinstance(failed, SimTask) else self.nodes.owner()

    # Closing.

    def _check_open(self, coroutine: Any) -> None:
        if self._closed and not self.graveyard.disposing:
            close = getattr(coroutine, "close", None)
            if close is not None:
                close()
            raise WorldOver("the loop is closed: no task can start")

    def is_closed(self) -> bool:
        """Whether :meth:`close` was called."""
        return self._closed

    def close(self) -> None:
        """End the world: what is left of its nodes is disposed of without running its code."""
        if self._running:
            raise RuntimeError("cannot close a running loop")
        if not self._closed:
            self._closed = True
            self.push = _drop
            self.trace.fold()
            self.graveyard.dispose(self, [*self.nodes.dead, *self.nodes.everyone()])

    def has_asyncgens(self) -> bool:
        """Whether any asynchronous generator is unfinished."""
        return bool(self._async_generators)

    async def shutdown_asyncgens(self) -> None:
        """Close the scenario's own asynchronous generators, oldest first."""
        for generator, owner in list(self._async_generators.items()):
            if owner is self.nodes.home:
                await generator.aclose()

    async def shutdown_default_executor(self, timeout: float | None = None) -> None:
        """There is no executor."""

    # asyncio asks at the creation of every future; bool() answers False without a Python frame.
    # The answer is always False because asyncio's debug mode measures wall time.
    get_debug = staticmethod(bool)

    def set_debug(self, enabled: bool) -> None:
        """Accepted and ignored, so that ``asyncio.Runner`` works."""


def _drop(handle: Any) -> None:
    """The world is over: nothing becomes ready any more."""
