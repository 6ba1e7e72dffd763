"""Watches of the simulated broker: one node's stream of changes, with lag and broken streams."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable

from sim.service import Caller, Service
from sim.station import never, settle
from storage.errors import BrokerError
from storage.ports import BrokerUpdate


class Watch:
    """A subscription: the broker pushes changes in, the node iterates them out.

    Changes arrive in order. A value may be skipped when a newer one of its key is waiting already.
    """

    def __init__(
        self, service: Service, caller: Caller, prefix: str, skips: Callable[[], bool]
    ) -> None:
        self.service = service
        self.caller = caller
        self.prefix = prefix
        self.closed = False
        self.mute = False
        """Whether the stream is half open: the broker believes in it and the node hears nothing."""
        self.arrives_s = 0.0
        """When the newest change on its way will arrive."""
        self._skips = skips
        self._waiting: deque[BrokerUpdate] = deque()
        self._withheld: list[BrokerUpdate] = []
        self._broken: str | None = None
        self._reader: asyncio.Future[None] | None = None

    @property
    def over(self) -> bool:
        """Whether nobody will ever read it again."""
        return self.closed or not self.caller.holder.alive

    def arrive(self, update: BrokerUpdate) -> None:
        """A change comes to the node's end; one that cannot reach it waits on the way."""
        if self.over or self._broken is not None:
            return
        if self.mute or self._withheld or self.service.unreachable(self.caller.node):
            self._withheld.append(update)
            return
        if self._skips():
            for older in [each for each in self._waiting if each.key == update.key]:
                self._waiting.remove(older)
        self._waiting.append(update)
        self._wake()

    def flush(self) -> None:
        """The way is open again: what waited on it arrives."""
        if self.mute:
            return
        withheld, self._withheld = self._withheld, []
        for update in withheld:
            self.arrive(update)

    def break_off(self, reason: str) -> None:
        """The stream ends with an error; what was on its way is lost."""
        if self._broken is None:
            self._broken = reason
            self._waiting.clear()
            self._withheld.clear()
            self._wake()

    def __aiter__(self) -> Watch:
        """The stream itself."""
        return self

    async def __anext__(self) -> BrokerUpdate:
        """The next change; ``BrokerError`` when the stream broke."""
        while not self._waiting:
            if not self.caller.holder.alive:
                await never(self.service.loop)
            if self._broken is not None:
                raise BrokerError(f"the subscription to {self.prefix!r} broke: {self._broken}")
            if self.closed:
                raise StopAsyncIteration
            self._reader = self.service.loop.create_future()
            await self._reader
        return self._waiting.popleft()

    def _wake(self) -> None:
        if self._reader is not None and self.caller.holder.alive:
            settle(self._reader, None)
            self._reader = None
