"""Registry of a node's tasks: what runs, for which tenant and timeline, and how to stop it.

Every task of a node is started through :meth:`TaskRegistry.spawn` and leaves the registry when it
ends. A shutdown names tasks by kind, tenant or timeline, raises their flag, waits, and cancels
those that do not listen; late callers wait for the same tasks. A task that fails is logged, and
the end of a critical task makes :meth:`TaskRegistry.watch` raise (SYSTEM.md B1, E4).
Entries are kept in order of their number, never by hash, so that two runs stop alike.
"""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import logging
from collections.abc import Callable, Coroutine, Iterator, Sequence
from typing import Any

from storage.errors import SeawallError
from storage.events import emit
from storage.failpoints import Failpoints
from storage.ids import TenantId, TimelineId
from storage.log import TraceIds, one_line
from storage.registration import (
    Registration,
    ShutdownRequested,
    TaskInfo,
    TaskKind,
    current,
    current_registration,
    interruptible,
    serving,
    shutdown_requested,
    sleep_unless_shutdown,
    wait_shutdown,
)

__all__ = [
    "Registration",
    "ShutdownRequested",
    "TaskFailed",
    "TaskInfo",
    "TaskKind",
    "TaskRegistry",
    "current_registration",
    "interruptible",
    "serving",
    "shutdown_requested",
    "sleep_unless_shutdown",
    "wait_shutdown",
]

logger = logging.getLogger(__name__)

CANCEL_GRACE_S = 2.0
"""How long a cancelled task may take to unwind before a shutdown gives it up, in seconds."""


class TaskFailed(SeawallError):
    """A critical task ended although nobody asked it to; the cause is what it raised, if it did."""


class TaskRegistry:
    """Every task of one incarnation of a node, and its failpoints, of which one may make it ``die``
    (``NodeContext.die``)."""

    def __init__(self, node: str, die: Callable[[str], None] | None = None) -> None:
        self.node = node
        self.failpoints = Failpoints(die)
        self.trace_ids = TraceIds(node)
        self._live: dict[int, Registration] = {}
        self._started = 0
        self._failure: TaskFailed | None = None
        self._watched = asyncio.Event()

    def spawn(  # noqa: PLR0913 - the keywords read as one declaration at the call
        self,
        kind: TaskKind,
        name: str,
        work: Coroutine[Any, Any, None],
        *,
        tenant_id: TenantId | None = None,
        timeline_id: TimelineId | None = None,
        critical: bool = False,
    ) -> asyncio.Task[None]:
        """Run ``work`` as a registered task; the entry lives until the task has ended.

        An exception that leaves ``work`` is logged with its cause chain. A ``critical`` task that
        ends without being asked to makes :meth:`watch` raise.
        """
        entry = self._register(kind, name, tenant_id, timeline_id, critical)
        context = contextvars.copy_context()
        context.run(current.set, entry)
        task = asyncio.get_running_loop().create_task(work, name=f"{kind}:{name}", context=context)
        entry.task = task
        task.add_done_callback(lambda done: self._ended(entry, done))
        return task

    def _register(
        self,
        kind: TaskKind,
        name: str,
        tenant_id: TenantId | None,
        timeline_id: TimelineId | None,
        critical: bool,
    ) -> Registration:
        assert timeline_id is None or tenant_id is not None, "a timeline belongs to a tenant"
        self._started += 1
        info = TaskInfo(self._started, kind, name, tenant_id, timeline_id, critical, False)
        entry = Registration(info, self.failpoints)
        self._live[info.number] = entry
        return entry

    @contextlib.contextmanager
    def adopt(
        self,
        kind: TaskKind,
        name: str,
        *,
        tenant_id: TenantId | None = None,
        timeline_id: TimelineId | None = None,
    ) -> Iterator[Registration]:
        """Register the running task, which a library started, while the block runs."""
        entry = self._register(kind, name, tenant_id, timeline_id, False)
        entry.task = asyncio.current_task()
        token = current.set(entry)
        try:
            yield entry
        finally:
            current.reset(token)
            self._forget(entry)

    def _forget(self, entry: Registration) -> None:
        removed = self._live.pop(entry.info.number, None)
        assert removed is entry, "a task leaves the registry exactly once"
        entry.ended.set()

    def _ended(self, entry: Registration, task: asyncio.Task[None]) -> None:
        self._forget(entry)
        error = None if task.cancelled() else task.exception()
        if error is not None and not (entry.stopping and isinstance(error, ShutdownRequested)):
            logger.error(
                "task %s %s failed: %s",
                entry.info.kind,
                entry.info.name,
                one_line(error),
                exc_info=error,
            )
        if entry.info.critical and not entry.stopping:
            self._critical_ended(entry, error)

    def _critical_ended(self, entry: Registration, error: BaseException | None) -> None:
        if self._failure is not None:
            return
        how = "ended unexpectedly" if error is None else f"failed: {one_line(error)}"
        self._failure = TaskFailed(f"critical task {entry.info.kind} {entry.info.name} {how}")
        self._failure.__cause__ = error
        self._watched.set()

    async def shutdown(
        self,
        *,
        kind: TaskKind | None = None,
        tenant_id: TenantId | None = None,
        timeline_id: TimelineId | None = None,
        within_s: float = 5.0,
    ) -> None:
        """Stop every matching task but the caller; returns when they have left the registry.

        Their flag is raised first; those still there after ``within_s`` are cancelled. Tasks that
        appear meanwhile are included, and a second caller waits for the same tasks.
        """
        while chosen := self._matching(kind, tenant_id, timeline_id):
            if not await self.stop(chosen, within_s=within_s):
                return

    def _matching(
        self, kind: TaskKind | None, tenant_id: TenantId | None, timeline_id: TimelineId | None
    ) -> list[Registration]:
        caller = current.get()
        return [
            entry
            for entry in self._live.values()
            if entry is not caller and entry.matches(kind, tenant_id, timeline_id)
        ]

    async def stop(self, entries: Sequence[Registration], *, within_s: float) -> bool:
        """Stop these entries as :meth:`shutdown` does; false if one survived its cancellation."""
        for entry in entries:
            entry.request_shutdown()
        late = await _still_running(entries, within_s)
        for entry in late:
            assert entry.task is not None
            logger.info(
                "task %s %s did not stop by itself; cancelled", entry.info.kind, entry.info.name
            )
            emit("deaf_task", task=str(entry.info.kind), name=entry.info.name)
            entry.task.cancel("shutdown")
        stuck = await _still_running(late, CANCEL_GRACE_S)
        for entry in stuck:
            logger.error("task %s %s ignores its cancellation", entry.info.kind, entry.info.name)
        return not stuck

    def snapshot(self) -> list[TaskInfo]:
        """Every live task in order of its start, for ``GET /v1/tasks``."""
        return [entry.info for entry in self._live.values()]

    async def watch(self) -> None:
        """Wait for ever; raise ``TaskFailed`` when a critical task ends without being asked to.

        For :func:`storage.life.run_until_stopped`.
        """
        await self._watched.wait()
        assert self._failure is not None, "somebody woke the watcher without a failure"
        raise self._failure


async def _still_running(entries: Sequence[Registration], within_s: float) -> list[Registration]:
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(within_s):
            for entry in entries:
                await entry.ended.wait()
    return [entry for entry in entries if not entry.ended.is_set()]
