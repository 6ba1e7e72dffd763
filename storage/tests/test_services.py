"""Services: registries of one family, a main that watches them, an end that nothing can hold up."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar, cast

import pytest

from sim.run import run
from storage import services as services_module
from storage.node import NodeContext
from storage.ports import Ports
from storage.runtimes import LabelledRuntimes, Runtime, RuntimeEnded, RuntimeName
from storage.services import Services
from storage.tasks import TaskFailed, TaskKind, TaskRegistry, wait_shutdown
from storage.tests.safekeeper_cluster import Cluster, run_cluster

T = TypeVar("T")


class Stuck:
    """A runtime that never answers."""

    name = "stuck"

    async def call(self, work: Callable[[], Coroutine[Any, Any, T]]) -> T:
        await asyncio.get_running_loop().create_future()
        return await work()

    def post(self, callback: Callable[[], object]) -> None:
        del callback


class Gone(Stuck):
    """A runtime whose thread has ended."""

    name = "gone"

    async def call(self, work: Callable[[], Coroutine[Any, Any, T]]) -> T:
        raise RuntimeEnded("runtime gone ended")


class Chosen:
    """Runtimes of a test's own."""

    def __init__(self, runtime: Runtime) -> None:
        self._runtime = runtime

    def open(self, name: RuntimeName) -> Runtime:
        return self._runtime


def context() -> NodeContext:
    return NodeContext("n", cast(Ports, None), {})


def test_each_runtime_has_a_registry_of_one_family():
    async def main():
        root = TaskRegistry("n")
        services = Services(LabelledRuntimes(), root)
        http, broker = services.open(RuntimeName.HTTP), services.open(RuntimeName.BROKER)
        await http.spawn(TaskKind.HTTP_SERVER, "a", wait_shutdown)
        await broker.spawn(TaskKind.BROKER_PUBLISHER, "b", wait_shutdown)
        root.spawn(TaskKind.DISK, "c", wait_shutdown())
        shown = [(info.runtime, info.name) for info in http.registry.snapshot_of_node()]
        assert shown == [("main", "c"), ("http", "a"), ("broker", "b")]
        assert [info.name for info in broker.registry.snapshot()] == ["b"]
        ids = [registry.trace_ids.next() for registry in (root, http.registry, broker.registry)]
        assert ids == ["n-1", "n-2", "n-3"]
        await services.close()
        assert root.snapshot_of_node() == []

    run(main)


def test_a_service_is_opened_once():
    async def main():
        services = Services(LabelledRuntimes(), TaskRegistry("n"))
        services.open(RuntimeName.HTTP)
        with pytest.raises(AssertionError, match="http is open already"):
            services.open(RuntimeName.HTTP)

    run(main)


@pytest.mark.row("E4.ends", worlds=("sim",))
@pytest.mark.parametrize("fails", [False, True])
def test_the_main_learns_which_task_of_which_runtime_ended(fails):
    async def work() -> None:
        await asyncio.sleep(1)
        if fails:
            raise ValueError("no such luck")

    async def main():
        services = Services(LabelledRuntimes(), TaskRegistry("n"))
        broker = services.open(RuntimeName.BROKER)
        await broker.spawn(TaskKind.BROKER_PUBLISHER, "publish", work)
        with pytest.raises(TaskFailed) as failed:
            await services.run_until_stopped(context())
        how = "failed: ValueError: no such luck" if fails else "ended unexpectedly"
        expected = f"critical task broker_publisher publish of runtime broker {how}"
        assert str(failed.value) == expected
        await services.close()

    run(main)


def test_a_runtime_that_ends_is_told_of():
    async def main():
        services = Services(Chosen(Gone()), TaskRegistry("n"))
        services.open(RuntimeName.HTTP)
        with pytest.raises(RuntimeEnded, match="runtime gone ended"):
            await services.run_until_stopped(context())

    run(main)


@pytest.mark.parametrize("runtime", [Stuck(), Gone()])
def test_a_runtime_that_does_not_answer_cannot_hold_the_end_up(caplog, runtime):
    async def main():
        services = Services(Chosen(runtime), TaskRegistry("n"))
        service = services.open(RuntimeName.HTTP)
        started_s = asyncio.get_running_loop().time()
        await service.finish(wait_shutdown)
        await services.close()
        took_s = asyncio.get_running_loop().time() - started_s
        assert took_s <= 2 * services_module.STOP_WITHIN_S

    with caplog.at_level(logging.ERROR):
        run(main)
    assert caplog.text.count(f"runtime {runtime.name} does not stop") == 2


@pytest.mark.row("E4.ends", worlds=("sim",))
@pytest.mark.parametrize(
    ("kind", "name", "runtime"),
    [
        ("broker_publisher", "publish", "broker"),
        ("broker_subscriber", "peers", "broker"),
        ("wal_sender", "heartbeat", "wal-service"),
        ("disk", "wal flusher", "wal-service"),
        ("disk", "control files", "wal-service"),
        ("wal_remover", "wal remover", "wal-service"),
    ],
)
def test_a_safekeeper_that_loses_a_task_it_needs_goes_down_with_its_name(kind, name, runtime):
    async def story(cluster: Cluster) -> None:
        tasks = [task for task in asyncio.all_tasks() if task.get_name() == f"{kind}:{name}"]
        assert len(tasks) == 1
        tasks[0].cancel()
        await asyncio.sleep(20)
        expected = f"TaskFailed: critical task {kind} {name} of runtime {runtime}"
        assert cluster.backend.died("sk0") == f"{expected} ended unexpectedly"
        await cluster.start("sk0")

    run_cluster(story, count=1)
