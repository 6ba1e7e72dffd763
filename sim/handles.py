"""What the ready queue holds: callbacks with the context, and so the node, they run under."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextvars import Context
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from sim.loop import SimLoop


class SimHandle(asyncio.Handle):
    """A callback that is ready to run. Leaner than asyncio's: no debug source traceback."""

    __slots__ = ()

    def __init__(
        self, callback: Callable[..., Any], args: tuple[Any, ...], context: Context
    ) -> None:
        self._callback: Any = callback
        self._args: Any = args
        self._context: Any = context

    def cancel(self) -> None:
        """Never run the callback; a second call does nothing."""
        self._callback = None
        self._args = None

    def cancelled(self) -> bool:
        """Whether :meth:`cancel` was called."""
        return self._callback is None

    def __repr__(self) -> str:
        return f"<SimHandle {describe_callback(self._callback)}>"


class Delivery(SimHandle):
    """An arrival from the network; unlike plain callbacks, policies may reorder it."""

    __slots__ = ()


class SimTimerHandle(asyncio.TimerHandle):
    """A callback that becomes ready at ``when()``; an alarm of the simulation's environment."""

    __slots__ = ()

    def __init__(
        self,
        when: float,
        callback: Callable[..., Any],
        args: tuple[Any, ...],
        loop: SimLoop,
        context: Context,
    ) -> None:
        self._when = when
        self._context: Any = context
        self._callback: Any = callback
        self._args: Any = args
        self._loop: Any = loop
        self._cancelled = False
        self._scheduled = True

    def ring(self) -> None:
        """Join the ready queue; called by the environment when the time has come."""
        self._scheduled = False
        self._loop.push(self)

    def cancel(self) -> None:
        """Never run the callback; a second call does nothing."""
        if not self._cancelled:
            self._cancelled = True
            self._callback = None
            self._args = None
            if self._scheduled:
                self._loop.environment.alarm_cancelled()

    def cancelled(self) -> bool:
        """Whether :meth:`cancel` was called."""
        return self._cancelled

    def __hash__(self) -> int:
        return hash(self._when)

    def __repr__(self) -> str:
        return f"<SimTimerHandle at {self._when} {describe_callback(self._callback)}>"


class Parcel:
    """An alarm of the kernel itself: runs a function at its time, under no node."""

    __slots__ = ("_cancelled", "_environment", "_run", "_waiting")

    def __init__(self, environment: Any, run: Callable[[], None]) -> None:
        self._environment = environment
        self._run: Callable[[], None] | None = run
        self._cancelled = False
        self._waiting = True

    def ring(self) -> None:
        """Run the function."""
        self._waiting = False
        assert self._run is not None, "a cancelled parcel never rings"
        self._run()

    def cancel(self) -> None:
        """Never run the function; harmless when it has run or was cancelled."""
        if self._waiting and not self._cancelled:
            self._cancelled = True
            self._run = None
            self._environment.alarm_cancelled()


def describe_callback(callback: object) -> str:
    """A short, address-free name of a callback for messages and traces."""
    owner = getattr(callback, "__self__", None)
    if isinstance(owner, asyncio.Task):
        return f"task {owner.get_name()}"
    name = getattr(callback, "__qualname__", None)
    return str(name) if name is not None else type(callback).__name__
