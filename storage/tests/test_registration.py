"""What a task knows of itself: the flag, waits that heed it, the tenant it serves."""

from __future__ import annotations

import asyncio

import pytest

from storage.tasks import (
    ShutdownRequested,
    TaskKind,
    TaskRegistry,
    interruptible,
    serving,
    shutdown_requested,
    sleep_unless_shutdown,
    wait_shutdown,
)
from storage.tests.registry_story import GC, OTHER_TENANT, TENANT, TIMELINE, run


def test_flag_and_sleep_hear_the_request() -> None:
    seen: list[object] = []

    async def main(registry: TaskRegistry) -> None:
        async def sleeper() -> None:
            seen.append(shutdown_requested())
            seen.append(await sleep_unless_shutdown(1.0))
            seen.append(await sleep_unless_shutdown(1000.0))
            seen.append(shutdown_requested())
            seen.append(await sleep_unless_shutdown(1000.0))

        registry.spawn(GC, "sleeper", sleeper())
        await asyncio.sleep(2)
        await registry.shutdown()
        assert seen == [False, False, True, True, True]
        assert not shutdown_requested()

    run(main)


def test_interruptible_wait_ends_at_the_request() -> None:
    ends: list[str] = []

    async def main(registry: TaskRegistry) -> None:
        async def reader() -> None:
            try:
                async with interruptible():
                    await asyncio.get_running_loop().create_future()
            except ShutdownRequested:
                ends.append("interrupted")
            task = asyncio.current_task()
            assert task is not None
            assert task.cancelling() == 0
            with pytest.raises(ShutdownRequested):
                async with interruptible():
                    ends.append("entered although stopping")

        registry.spawn(GC, "reader", reader())
        await asyncio.sleep(0)
        await registry.shutdown(within_s=1.0)
        assert ends == ["interrupted"]

    run(main)


def test_interruptible_lets_a_real_cancellation_and_a_timeout_through() -> None:
    ends: list[str] = []

    async def main(registry: TaskRegistry) -> None:
        async def waiter() -> None:
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(1), interruptible():
                    await asyncio.sleep(1000)
            try:
                async with interruptible():
                    await asyncio.sleep(1000)
            except asyncio.CancelledError:
                ends.append("cancelled")
                raise

        task = registry.spawn(GC, "waiter", waiter())
        await asyncio.sleep(2)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        assert task.cancelled()
        assert ends == ["cancelled"]

    run(main)


def test_a_task_that_learns_its_tenant_late_is_stopped_with_it_and_only_meanwhile() -> None:
    served = asyncio.Event()
    again = asyncio.Event()

    async def connection() -> None:
        with serving(TENANT, TIMELINE):
            await served.wait()
        with serving(TENANT):
            again.set()
            await wait_shutdown()

    async def main(registry: TaskRegistry) -> None:
        task = registry.spawn(TaskKind.WIRE_CONNECTION, "peer", connection())
        await registry.shutdown(tenant_id=OTHER_TENANT)
        await asyncio.sleep(0)
        (info,) = registry.snapshot()
        assert (info.tenant_id, info.timeline_id) == (TENANT, TIMELINE)
        served.set()
        await again.wait()
        await registry.shutdown(tenant_id=TENANT, timeline_id=TIMELINE)
        assert not task.done()
        await registry.shutdown(tenant_id=TENANT)
        assert task.done()

    run(main)
