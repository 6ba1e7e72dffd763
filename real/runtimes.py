"""Runtimes as threads, each with an event loop that is one more of its host in the cluster.

Implements ``storage.runtimes``. A thread that ends before its node does fails every call that waits
for it, so that nobody waits for ever.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import logging
import threading
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

from harness.leftovers import report_leftovers
from real import process
from storage.runtimes import STOP_WITHIN_S, Runtime, RuntimeEnded, RuntimeName

T = TypeVar("T")
LoopFactory = Callable[[], asyncio.AbstractEventLoop]

logger = logging.getLogger(__name__)


class ThreadRuntime:
    """One thread and its loop, running from the first moment on."""

    def __init__(self, name: RuntimeName, loop_factory: LoopFactory) -> None:
        self.name = str(name)
        self._loop = loop_factory()
        self._lock = threading.Lock()
        self._waiting: dict[int, concurrent.futures.Future[Any]] = {}
        self._ended = False
        self._thread = threading.Thread(target=self._run, name=self.name, daemon=True)
        self._thread.start()

    def _run(self) -> None:
        process.name_thread(self.name)
        asyncio.set_event_loop(self._loop)
        try:
            self._loop.run_forever()
        except BaseException:
            logger.exception("runtime %s ended", self.name)
        finally:
            with self._lock:
                self._ended = True
                waiting, self._waiting = self._waiting, {}
            for future in waiting.values():
                if not future.done():
                    future.set_exception(RuntimeEnded(f"runtime {self.name} ended"))

    @property
    def is_current(self) -> bool:
        """Whether the caller runs here."""
        return asyncio.get_running_loop() is self._loop

    async def call(self, work: Callable[[], Coroutine[Any, Any, T]]) -> T:
        """Run ``work()`` here; at once if the caller does already."""
        if self.is_current:
            return await work()
        with self._lock:
            if self._ended:
                raise RuntimeEnded(f"runtime {self.name} ended")
            future = asyncio.run_coroutine_threadsafe(work(), self._loop)
            self._waiting[id(future)] = future
        try:
            return await asyncio.wrap_future(future)
        finally:
            self._waiting.pop(id(future), None)

    def post(self, callback: Callable[[], object]) -> None:
        """Have ``callback`` called here soon."""
        with self._lock:
            if not self._ended:
                self._loop.call_soon_threadsafe(callback)

    async def close(self) -> None:
        """End the thread; each task that still runs here is reported as a leftover."""
        try:
            async with asyncio.timeout(STOP_WITHIN_S):
                await self.call(self._report_leftovers)
        except RuntimeEnded:
            self._thread.join(STOP_WITHIN_S)
            self._loop.close()
            return
        except TimeoutError:
            logger.error("runtime %s is stuck; its thread ends with the process", self.name)
            return
        self.post(self._loop.stop)
        self._thread.join(STOP_WITHIN_S)
        assert not self._thread.is_alive(), f"runtime {self.name} runs on after its loop stopped"
        self._loop.close()

    async def _report_leftovers(self) -> None:
        await report_leftovers(asyncio.all_tasks())
        await self._loop.shutdown_asyncgens()


class ThreadRuntimes:
    """The runtimes of a node process; ``loop_factory`` makes a loop that is the node's host."""

    def __init__(self, loop_factory: LoopFactory) -> None:
        self._loop_factory = loop_factory
        self._opened: dict[RuntimeName, ThreadRuntime] = {}

    def open(self, name: RuntimeName) -> Runtime:
        """The thread of this name, started at the first call."""
        assert name is not RuntimeName.MAIN, "the main runtime is the process's first thread"
        if name not in self._opened:
            self._opened[name] = ThreadRuntime(name, self._loop_factory)
        return self._opened[name]

    def opened(self, name: RuntimeName) -> ThreadRuntime | None:
        """The thread of this name, if the node has one."""
        return self._opened.get(name)

    async def close(self) -> None:
        """End every thread."""
        for runtime in self._opened.values():
            await runtime.close()
