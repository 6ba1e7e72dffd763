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
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from storage.errors import NotReady, SeawallError
from storage.ids import TenantId, TimelineId
from storage.log import TraceIds, one_line

logger = logging.getLogger(__name__)

CANCEL_GRACE_S = 1.0
"""How long a cancelled task may take to unwind before a shutdown gives it up, in seconds."""


class TaskKind(StrEnum):
    """What a task is for; the first filter of a shutdown and the first column of ``/v1/tasks``."""

    WIRE_LISTENER = "wire_listener"
    WIRE_CONNECTION = "wire_connection"
    HTTP_SERVER = "http_server"
    HTTP_REQUEST = "http_request"
    BROKER_PUBLISHER = "broker_publisher"
    BROKER_SUBSCRIBER = "broker_subscriber"
    WAL_RECEIVER = "wal_receiver"
    WAL_SENDER = "wal_sender"
    WAL_BACKUP = "wal_backup"
    WAL_REMOVER = "wal_remover"
    CALLMEMAYBE = "callmemaybe"
    CHECKPOINTER = "checkpointer"
    LAYER_FLUSH = "layer_flush"
    UPLOAD = "upload"
    COMPACTION = "compaction"
    GC = "gc"
    ATTACH = "attach"
    PROPOSER = "proposer"
    ENDPOINT = "endpoint"
    DISK = "disk"
    METRICS = "metrics"


class TaskFailed(SeawallError):
    """A critical task ended although nobody asked it to; the cause is what it raised, if it did."""


class ShutdownRequested(NotReady):
    """The current task was asked to stop while it waited; let it pass through to the top."""

    sqlstate = "57P01"


@dataclass(frozen=True, slots=True)
class TaskInfo:
    """One row of ``GET /v1/tasks``; ``number`` grows with every task of the node."""

    number: int
    kind: TaskKind
    name: str
    tenant_id: TenantId | None
    timeline_id: TimelineId | None
    critical: bool
    stopping: bool


class Registration:
    """A live task's entry: its shutdown flag, and who wants to hear of it."""

    def __init__(self, info: TaskInfo) -> None:
        self._info = info
        self.stopping = False
        self.ended = asyncio.Event()
        self.task: asyncio.Task[Any] | None = None
        self._stop_requested = asyncio.Event()
        self._callbacks: dict[int, Callable[[], object]] = {}
        self._callbacks_added = 0

    @property
    def info(self) -> TaskInfo:
        """Present state of the entry."""
        info = self._info
        return TaskInfo(
            info.number, info.kind, info.name, info.tenant_id, info.timeline_id, info.critical,
            self.stopping,
        )

    def matches(
        self, kind: TaskKind | None, tenant_id: TenantId | None, timeline_id: TimelineId | None
    ) -> bool:
        """Whether a shutdown with these filters means this task; ``None`` means any."""
        return (
            (kind is None or kind is self._info.kind)
            and (tenant_id is None or tenant_id == self._info.tenant_id)
            and (timeline_id is None or timeline_id == self._info.timeline_id)
        )

    def request_shutdown(self) -> None:
        """Raise the flag, wake who waits for it, and call the callbacks; repeating is harmless."""
        if self.stopping:
            return
        self.stopping = True
        self._stop_requested.set()
        for callback in list(self._callbacks.values()):
            callback()

    async def wait_shutdown(self) -> None:
        """Return once a shutdown of this task was requested."""
        await self._stop_requested.wait()

    def on_shutdown(self, callback: Callable[[], object]) -> Callable[[], None]:
        """Call ``callback`` at the request (now, if it came already); returns how to forget it."""
        self._callbacks_added += 1
        key = self._callbacks_added
        self._callbacks[key] = callback
        if self.stopping:
            callback()
        return lambda: void_pop(self._callbacks, key)


def void_pop(callbacks: dict[int, Callable[[], object]], key: int) -> None:
    """Forget a callback; forgetting twice is harmless."""
    callbacks.pop(key, None)


_current: contextvars.ContextVar[Registration | None] = contextvars.ContextVar(
    "current_registration", default=None
)


class TaskRegistry:
    """Every task of one incarnation of a node."""

    def __init__(self, node: str) -> None:
        self.node = node
        self.trace_ids = TraceIds(node)
        self._live: dict[int, Registration] = {}
        self._started = 0
        self._failure: TaskFailed | None = None
        self._failed = asyncio.Event()

    def spawn(
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
        context.run(_current.set, entry)
        task = asyncio.get_running_loop().create_task(
            work, name=f"{kind}:{name}", context=context
        )
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
        entry = Registration(info)
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
        token = _current.set(entry)
        try:
            yield entry
        finally:
            _current.reset(token)
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
                entry.info.kind, entry.info.name, one_line(error), exc_info=error,
            )
        if entry.info.critical and not entry.stopping:
            self._critical_ended(entry, error)

    def _critical_ended(self, entry: Registration, error: BaseException | None) -> None:
        if self._failure is not None:
            return
        how = "ended unexpectedly" if error is None else f"failed: {one_line(error)}"
        self._failure = TaskFailed(f"critical task {entry.info.kind} {entry.info.name} {how}")
        self._failure.__cause__ = error
        self._failed.set()

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
        caller = _current.get()
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
            logger.info("task %s %s did not stop by itself; cancelled",
                        entry.info.kind, entry.info.name)
            entry.task.cancel("shutdown")
        stuck = await _still_running(late, CANCEL_GRACE_S)
        for entry in stuck:
            logger.error("task %s %s ignores its cancellation", entry.info.kind, entry.info.name)
        return not stuck

    def snapshot(self) -> list[TaskInfo]:
        """Every live task in order of its start, for ``GET /v1/tasks``."""
        return [entry.info for entry in self._live.values()]

    async def watch(self) -> None:
        """Wait for ever; raises ``TaskFailed`` when a critical task ends without being asked."""
        await self._failed.wait()
        assert self._failure is not None
        raise self._failure


async def _still_running(
    entries: Sequence[Registration], within_s: float
) -> list[Registration]:
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(within_s):
            for entry in entries:
                await entry.ended.wait()
    return [entry for entry in entries if not entry.ended.is_set()]


def current_registration() -> Registration | None:
    """Entry of the registered task that runs now, or ``None`` outside of any."""
    return _current.get()


def shutdown_requested() -> bool:
    """Whether the current registered task was asked to stop; false outside of any."""
    entry = _current.get()
    return entry is not None and entry.stopping


async def wait_shutdown() -> None:
    """Return once the current registered task is asked to stop; never, outside of any."""
    entry = _current.get()
    if entry is None:
        await asyncio.get_running_loop().create_future()
        return
    await entry.wait_shutdown()


async def sleep_unless_shutdown(delay_s: float) -> bool:
    """Sleep ``delay_s`` seconds; true, and at once, if the current task is asked to stop."""
    if shutdown_requested():
        return True
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(delay_s):
            await wait_shutdown()
    return shutdown_requested()


@contextlib.asynccontextmanager
async def interruptible() -> AsyncIterator[None]:
    """Waits inside the block raise ``ShutdownRequested`` when the current task is asked to stop.

    Works as ``asyncio.timeout`` does: the task is cancelled and the cancellation converted.
    """
    entry = _current.get()
    task = asyncio.current_task()
    if entry is None or task is None:
        yield
        return
    if entry.stopping:
        raise ShutdownRequested("the task is asked to stop")
    cancelled_by_us = False

    def interrupt() -> None:
        nonlocal cancelled_by_us
        cancelled_by_us = True
        task.cancel("shutdown requested")

    forget = entry.on_shutdown(interrupt)
    try:
        yield
    except asyncio.CancelledError as error:
        if cancelled_by_us and task.uncancel() == 0:
            raise ShutdownRequested("the task is asked to stop") from error
        raise
    finally:
        forget()
