"""How a node's main runs: until it is asked to stop, or something it needs ends."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any

from storage.node import NodeContext
from storage.tasks import TaskRegistry


async def run_until_stopped(
    context: NodeContext, registry: TaskRegistry, *works: Coroutine[Any, Any, None]
) -> None:
    """Run ``works`` until ``context.stopping`` is set or one of them ends; raises what ended it.

    Raises ``TaskFailed`` when a critical task of ``registry`` ends.
    """
    loop = asyncio.get_running_loop()
    ends = (
        *(loop.create_task(work, name=f"main of {context.name}") for work in works),
        loop.create_task(context.stopping.wait(), name="wait for stop"),
        loop.create_task(registry.watch(), name="watch"),
    )
    try:
        await asyncio.wait(ends, return_when=asyncio.FIRST_COMPLETED)
        for end in ends:
            if end.done():
                end.result()
    finally:
        for end in ends:
            end.cancel()
        await asyncio.gather(*ends, return_exceptions=True)
