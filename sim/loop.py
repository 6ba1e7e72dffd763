"""The simulation's event loop: asyncio on virtual time, one thread, every order seeded.

All callbacks ready at an instant drain before time moves; simpy's schedule holds timers, packets
and whatever simpy processes the ports run. Every handle carries a context, and so the node it
belongs to: a dead incarnation's handles are buried instead of run, a paused one's are parked.
"""

from __future__ import annotations

import asyncio
import math
import threading
from asyncio import events
from collections.abc import Awaitable, Callable, Coroutine, Generator, Mapping
from contextvars import Context, copy_context
from dataclasses import dataclass, field
from typing import Any

from sim.endings import Endings
from sim.environment import SimEnvironment
from sim.errors import Deadlock, Livelock, Nondeterminism, WorldOver
from sim.handles import SimHandle, SimTimerHandle, describe_callback
from sim.network import SimNetwork
from sim.networking import Networking
from sim.node import Incarnation, Life, Nodes, current_incarnation
from sim.policy import Fifo, Policy
from sim.seeds import Seeds
from sim.tasks import SimFuture, SimTask, describe_await
from sim.trace import INSTANT, Trace, TraceOptions
from storage.events import Field

START_S = 1_234_567.0
"""Where virtual time begins: far from zero and from wall time, so that mixed clocks show."""

_new_handle = SimHandle.__new__  # Sparing the call of __init__ pays: tasks step through call_soon.

ExceptionHandler = Callable[[asyncio.AbstractEventLoop, dict[str, Any]], object]


@dataclass(frozen=True, slots=True)
class LoopOptions:
    """``callbacks_per_instant_max`` bounds what one instant may run before it is a livelock."""

    policy: Policy = field(default_factory=Fifo)
    trace: TraceOptions = field(default_factory=TraceOptions)
    callbacks_per_instant_max: int = 2_000_000


class SimLoop(Networking, Endings):
    """A deterministic ``asyncio`` event loop; same seed, same run.

    ``environment`` is the simpy environment, ``seeds`` the run's entropy, ``network`` its links,
    ``nodes`` its processes and ``trace`` its identity.
    """

    def __init__(self, seed: int = 0, options: LoopOptions | None = None) -> None:
        self.options = options or LoopOptions()
        self.environment = SimEnvironment(START_S)
        self.seeds = Seeds(seed)
        self.trace = Trace(self.options.trace, START_S)
        self.nodes = Nodes(self)
        self.network = SimNetwork(self)
        self._ready = self.options.policy.ready_queue(self.seeds.child("policy"))
        self.push: Callable[[Any], None] = self._ready.push
        self._gated = False
        self._stopping = False
        self._running = False
        self._sequence = 0
        self._callbacks_max = self.options.callbacks_per_instant_max
        self._task_number = 0
        self._exception_handler: ExceptionHandler | None = None
        self._start_endings()

    # Time and callbacks.

    def time(self) -> float:
        """Virtual seconds; begins at :data:`START_S`."""
        return self.environment._now

    def call_soon(  # type: ignore[override]
        self, callback: Callable[..., Any], *args: Any, context: Context | None = None
    ) -> asyncio.Handle:
        """Run ``callback`` at this instant, after what is ready already (see the policy)."""
        handle = _new_handle(SimHandle)
        handle._callback = callback
        handle._args = args
        handle._context = copy_context() if context is None else context
        self.push(handle)
        return handle

    def call_soon_threadsafe(  # type: ignore[override]
        self, callback: Callable[..., Any], *args: Any, context: Context | None = None
    ) -> asyncio.Handle:
        """The same as :meth:`call_soon`; a call from another thread is refused."""
        if threading.get_ident() != self._source.thread:
            raise Nondeterminism("another thread called the loop; a simulation has one thread only")
        return self.call_soon(callback, *args, context=context)

    def call_later(  # type: ignore[override]
        self, delay: float, callback: Callable[..., Any], *args: Any, context: Context | None = None
    ) -> asyncio.TimerHandle:
        """Run ``callback`` after ``delay`` seconds of virtual time."""
        when = self.environment._now + delay
        return self.call_at(when, callback, *args, context=context)

    def call_at(  # type: ignore[override]
        self, when: float, callback: Callable[..., Any], *args: Any, context: Context | None = None
    ) -> asyncio.TimerHandle:
        """Run ``callback`` when :meth:`time` reaches ``when``."""
        if when != when or when == math.inf:
            raise ValueError(f"cannot schedule {describe_callback(callback)} at {when}")
        timer = SimTimerHandle(
            when, callback, args, self, copy_context() if context is None else context
        )
        self.environment.ring_at(when, timer)
        return timer

    # Tasks and futures.

    def next_sequence(self) -> int:
        """The next number for something that must hash or sort the same in every run."""
        self._sequence += 1
        return self._sequence

    def create_future(self) -> asyncio.Future[Any]:
        """A future of this loop."""
        return SimFuture(loop=self)

    def create_task(
        self,
        coro: Coroutine[Any, Any, Any] | Generator[Any, None, Any],
        *,
        name: str | None = None,
        context: Context | None = None,
        **options: Any,
    ) -> asyncio.Task[Any]:
        """Run a coroutine as a task of the node whose context it gets."""
        self._check_open(coro)
        self._task_number += 1
        if name is None:
            name = f"task-{self._task_number}"
        task = SimTask(coro, loop=self, name=name, context=context, **options)
        held = current_incarnation.get() if context is None else context.get(current_incarnation)
        (held or self.nodes.home).adopt(task)
        return task

    def set_task_factory(self, factory: Any) -> None:
        """Only ``None``: the loop's own tasks are what makes runs reproducible."""
        if factory is not None:
            self.refuse("task factories", "tasks must be the loop's own to hash reproducibly")

    def get_task_factory(self) -> None:
        """Always ``None``."""

    # Running.

    def run_forever(self) -> None:
        """Run until :meth:`stop`; ``Deadlock`` when nothing is left to happen."""
        self._check_runnable()
        entered = self._enter_run()
        self._running = True
        events._set_running_loop(self)
        try:
            self._run()
        finally:
            events._set_running_loop(None)
            self._stopping = False
            self._running = False
            self._leave_run(entered)

    def run_until_complete(  # type: ignore[override]
        self, future: Awaitable[Any]
    ) -> Any:
        """Run until the future or coroutine is done and return its result."""
        self._check_runnable()
        task: asyncio.Future[Any]
        if asyncio.isfuture(future):
            task = future
        elif asyncio.iscoroutine(future):
            task = self.create_task(future, name="main")
        else:
            raise TypeError(f"run_until_complete needs a coroutine or future, not {future!r}")
        task.add_done_callback(self._stop_when_done)
        try:
            self.run_forever()
        finally:
            task.remove_done_callback(self._stop_when_done)
        if not task.done():
            raise RuntimeError("the loop was stopped before its main coroutine was done")
        return task.result()

    def _stop_when_done(self, future: asyncio.Future[Any]) -> None:
        self._stopping = True

    def stop(self) -> None:
        """Stop after the present callback."""
        self._stopping = True

    def is_running(self) -> bool:
        """Whether :meth:`run_forever` is on the stack."""
        return self._running

    def _run(self) -> None:
        """One instant after the other: run all that is ready, then move time. Bound for speed."""
        ready, take, environment = self._ready, self._ready.take, self.environment
        trace, pending, advance = self.trace, self.trace.pending, environment.advance
        while True:
            executed = 0
            entries = len(pending)
            while ready and not self._stopping:
                handle = take()
                callback = handle._callback
                if callback is None:
                    continue
                if self._gated:
                    held = handle._context.get(current_incarnation)
                    if held is not None and held.life is not Life.RUNNING:
                        self._set_aside(handle, held)
                        continue
                executed += 1
                try:
                    handle._context.run(callback, *handle._args)
                except (SystemExit, KeyboardInterrupt):
                    raise
                except BaseException as error:
                    self._callback_failed(handle, error)
                if executed > self._callbacks_max:
                    raise Livelock(self._livelock_message(handle))
            trace.callbacks += executed
            if len(pending) == entries:
                pending.append((environment._now, INSTANT, executed))
            if self._stopping:
                return
            if not advance():
                raise Deadlock(self._deadlock_message())
            self._callbacks_until_housekeeping -= executed
            if self._callbacks_until_housekeeping < 0:
                self._keep_house()

    # Nodes: the kernel's part (see sim.node.Kernel).

    def _set_aside(self, handle: Any, incarnation: Incarnation) -> None:
        """Keep the handle until its node goes on, or bury it with its node."""
        if incarnation.life is Life.PAUSED:
            incarnation.parked.append(handle)
        else:
            self.graveyard.bury(handle)

    def gate_changed(self) -> None:
        """An incarnation died, froze or thawed: check handles from now on, or stop checking."""
        self._gated = self.nodes.restricted()

    def power(self, host: str, *, up: bool) -> None:
        """A machine got or lost its power; without it, it answers nothing."""
        self.network.host(host).up = up

    def process_event(self, incarnation: Incarnation, state: str) -> None:
        """Record that a node's process changed its state."""
        self.observe(incarnation.name, "process", {"node": incarnation.name, "state": state})

    def observe(self, node: str, kind: str, fields: Mapping[str, Field]) -> None:
        """Put a typed event into the trace."""
        self.trace.observe(self.environment._now, node, kind, fields)

    # Messages.

    def _deadlock_message(self) -> str:
        waiting = self._waiting_tasks()
        return "nothing is scheduled, and these tasks wait for ever:\n  " + "\n  ".join(waiting)

    def _livelock_message(self, last: asyncio.Handle) -> str:
        return (
            f"more than {self.options.callbacks_per_instant_max} callbacks ran at "
            f"t={self.time()} without time moving; the last was {last!r}; does a loop await "
            "nothing that takes time?"
        )

    def _waiting_tasks(self) -> list[str]:
        return [
            f"[{incarnation.name}{_remark(incarnation)}] {describe_await(task)}"
            for incarnation in self.nodes.everyone()
            if incarnation.alive
            for task in incarnation.tasks
            if not task.done()
        ]

    def _check_runnable(self) -> None:
        if self.is_closed():
            raise WorldOver("the loop is closed; make a new one for another run")
        if self._running:
            raise RuntimeError("this loop is running already")
        if events._get_running_loop() is not None:
            raise RuntimeError("another event loop is running in this thread")

    def __repr__(self) -> str:
        return f"<SimLoop seed={self.seeds.root} t={self.time()}>"


def _remark(incarnation: Incarnation) -> str:
    return ", paused" if incarnation.life is Life.PAUSED else ""
