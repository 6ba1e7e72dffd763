"""The task registry: entries leave, shutdowns stop what they name, failures surface."""

from __future__ import annotations

import asyncio
import logging
from typing import Any

import pytest

from storage.ids import TenantId
from storage.tasks import (
    TaskFailed,
    TaskKind,
    TaskRegistry,
    interruptible,
    shutdown_requested,
    wait_shutdown,
)
from storage.tests.registry_story import GC, OTHER_TENANT, OTHER_TIMELINE, TENANT, TIMELINE, run


def test_an_ended_task_leaves_the_registry() -> None:
    async def main(registry: TaskRegistry) -> None:
        task = registry.spawn(GC, "one", wait_shutdown(), tenant_id=TENANT, timeline_id=TIMELINE)
        (info,) = registry.snapshot()
        assert (info.kind, info.name) == (GC, "one")
        assert (info.tenant_id, info.timeline_id) == (TENANT, TIMELINE)
        assert not info.stopping
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        await asyncio.sleep(0)
        assert registry.snapshot() == []

    run(main)


def test_a_task_cancelled_before_its_first_step_leaves_too() -> None:
    async def main(registry: TaskRegistry) -> None:
        registry.spawn(GC, "never runs", wait_shutdown()).cancel()
        assert len(registry.snapshot()) == 1
        await asyncio.sleep(0.001)
        assert registry.snapshot() == []

    run(main)


def test_ten_thousand_tasks_leave_no_entry() -> None:
    async def nothing() -> None:
        await asyncio.sleep(0)

    async def main(registry: TaskRegistry) -> None:
        for number in range(10_000):
            registry.spawn(TaskKind.WIRE_CONNECTION, str(number), nothing())
        assert len(registry.snapshot()) == 10_000
        await registry.shutdown()
        assert registry.snapshot() == []

    run(main)


@pytest.mark.row("B1.shutdown", worlds=("sim",))
@pytest.mark.parametrize(
    ("filters", "left"),
    [
        ({}, []),
        ({"kind": GC}, ["upload"]),
        ({"tenant_id": TENANT}, ["other tenant", "upload"]),
        (
            {"tenant_id": TENANT, "timeline_id": TIMELINE},
            ["other timeline", "other tenant", "upload"],
        ),
        (
            {"kind": TaskKind.UPLOAD, "tenant_id": TENANT},
            ["both", "other timeline", "other tenant", "upload"],
        ),
    ],
)
def test_shutdown_stops_exactly_what_it_names(filters: dict[str, Any], left: list[str]) -> None:
    async def main(registry: TaskRegistry) -> None:
        for name, kind, tenant, timeline in (
            ("both", GC, TENANT, TIMELINE),
            ("other timeline", GC, TENANT, OTHER_TIMELINE),
            ("other tenant", GC, OTHER_TENANT, TIMELINE),
            ("upload", TaskKind.UPLOAD, None, None),
        ):
            registry.spawn(kind, name, wait_shutdown(), tenant_id=tenant, timeline_id=timeline)
        await registry.shutdown(**filters)
        assert [info.name for info in registry.snapshot()] == left
        await registry.shutdown()

    run(main)


@pytest.mark.row("B1.shutdown", worlds=("sim",))
def test_a_deaf_task_is_cancelled_after_its_time_and_not_before() -> None:
    ends: list[float] = []

    async def deaf() -> None:
        try:
            await asyncio.sleep(1000)
        finally:
            ends.append(asyncio.get_running_loop().time())

    async def main(registry: TaskRegistry) -> None:
        start = asyncio.get_running_loop().time()
        registry.spawn(GC, "deaf", deaf())
        await registry.shutdown(within_s=3.0)
        assert ends == [pytest.approx(start + 3.0)]
        assert registry.snapshot() == []

    run(main)


def test_a_task_that_swallows_its_cancellation_does_not_hold_the_shutdown(
    caplog: pytest.LogCaptureFixture,
) -> None:
    release = False

    async def stubborn() -> None:
        while not release:
            try:
                await asyncio.sleep(1)
            except asyncio.CancelledError:
                continue

    async def main(registry: TaskRegistry) -> None:
        nonlocal release
        registry.spawn(GC, "stubborn", stubborn())
        async with asyncio.timeout(30):
            await registry.shutdown(within_s=1.0)
        assert [info.name for info in registry.snapshot()] == ["stubborn"]
        release = True
        await asyncio.sleep(2)

    run(main)
    assert "gc stubborn ignores its cancellation" in caplog.text


def test_the_second_caller_waits_for_the_tasks_of_the_first() -> None:
    """shutdown-does-not-join-detach: a late caller must not return while work still runs."""
    ends: list[str] = []

    async def slow() -> None:
        await wait_shutdown()
        await asyncio.sleep(2)
        ends.append("task")

    async def stop(registry: TaskRegistry, name: str, tenant_id: TenantId | None) -> None:
        await registry.shutdown(tenant_id=tenant_id)
        ends.append(name)

    async def main(registry: TaskRegistry) -> None:
        registry.spawn(GC, "slow", slow(), tenant_id=TENANT)
        detach = asyncio.ensure_future(stop(registry, "detach", TENANT))
        await asyncio.sleep(1)
        await stop(registry, "process", None)
        await detach
        assert ends[0] == "task"
        assert sorted(ends[1:]) == ["detach", "process"]

    run(main)


def test_tasks_that_appear_during_a_shutdown_are_included() -> None:
    async def main(registry: TaskRegistry) -> None:
        async def spawns_another() -> None:
            await wait_shutdown()
            registry.spawn(GC, "late", wait_shutdown(), tenant_id=TENANT)

        registry.spawn(GC, "first", spawns_another(), tenant_id=TENANT)
        await asyncio.sleep(0)
        await registry.shutdown(tenant_id=TENANT)
        assert registry.snapshot() == []

    run(main)


def test_a_task_may_shut_its_own_group_down() -> None:
    order: list[str] = []

    async def main(registry: TaskRegistry) -> None:
        async def detach() -> None:
            await registry.shutdown(tenant_id=TENANT)
            order.append("detached")

        async def worker() -> None:
            await wait_shutdown()
            order.append("worker")

        registry.spawn(GC, "worker", worker(), tenant_id=TENANT)
        await registry.spawn(TaskKind.ATTACH, "detach", detach(), tenant_id=TENANT)
        assert order == ["worker", "detached"]

    run(main)


def test_failure_is_logged_with_its_whole_cause_chain(caplog: pytest.LogCaptureFixture) -> None:
    async def fails() -> None:
        try:
            raise KeyError("inner")
        except KeyError as error:
            raise ValueError("outer") from error

    async def main(registry: TaskRegistry) -> None:
        registry.spawn(GC, "collector", fails())
        await asyncio.sleep(0.001)
        assert registry.snapshot() == []

    run(main)
    (record,) = [each for each in caplog.records if each.levelno == logging.ERROR]
    assert record.getMessage() == (
        "task gc collector failed: ValueError: outer: caused by: KeyError: 'inner'"
    )
    assert "in fails" in caplog.text
    assert caplog.text.count("Traceback (most recent call last)") == 2


def test_shutdown_request_that_ends_a_task_is_no_failure(caplog: pytest.LogCaptureFixture) -> None:
    async def works() -> None:
        async with interruptible():
            await asyncio.sleep(1000)

    async def main(registry: TaskRegistry) -> None:
        registry.spawn(GC, "works", works(), critical=True)
        await asyncio.sleep(0)
        await registry.shutdown()

    run(main)
    assert [record for record in caplog.records if record.levelno >= logging.WARNING] == []


@pytest.mark.parametrize("fails", [True, False])
def test_watch_names_the_critical_task_that_ended(fails: bool) -> None:
    async def work() -> None:
        await asyncio.sleep(1)
        if fails:
            raise ValueError("disk on fire")

    async def main(registry: TaskRegistry) -> None:
        registry.spawn(GC, "collector", work(), critical=True)
        with pytest.raises(TaskFailed) as caught:
            await registry.watch()
        expected = "failed: ValueError: disk on fire" if fails else "ended unexpectedly"
        assert str(caught.value) == f"critical task gc collector {expected}"
        assert isinstance(caught.value.__cause__, ValueError) is fails

    run(main)


def test_watch_goes_on_while_critical_tasks_run_or_are_shut_down() -> None:
    async def ends() -> None:
        await asyncio.sleep(1)

    async def main(registry: TaskRegistry) -> None:
        stopping = asyncio.Event()
        registry.spawn(GC, "passing", ends())
        registry.spawn(GC, "critical", wait_shutdown(), critical=True)
        asyncio.get_running_loop().call_later(5, stopping.set)
        watching = asyncio.ensure_future(registry.watch())
        await stopping.wait()
        await registry.shutdown()
        assert not watching.done()
        watching.cancel()

    run(main)


def test_adopted_task_is_registered_while_the_block_runs() -> None:
    async def main(registry: TaskRegistry) -> None:
        with registry.adopt(TaskKind.HTTP_REQUEST, "GET /v1/status") as entry:
            assert [info.name for info in registry.snapshot()] == ["GET /v1/status"]
            entry.request_shutdown()
            assert shutdown_requested()
        assert registry.snapshot() == []
        assert not shutdown_requested()

    run(main)


def test_stop_order_is_the_order_of_starting_in_every_run() -> None:
    def once() -> list[str]:
        order: list[str] = []

        async def listens(name: str) -> None:
            await wait_shutdown()
            order.append(name)

        async def main(registry: TaskRegistry) -> None:
            for number in range(50):
                registry.spawn(GC, str(number), listens(str(number)))
            await asyncio.sleep(0)
            await registry.shutdown()

        run(main)
        return order

    assert once() == [str(number) for number in range(50)]


def test_a_timeline_needs_its_tenant() -> None:
    async def main(registry: TaskRegistry) -> None:
        work = wait_shutdown()
        with pytest.raises(AssertionError, match="belongs to a tenant"):
            registry.spawn(GC, "odd", work, timeline_id=TIMELINE)
        work.close()

    run(main)
