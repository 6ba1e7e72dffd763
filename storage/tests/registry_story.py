"""Tests of tasks play stories on a registry in a simulation; ids of two tenants and timelines."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from typing import Any

import sim
from storage.ids import TenantId, TimelineId
from storage.tasks import TaskKind, TaskRegistry

TENANT, OTHER_TENANT = TenantId("a" * 32), TenantId("b" * 32)
TIMELINE, OTHER_TIMELINE = TimelineId("c" * 32), TimelineId("d" * 32)
GC = TaskKind.GC


def run(main: Callable[[TaskRegistry], Coroutine[Any, Any, None]]) -> None:
    async def program() -> None:
        await main(TaskRegistry("sk0"))

    sim.run(program)
