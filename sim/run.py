"""Run one asyncio program in a world of its own, from start to disposal."""

from __future__ import annotations

import asyncio
import gc
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

from harness.errors import ScenarioFailed
from sim.loop import LoopOptions, SimLoop
from sim.policy import Fifo, Policy

Result = TypeVar("Result")


def run(
    main: Callable[[], Coroutine[Any, Any, Result]], *, seed: int = 0, policy: Policy | None = None
) -> Result:
    """Run ``main()`` under virtual time and return its result; like ``asyncio.run``, but seeded.

    Raises what ``main`` raises, ``Deadlock`` when nothing can happen any more, ``ScenarioFailed``
    when a background task of the program failed and nobody awaited it.
    """
    loop = SimLoop(seed, LoopOptions(policy=policy or Fifo()))
    return run_on(loop, main)


def run_on(loop: SimLoop, main: Callable[[], Coroutine[Any, Any, Result]]) -> Result:
    """The same on a loop of your own, which is closed afterwards; its trace can still be read."""
    collecting = gc.isenabled()
    gc.disable()  # The loop collects at moments of its own; see sim.endings.
    try:
        try:
            result: Result = loop.run_until_complete(main())
            loop.report_failures()
            if loop.failures:
                raise ScenarioFailed.of(loop.failures)
        except BaseException as error:
            _end_tasks_after(loop, error)
            raise
        _end_tasks(loop)
        return result
    finally:
        loop.close()
        if collecting:
            gc.enable()


def _end_tasks_after(loop: SimLoop, error: BaseException) -> None:
    """Clean up after a failure without letting a second one hide it."""
    try:
        _end_tasks(loop)
    except Exception as second:
        error.add_note(f"while ending what the program left running: {second!r}")


def _end_tasks(loop: SimLoop) -> None:
    """Cancel what the program left running, as ``asyncio.run`` does; nodes just stop existing."""
    for incarnation in loop.nodes.everyone():
        if incarnation is not loop.nodes.home and incarnation.alive:
            loop.nodes.crash(incarnation.name)
    left = [task for task in loop.nodes.home.tasks if not task.done()]
    for task in left:
        task.cancel()
    loop.network.shut_down()
    if left:
        loop.run_until_complete(asyncio.gather(*left, return_exceptions=True))
    if loop.has_asyncgens():
        loop.run_until_complete(loop.shutdown_asyncgens())
