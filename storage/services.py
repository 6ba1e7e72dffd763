"""The services of a node, each with a runtime and a registry of its tasks; the main watches all.

SYSTEM.md E1 and E4: when a task that a service cannot do without ends, or its runtime does, the
main learns which one, stops the others in order and fails.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Coroutine, Sequence
from typing import Any, TypeVar

from storage.life import run_until_stopped
from storage.log import one_line
from storage.node import NodeContext
from storage.registration import TaskKind, current_registration
from storage.runtimes import STOP_WITHIN_S, Runtime, RuntimeEnded, RuntimeName, Runtimes
from storage.tasks import TaskRegistry

T = TypeVar("T")
Work = Callable[[], Coroutine[Any, Any, T]]

logger = logging.getLogger(__name__)


class Service:
    """A runtime and the tasks that run there."""

    def __init__(self, runtime: Runtime, registry: TaskRegistry) -> None:
        self.runtime = runtime
        self.registry = registry

    @property
    def name(self) -> str:
        """The runtime's name."""
        return self.runtime.name

    async def call(self, work: Work[T]) -> T:
        """Run ``work()`` on this service for the current task; it stops when that task is asked to.

        Raises what the work raises, or ``RuntimeEnded``.
        """
        return await self.runtime.call(lambda: self._adopted(work))

    async def _adopted(self, work: Work[T]) -> T:
        """Register the task that does it here, as what its caller is registered elsewhere."""
        caller = current_registration()
        if caller is None or caller.task is asyncio.current_task():
            # One thread: the task is registered already, and one entry can hear of its shutdown.
            return await work()
        info = caller.info
        with self.registry.adopt(info.kind, info.name) as entry:
            forget = caller.on_shutdown(lambda: self.runtime.post(entry.request_shutdown))
            try:
                return await work()
            finally:
                forget()

    async def finish(self, work: Work[None]) -> None:
        """Run ``work()`` here while the node stops; what cannot be reached is logged and left."""
        try:
            async with asyncio.timeout(STOP_WITHIN_S):
                await self.runtime.call(work)
        except (RuntimeEnded, TimeoutError) as error:
            logger.error("runtime %s does not stop: %s", self.name, one_line(error))

    async def spawn(self, kind: TaskKind, name: str, work: Work[None]) -> None:
        """Run a task here that the node cannot do without."""

        async def start() -> None:
            self.registry.spawn(kind, name, work(), critical=True)

        await self.runtime.call(start)


class Services:
    """Every service of one incarnation of a node, in the order in which they were opened."""

    def __init__(self, runtimes: Runtimes, registry: TaskRegistry) -> None:
        self._runtimes = runtimes
        self._registry = registry
        self._opened: list[Service] = []

    @property
    def opened(self) -> Sequence[Service]:
        """Those opened so far, in their order."""
        return tuple(self._opened)

    def open(self, name: RuntimeName) -> Service:
        """A service on the runtime of this name."""
        assert all(service.name != name for service in self._opened), f"{name} is open already"
        service = Service(self._runtimes.open(name), self._registry.sibling(name))
        self._opened.append(service)
        return service

    async def run_until_stopped(self, context: NodeContext, *works: Work[None]) -> None:
        """Until ``context.stopping`` is set, a service fails, or one of ``works`` ends.

        Raises ``TaskFailed`` or ``RuntimeEnded``, which say what ended, or what a work raised.
        """
        watches = [service.runtime.call(service.registry.watch) for service in self._opened]
        await run_until_stopped(context, self._registry, *watches, *(work() for work in works))

    async def close(self) -> None:
        """Stop every task of every service, the service opened last first.

        A runtime that does not answer in time is given up: its thread ends with the process.
        """
        for service in reversed(self._opened):
            await service.finish(service.registry.shutdown)
        await self._registry.shutdown()
