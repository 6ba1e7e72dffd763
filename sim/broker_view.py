"""What one incarnation of a node holds of the simulated broker: ``storage.ports.Broker``.

An election is etcd's: each candidate holds a key on a lease of its own, and the key that was
created first leads. The node itself keeps its lease alive, so a paused node loses it and finds out
only afterwards.
"""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

from sim.broker_leadership import SimLeadership, check_ttl
from sim.broker_watch import Watch
from sim.service import Caller, Service
from storage.errors import BrokerError
from storage.ports import BrokerUpdate

if TYPE_CHECKING:
    from sim.broker import SimBroker


class BrokerView:
    """One node's client of the broker."""

    __slots__ = ("_broker", "_caller", "_service")

    def __init__(self, broker: SimBroker, service: Service, caller: Caller) -> None:
        self._broker = broker
        self._service = service
        self._caller = caller

    async def publish(self, key: str, value: bytes, *, ttl_s: float) -> None:
        """Set a key that disappears unless it is published again in time."""
        check_ttl(ttl_s)
        owned = bytes(value)
        store = self._broker.store
        await self._service.request(
            self._caller,
            f"publish of {key!r}",
            lambda: store.publish(key, owned, ttl_s),
            changes=True,
        )

    async def get(self, prefix: str) -> dict[str, bytes]:
        """Every live key that starts with ``prefix``, with its value."""
        store = self._broker.store
        return await self._service.request(
            self._caller, f"get of {prefix!r}", lambda: store.range(prefix)
        )

    @asynccontextmanager
    async def subscribe(self, prefix: str) -> AsyncIterator[AsyncIterator[BrokerUpdate]]:
        """Present values first, then every change, until the context is left."""
        watch = Watch(self._service, self._caller, prefix, self._broker.skips)
        try:
            await self._service.request(
                self._caller, f"watch of {prefix!r}", lambda: self._broker.open_watch(watch)
            )
            yield watch
        finally:
            watch.closed = True

    async def campaign(self, election: str, candidate: str, *, ttl_s: float) -> SimLeadership:
        """Wait until this candidate leads; a cancelled campaign leaves nothing behind."""
        check_ttl(ttl_s)
        leadership = SimLeadership(self._broker.store, self._service, self._caller, ttl_s)
        try:
            await leadership.stand(election, candidate)
            async with self.subscribe(f"{election}/") as changes:
                while await self._others_first(election, leadership.fencing_token):
                    while (await anext(changes)).value is not None:
                        pass
            return leadership
        except BaseException:
            with contextlib.suppress(BrokerError):
                await leadership.resign()
            raise

    async def leader(self, election: str) -> str | None:
        """The candidate that leads now, or ``None``."""
        store = self._broker.store
        standing = await self._service.request(
            self._caller, f"leader of {election!r}", lambda: store.by_creation(f"{election}/")
        )
        return standing[0][1].value.decode() if standing else None

    async def _others_first(self, election: str, created: int) -> bool:
        """Whether a candidate older than the one created at this revision still stands."""
        store = self._broker.store
        standing = await self._service.request(
            self._caller, f"campaign in {election!r}", lambda: store.by_creation(f"{election}/")
        )
        if all(entry.created != created for _, entry in standing):
            raise BrokerError(f"the lease of a candidate in {election!r} ran out while it waited")
        return standing[0][1].created != created
