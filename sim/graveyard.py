"""Where dead code lies unfinalised until the world ends, and how it is disposed of then."""

from __future__ import annotations

import sys
import warnings
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any

from sim.node import Incarnation

_CLOSE_ATTEMPTS = 8
_unkillable: list[Any] = []


class Graveyard:
    """Holds what must neither run nor be finalised while the world lives."""

    def __init__(self) -> None:
        self._buried: list[Any] = []

    def bury(self, thing: Any) -> None:
        """Keep a handle, or anything else of a dead incarnation."""
        self._buried.append(thing)

    def dispose(self, incarnations: Iterable[Incarnation]) -> None:
        """Close every unfinished coroutine behind the seal: nothing it does has an effect."""
        with _sealed():
            for incarnation in dict.fromkeys(incarnations):
                for task in incarnation.tasks:
                    _dispose_of_task(task, incarnation.context)
                incarnation.forget()
            self._buried.clear()


def _dispose_of_task(task: Any, context: Any) -> None:
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
def _sealed() -> Iterator[None]:
    """No warning and no unraisable error of dying code reaches anybody."""
    hook: Callable[..., Any] = sys.unraisablehook
    sys.unraisablehook = lambda unraisable: None
    generator_hooks = sys.get_asyncgen_hooks()
    sys.set_asyncgen_hooks(finalizer=lambda generator: None)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        sys.set_asyncgen_hooks(*generator_hooks)
        sys.unraisablehook = hook
