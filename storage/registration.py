"""What a registered task knows of itself: its kind, its shutdown flag, and waits that heed it.

The entry of the running task travels in a context variable, so that code deep below a task can ask
:func:`shutdown_requested` or wait :func:`interruptible` without being handed anything.
"""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import TYPE_CHECKING, Any

from storage.errors import NotReady
from storage.ids import TenantId, TimelineId
from storage.runtimes import RuntimeName

if TYPE_CHECKING:
    from storage.failpoints import Failpoints


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
    WAL_RECOVERY = "wal_recovery"
    CALLMEMAYBE = "callmemaybe"
    CHECKPOINTER = "checkpointer"
    LAYER_FLUSH = "layer_flush"
    UPLOAD = "upload"
    COMPACTION = "compaction"
    GC = "gc"
    DELETION = "deletion"
    SCRUB = "scrub"
    EVICTION = "eviction"
    SECONDARY = "secondary"
    ATTACH = "attach"
    PROPOSER = "proposer"
    ENDPOINT = "endpoint"
    DISK = "disk"
    METRICS = "metrics"


class ShutdownRequested(NotReady):
    """The current task was asked to stop while it waited; let it pass through to the top."""

    sqlstate = "57P01"


@dataclass(frozen=True, slots=True)
class TaskInfo:
    """One row of ``GET /v1/tasks``; ``number`` grows with every task of the runtime."""

    number: int
    kind: TaskKind
    name: str
    tenant_id: TenantId | None
    timeline_id: TimelineId | None
    critical: bool
    stopping: bool
    runtime: str = RuntimeName.MAIN


class Registration:
    """A live task's entry: its shutdown flag, who wants to hear of it, its node's failpoints."""

    def __init__(self, info: TaskInfo, failpoints: Failpoints | None = None) -> None:
        self._info = info
        self.failpoints = failpoints
        self.stopping = False
        self.ended = asyncio.Event()
        self.task: asyncio.Task[Any] | None = None
        self._stop_requested = asyncio.Event()
        self._callbacks: dict[int, Callable[[], object]] = {}
        self._callbacks_added = 0

    @property
    def info(self) -> TaskInfo:
        """Present state of the entry."""
        return replace(self._info, stopping=True) if self.stopping else self._info

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

        def forget() -> None:
            self._callbacks.pop(key, None)

        return forget

    def relabel(self, tenant_id: TenantId | None, timeline_id: TimelineId | None) -> None:
        """Say for whom the task works now."""
        assert timeline_id is None or tenant_id is not None, "a timeline belongs to a tenant"
        self._info = replace(self._info, tenant_id=tenant_id, timeline_id=timeline_id)


current: contextvars.ContextVar[Registration | None] = contextvars.ContextVar(
    "current_registration", default=None
)
"""Entry of the running task; set by :class:`storage.tasks.TaskRegistry` only."""


def current_registration() -> Registration | None:
    """Entry of the registered task that runs now, or ``None`` outside of any."""
    return current.get()


@contextlib.contextmanager
def serving(tenant_id: TenantId, timeline_id: TimelineId | None = None) -> Iterator[None]:
    """Within the block the current task works for this tenant and timeline.

    For tasks that learn it late, such as a connection from its first command: a shutdown of the
    tenant then reaches them too. Does nothing outside of registered tasks.
    """
    entry = current.get()
    if entry is None:
        yield
        return
    before = entry.info
    entry.relabel(tenant_id, timeline_id)
    try:
        yield
    finally:
        entry.relabel(before.tenant_id, before.timeline_id)


def shutdown_requested() -> bool:
    """Whether the current registered task was asked to stop; false outside of any."""
    entry = current.get()
    return entry is not None and entry.stopping


async def wait_shutdown() -> None:
    """Return once the current registered task is asked to stop; never, outside of any."""
    entry = current.get()
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
    entry = current.get()
    task = asyncio.current_task()
    if entry is None or task is None:
        yield
        return
    if entry.stopping:
        raise ShutdownRequested("the task is asked to stop")
    cancelled_by_us = False
    cancelled_before = task.cancelling()

    def interrupt() -> None:
        nonlocal cancelled_by_us
        cancelled_by_us = True
        task.cancel("shutdown requested")

    forget = entry.on_shutdown(interrupt)
    try:
        yield
    except asyncio.CancelledError as error:
        if cancelled_by_us and task.uncancel() <= cancelled_before:
            raise ShutdownRequested("the task is asked to stop") from error
        raise
    finally:
        forget()
