"""Services on real threads: work is registered where it runs, and stops when its caller must."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Awaitable, Callable

import pytest

from real.runtimes import ThreadRuntimes
from storage.errors import NotFound
from storage.registration import current_registration
from storage.runtimes import RuntimeName
from storage.services import Service, Services
from storage.tasks import ShutdownRequested, TaskKind, TaskRegistry, interruptible

Story = Callable[[TaskRegistry, Service, Service], Awaitable[None]]


def play(story: Story) -> None:
    async def whole() -> None:
        runtimes = ThreadRuntimes(asyncio.new_event_loop)
        registry = TaskRegistry("n")
        services = Services(runtimes, registry)
        http, wal = services.open(RuntimeName.HTTP), services.open(RuntimeName.WAL_SERVICE)
        try:
            async with asyncio.timeout(20):
                await story(registry, http, wal)
        finally:
            await services.close()
            await runtimes.close()

    asyncio.run(whole())


def test_results_errors_and_registrations_cross_over():
    async def story(registry: TaskRegistry, http: Service, wal: Service) -> None:
        seen: list[tuple[str, str, str]] = []

        async def work() -> int:
            entry = current_registration()
            assert entry is not None
            seen.append((threading.current_thread().name, entry.info.runtime, entry.info.name))
            return 7

        async def refuse() -> None:
            raise NotFound("nothing of that name")

        async def request() -> None:
            assert await wal.call(work) == 7
            with pytest.raises(NotFound, match="nothing of that name"):
                await wal.call(refuse)
            seen.append((threading.current_thread().name, "", ""))

        await http.spawn(TaskKind.HTTP_REQUEST, "GET /", request)
        while len(seen) < 2:  # noqa: ASYNC110 - what it polls is another thread
            await asyncio.sleep(0.005)
        assert seen == [("wal-service", "wal-service", "GET /"), ("http", "", "")]
        assert wal.registry.snapshot() == []

    play(story)


def test_a_shutdown_of_the_caller_reaches_what_runs_for_it():
    async def story(registry: TaskRegistry, http: Service, wal: Service) -> None:
        began, ended = threading.Event(), threading.Event()

        async def wait() -> None:
            try:
                async with interruptible():
                    began.set()
                    await asyncio.sleep(60)
            except ShutdownRequested:
                ended.set()
                raise

        async def request() -> None:
            await wal.call(wait)

        await http.spawn(TaskKind.HTTP_REQUEST, "GET /", request)
        assert await asyncio.to_thread(began.wait, 10)
        assert [info.name for info in wal.registry.snapshot()] == ["GET /"]
        await http.call(http.registry.shutdown)
        assert await asyncio.to_thread(ended.wait, 10)
        assert http.registry.snapshot() == []

    play(story)


def test_tasks_can_be_listed_while_their_runtime_is_stuck():
    async def story(registry: TaskRegistry, http: Service, wal: Service) -> None:
        release = threading.Event()
        await wal.spawn(TaskKind.DISK, "flusher", lambda: asyncio.sleep(60))
        wal.runtime.post(lambda: release.wait(10))
        try:
            shown = await http.runtime.call(lambda: listed(http.registry))
            assert shown == [("wal-service", "flusher")]
        finally:
            release.set()

    async def listed(registry: TaskRegistry) -> list[tuple[str, str]]:
        return [(info.runtime, info.name) for info in registry.snapshot_of_node()]

    play(story)
