"""Ports whose client lives on one runtime of the node, and which every runtime may use.

A client of S3 or etcd belongs to one event loop. It is made by its first call, on the runtime named
here if the node has opened that, else on the node's main loop; calls from elsewhere cross over.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Any, TypeVar

from real.broker import EtcdBroker, EtcdLeadership
from real.object_store import S3ObjectStore
from real.runtimes import ThreadRuntimes
from storage.errors import BrokerError
from storage.ports import BrokerUpdate, Leadership, ObjectInfo
from storage.runtimes import RuntimeName

T = TypeVar("T")


class Home:
    """Where a client lives."""

    def __init__(self, runtimes: ThreadRuntimes, name: RuntimeName) -> None:
        self._runtimes = runtimes
        self._name = name

    async def call(self, work: Callable[[], Coroutine[Any, Any, T]]) -> T:
        """Run ``work()`` where the client lives."""
        runtime = self._runtimes.opened(self._name)
        return await (work() if runtime is None else runtime.call(work))

    def post(self, callback: Callable[[], object]) -> None:
        """Have ``callback`` called where the client lives."""
        runtime = self._runtimes.opened(self._name)
        callback() if runtime is None else runtime.post(callback)


class BoundObjectStore:
    """A bucket; implements ``storage.ports.ObjectStore``."""

    def __init__(self, store: S3ObjectStore, home: Home) -> None:
        self._store = store
        self._home = home

    async def put(
        self, key: str, data: bytes, *, if_absent: bool = False, if_etag: str | None = None
    ) -> str:
        """Store an object whole and return its etag."""
        return await self._home.call(
            lambda: self._store.put(key, data, if_absent=if_absent, if_etag=if_etag)
        )

    async def get(self, key: str) -> bytes:
        """The whole object, or ``ObjectMissing``."""
        return await self._home.call(lambda: self._store.get(key))

    async def get_range(self, key: str, offset: int, length: int) -> bytes:
        """``length`` bytes from ``offset``, shorter only at the end, or ``ObjectMissing``."""
        return await self._home.call(lambda: self._store.get_range(key, offset, length))

    async def head(self, key: str) -> ObjectInfo:
        """Size and etag, or ``ObjectMissing``."""
        return await self._home.call(lambda: self._store.head(key))

    async def list(self, prefix: str) -> list[ObjectInfo]:
        """Every object whose key starts with ``prefix``, in key order."""
        return await self._home.call(lambda: self._store.list(prefix))

    async def delete(self, key: str) -> None:
        """Remove an object; harmless if it is missing."""
        await self._home.call(lambda: self._store.delete(key))

    async def close(self) -> None:
        """Close the client."""
        await self._home.call(self._store.close)


class BoundLeadership:
    """A won election; implements ``storage.ports.Leadership``."""

    def __init__(self, leadership: EtcdLeadership, home: Home) -> None:
        self._leadership = leadership
        self._home = home

    @property
    def fencing_token(self) -> int:
        """Grows with each leadership of the same election."""
        return self._leadership.fencing_token

    async def lost(self) -> None:
        """Returns when the lease is known to be lost, or was resigned."""
        await self._home.call(self._leadership.lost)

    async def resign(self) -> None:
        """Give the leadership up."""
        await self._home.call(self._leadership.resign)


class BoundBroker:
    """etcd; implements ``storage.ports.Broker``."""

    def __init__(self, broker: EtcdBroker, home: Home) -> None:
        self._broker = broker
        self._home = home
        self._resigning: list[asyncio.Task[None]] = []

    async def publish(self, key: str, value: bytes, *, ttl_s: float) -> None:
        """Set a key that disappears unless it is published again in time."""
        await self._home.call(lambda: self._broker.publish(key, value, ttl_s=ttl_s))

    async def get(self, prefix: str) -> dict[str, bytes]:
        """Every live key that starts with ``prefix``, with its value."""
        return await self._home.call(lambda: self._broker.get(prefix))

    @asynccontextmanager
    async def _subscribed(self, prefix: str) -> AsyncIterator[AsyncIterator[BrokerUpdate]]:
        context = self._broker.subscribe(prefix)
        updates = await self._home.call(context.__aenter__)
        try:
            yield _BoundUpdates(updates, self._home)
        finally:
            await self._home.call(lambda: _leave(context))

    def subscribe(self, prefix: str) -> AbstractAsyncContextManager[AsyncIterator[BrokerUpdate]]:
        """Present values first, then every change, until the context is left."""
        return self._subscribed(prefix)

    async def campaign(self, election: str, candidate: str, *, ttl_s: float) -> Leadership:
        """Wait until this candidate leads; a cancelled campaign leaves nothing behind."""
        won: list[EtcdLeadership] = []

        async def win() -> None:
            won.append(await self._broker.campaign(election, candidate, ttl_s=ttl_s))

        try:
            await self._home.call(win)
        except asyncio.CancelledError:
            # Another thread may have won for us in the moment in which we gave up.
            self._home.post(lambda: self._give_up(won))
            raise
        return BoundLeadership(won[0], self._home)

    def _give_up(self, won: list[EtcdLeadership]) -> None:
        for leadership in won:
            task = asyncio.get_running_loop().create_task(_resign(leadership))
            self._resigning.append(task)
            task.add_done_callback(self._resigning.remove)

    async def leader(self, election: str) -> str | None:
        """The candidate that leads now, or ``None``."""
        return await self._home.call(lambda: self._broker.leader(election))

    async def close(self) -> None:
        """Close the client."""
        await self._home.call(self._close)

    async def _close(self) -> None:
        await asyncio.gather(*self._resigning)
        await self._broker.close()


class _BoundUpdates:
    """Changes that arrive on another runtime."""

    def __init__(self, updates: AsyncIterator[BrokerUpdate], home: Home) -> None:
        self._updates = updates
        self._home = home

    def __aiter__(self) -> _BoundUpdates:
        return self

    async def __anext__(self) -> BrokerUpdate:
        update = await self._home.call(self._next)
        if update is None:
            raise StopAsyncIteration
        return update

    async def _next(self) -> BrokerUpdate | None:
        # A StopAsyncIteration cannot leave a coroutine.
        return await anext(self._updates, None)


async def _resign(leadership: EtcdLeadership) -> None:
    with contextlib.suppress(BrokerError):
        await leadership.resign()


async def _leave(context: AbstractAsyncContextManager[Any]) -> None:
    await context.__aexit__(None, None, None)
