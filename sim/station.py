"""Where simulated work takes virtual time: queues with a few servers, and who holds a view.

Work is carried by the environment, not by the task that asked: it keeps its place and its server
even when that task is cancelled or its node dies, as a command already sent to a device does.
"""

from __future__ import annotations

import asyncio
import types
from collections.abc import Callable, Generator
from dataclasses import dataclass
from typing import Final, Protocol, TypeVar

import simpy

from sim.environment import SimEnvironment
from sim.handles import Parcel

T = TypeVar("T")


class Holder(Protocol):
    """Whoever holds a view of something shared: an incarnation of a node, or the harness."""

    @property
    def alive(self) -> bool:
        """Whether it still exists; what a dead holder began neither happens nor returns."""
        ...


@dataclass(frozen=True, slots=True)
class _Immortal:
    alive: bool = True


IMMORTAL: Final[Holder] = _Immortal()
"""The holder that is no node: oracles, tests, the harness."""


class Station:
    """A queue before a fixed number of servers, on ``simpy.Resource``; first come, first served."""

    def __init__(self, environment: SimEnvironment, servers: int) -> None:
        if servers < 1:
            raise ValueError(f"a station with {servers} servers serves nobody; give at least 1")
        self._environment = environment
        self._resource = simpy.Resource(environment, capacity=servers)

    @property
    def waiting(self) -> int:
        """How many jobs stand in the queue now, those being served not counted."""
        return len(self._resource.queue)

    def serve(self, seconds: float, done: Callable[[], None]) -> None:
        """Queue a job of ``seconds`` and call ``done`` when it is finished, whoever still waits."""
        request = self._resource.request()

        def begin(_: simpy.Event) -> None:
            after(self._environment, seconds, finish)

        def finish() -> None:
            self._resource.release(request)
            done()

        if request.triggered:
            begin(request)
        else:
            assert request.callbacks is not None
            request.callbacks.append(begin)


def after(environment: SimEnvironment, seconds: float, call: Callable[[], None]) -> Parcel:
    """Call something later as the environment itself: no node's crash or pause holds it back."""
    assert seconds >= 0, f"{seconds} s from now is in the past"
    return at(environment, environment.now + seconds, call)


def at(environment: SimEnvironment, when_s: float, call: Callable[[], None]) -> Parcel:
    """The same at a virtual time; calls due at one time happen in the order of their making."""
    parcel = Parcel(environment, call)
    environment.ring_at(when_s, parcel)
    return parcel


def settle(future: asyncio.Future[T], outcome: T) -> None:
    """Resolve a future unless its waiter was cancelled meanwhile."""
    if not future.done():
        future.set_result(outcome)


@types.coroutine
def give_way() -> Generator[None, None, None]:
    """Let every other ready task of the loop run before the caller goes on."""
    yield


async def never(loop: asyncio.AbstractEventLoop) -> None:
    """What an operation of a dead incarnation does: it does not return."""
    await loop.create_future()
    raise AssertionError("nobody can resolve this future")
