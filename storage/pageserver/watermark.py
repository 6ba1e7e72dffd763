"""A position that only grows, with waiters: subscribe first, then look (BUGBANK lost-wakeup)."""

from __future__ import annotations

import asyncio
from heapq import heappop, heappush

from storage.lsn import Lsn


class Watermark:
    """An LSN that only grows. ``name`` appears in failed assertions."""

    def __init__(self, name: str, value: Lsn) -> None:
        self._name = name
        self._value = value
        self._waiters: list[tuple[Lsn, int, asyncio.Future[None]]] = []
        self._subscribed = 0
        self._failure: Exception | None = None

    @property
    def value(self) -> Lsn:
        """The present position."""
        return self._value

    def advance(self, value: Lsn) -> None:
        """Move up and wake whom it concerns; moving down is a programming error."""
        assert value >= self._value, f"{self._name} cannot go from {self._value} to {value}"
        self._value = value
        if self._waiters:
            self.notify()

    def advance_quietly(self, value: Lsn) -> None:
        """Move up without waking anybody: a batch calls :meth:`notify` at its end."""
        assert value >= self._value, f"{self._name} cannot go from {self._value} to {value}"
        self._value = value

    def notify(self) -> None:
        """Wake the waiters that the present position satisfies."""
        while self._waiters and self._waiters[0][0] <= self._value:
            future = heappop(self._waiters)[2]
            if not future.done():
                future.set_result(None)

    def fail(self, error: Exception) -> None:
        """Make every present and future wait raise: the position will not move any more."""
        self._failure = error
        waiters, self._waiters = self._waiters, []
        for _, _, future in sorted(waiters, key=lambda waiter: waiter[1]):
            if not future.done():
                future.set_exception(error)

    async def wait_for(self, lsn: Lsn) -> None:
        """Return once the position is at least ``lsn``; raises what :meth:`fail` was given."""
        if self._value >= lsn:
            return
        if self._failure is not None:
            raise self._failure
        future = asyncio.get_running_loop().create_future()
        self._subscribed += 1
        heappush(self._waiters, (lsn, self._subscribed, future))
        await future
