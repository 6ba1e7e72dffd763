"""What a node's main must have ended before it returns: every task it, or a library, started.

Both worlds ask the same question with the same patience, so that a leak in one is a leak in both.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterable
from typing import Any

GRACE_S = 0.5
"""gRPC's own tasks end a moment after their channel has closed."""

logger = logging.getLogger(__name__)


async def report_leftovers(tasks: Iterable[asyncio.Task[Any]]) -> None:
    """Log a warning, which fails the run, for each task that goes on running.

    ``tasks``: all of a node whose main has returned, in any state; the caller's own may be among
    them. Waits up to ``GRACE_S`` seconds.
    """
    caller = asyncio.current_task()
    left = [task for task in tasks if task is not caller and not task.done()]
    if left:
        await asyncio.wait(left, timeout=GRACE_S)
    for task in sorted(left, key=asyncio.Task.get_name):
        if not task.done():
            what = getattr(task.get_coro(), "__qualname__", "?")
            logger.warning("task %s (%s) still runs after its main returned", task.get_name(), what)
