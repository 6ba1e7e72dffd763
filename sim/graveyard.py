"""Where dead code lies unfinalised until the world ends, and how it is disposed of then."""

from __future__ import annotations

import asyncio
import logging
import sys
import warnings
from asyncio import events
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import Context
from typing import Any

from sim.node import Incarnation

_CLOSE_ATTEMPTS = 8
_unkillable: list[Any] = []


class Graveyard:
    """Holds what must neither run nor be finalised while the world lives."""

    def __init__(self) -> None:
        self._buried: list[Any] = []
        self.disposing = False

    def bury(self, thing: Any) -> None:
        """Keep a handle, or anything else of a dead incarnation."""
        self._buried.append(thing)

    def dispose(self, loop: asyncio.AbstractEventLoop, incarnations: list[Incarnation]) -> None:
        """Close every unfinished coroutine behind the seal: nothing it does has an effect.

        The dying code finds a running loop on which whatever it awaits never comes, and the tasks
        it starts never begin.
        """
        owners = list(dict.fromkeys(incarnations))
        self.disposing = True
        with _sealed(loop):
            while any(owner.tasks for owner in owners):
                for owner in owners:
                    tasks, owner.tasks = owner.tasks, []
                    for task in tasks:
                        _dispose_of_task(task, owner.context)
                    del tasks
            for owner in owners:
                owner.forget()
            self._buried.clear()
        self.disposing = False


def _dispose_of_task(task: Any, context: Context) -> None:
    if task.done():
        task._log_traceback = False
        return
    task._log_destroy_pending = False
    context.copy().run(_close_quietly, task.get_coro())


def _close_quietly(coroutine: Any) -> None:
    """Close a coroutine whatever it does about it; one that never gives in is kept for ever."""
    for _ in range(_CLOSE_ATTEMPTS):
        try:
            coroutine.close()
        except BaseException:
            continue
        return
    _unkillable.append(coroutine)


@contextmanager
def _sealed(loop: asyncio.AbstractEventLoop) -> Iterator[None]:
    """No warning, log record or unraisable error of dying code reaches anybody."""
    quiet_below = logging.root.manager.disable
    logging.disable(logging.CRITICAL)
    hook: Callable[..., Any] = sys.unraisablehook
    sys.unraisablehook = lambda unraisable: None
    generator_hooks = sys.get_asyncgen_hooks()
    sys.set_asyncgen_hooks(finalizer=lambda generator: None)
    running = events._get_running_loop()
    events._set_running_loop(loop)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        events._set_running_loop(running)
        sys.set_asyncgen_hooks(*generator_hooks)
        sys.unraisablehook = hook
        logging.disable(quiet_below)
