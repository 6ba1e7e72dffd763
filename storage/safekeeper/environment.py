"""What the timelines of one safekeeper share: disk, bucket, tasks, options, the fuse."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

from storage.errors import NotReady
from storage.ids import TenantTimelineId
from storage.ports import Ports
from storage.safekeeper.flush_counts import FlushCounts
from storage.safekeeper.fuse import Fuse
from storage.safekeeper.options import SafekeeperOptions
from storage.tasks import TaskKind, TaskRegistry


class Environment:
    """One per node; ``listen`` tells who wants to hear of activity."""

    def __init__(
        self, ports: Ports, registry: TaskRegistry, options: SafekeeperOptions, fuse: Fuse
    ) -> None:
        self.disk = ports.disk
        self.objects = ports.objects
        self.registry = registry
        self.options = options
        self.fuse = fuse
        self.flushes = FlushCounts()
        self._listeners: list[Callable[[TenantTimelineId], object]] = []

    def listen(self, listener: Callable[[TenantTimelineId], object]) -> None:
        """Call back whenever a timeline may have become active or idle."""
        self._listeners.append(listener)

    def on_activity(self, timeline: TenantTimelineId) -> None:
        """A timeline may have become active or idle."""
        for listener in self._listeners:
            listener(timeline)

    def spawn(
        self,
        kind: TaskKind,
        name: str,
        work: Coroutine[Any, Any, None],
        timeline: TenantTimelineId,
        *,
        critical: bool = False,
    ) -> asyncio.Task[None]:
        """Run a task for a timeline; the node cannot go on without a ``critical`` one."""
        return self.registry.spawn(
            kind,
            name,
            work,
            tenant_id=timeline.tenant_id,
            timeline_id=timeline.timeline_id,
            critical=critical,
        )

    def result_of(
        self, work: Coroutine[Any, Any, None], timeline: TenantTimelineId
    ) -> asyncio.Future[None]:
        """Run disk work in a task of its own; the future has its result or its exception."""
        result: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.spawn(TaskKind.DISK, "decision", _into(result, work), timeline)
        return result


async def _into(result: asyncio.Future[None], work: Coroutine[Any, Any, None]) -> None:
    try:
        await work
    except asyncio.CancelledError:
        # Whoever waits would wait for ever: nobody else knows that this task was dropped.
        if not result.done():
            result.set_exception(NotReady("the work was dropped; start over"))
        raise
    except Exception as error:
        if not result.done():
            result.set_exception(error)
    else:
        if not result.done():
            result.set_result(None)
