"""Values with a time to live and elections on etcd; implements ``storage.ports.Broker``.

Every published key and every candidate has a lease of its own; the candidate whose key was created
first leads (etcd's ``concurrency.Election``). Nothing is retried here: a node decides that.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from real.etcd import EtcdClient, EtcdOptions, EtcdWatch, LeaseGone
from storage.errors import BrokerError
from storage.ports import BrokerUpdate

_RENEWALS_PER_TTL = 3
_GIVE_UP_S = 1.0


class EtcdBroker:
    """One node's client of etcd. ``close`` it when the node ends."""

    def __init__(self, options: EtcdOptions) -> None:
        self._client = EtcdClient(options)
        self._leases: dict[str, tuple[int, float]] = {}
        self._leaderships: list[EtcdLeadership] = []

    async def publish(self, key: str, value: bytes, *, ttl_s: float) -> None:
        """Set a key that disappears unless it is published again in time."""
        _check_ttl(ttl_s)
        lease, lease_ttl_s = self._leases.get(key, (0, 0.0))
        if lease_ttl_s != ttl_s or not await self._client.keep_alive(lease):
            lease = await self._client.grant(ttl_s)
            self._leases[key] = (lease, ttl_s)
        try:
            await self._client.put(key, value, lease)
        except LeaseGone:
            self._leases.pop(key, None)
            raise

    async def get(self, prefix: str) -> dict[str, bytes]:
        """Every live key that starts with ``prefix``, with its value."""
        found, _ = await self._client.range(prefix)
        return {each.key: each.value for each in sorted(found, key=lambda each: each.key)}

    @asynccontextmanager
    async def subscribe(self, prefix: str) -> AsyncIterator[AsyncIterator[BrokerUpdate]]:
        """Present values first, then every change, until the context is left."""
        present, revision = await self._client.range(prefix)
        watch = await self._client.watch(prefix, revision + 1)
        snapshot = [BrokerUpdate(each.key, each.value) for each in present]
        try:
            yield _Updates(snapshot, watch)
        finally:
            watch.close()

    async def campaign(self, election: str, candidate: str, *, ttl_s: float) -> EtcdLeadership:
        """Wait until this candidate leads; a cancelled campaign leaves nothing behind."""
        _check_ttl(ttl_s)
        leadership = EtcdLeadership(self._client, ttl_s)
        self._leaderships = [each for each in self._leaderships if not each.over]
        self._leaderships.append(leadership)
        try:
            await leadership.stand(election, candidate)
            while (
                since := await self._others_first(election, leadership.fencing_token)
            ) is not None:
                await self._wait_deletion(f"{election}/", since + 1)
            return leadership
        except BaseException:
            with contextlib.suppress(BrokerError, TimeoutError):
                async with asyncio.timeout(_GIVE_UP_S):
                    await leadership.resign()
            raise

    async def leader(self, election: str) -> str | None:
        """The candidate that leads now, or ``None``."""
        standing, _ = await self._client.range(f"{election}/")
        return standing[0].value.decode() if standing else None

    async def close(self) -> None:
        """End keep-alives, streams and the connection. Leases are left to run out."""
        for leadership in self._leaderships:
            await leadership.abandon()
        await self._client.close()

    async def _others_first(self, election: str, created: int) -> int | None:
        """The revision at which an older candidate still stands; ``None`` when this one leads."""
        standing, revision = await self._client.range(f"{election}/")
        if all(each.created != created for each in standing):
            raise BrokerError(f"the lease of a candidate in {election!r} ran out while it waited")
        return None if standing[0].created == created else revision

    async def _wait_deletion(self, prefix: str, from_revision: int) -> None:
        watch = await self._client.watch(prefix, from_revision)
        try:
            while (await watch.next()).value is not None:
                pass
        finally:
            watch.close()


class EtcdLeadership:
    """A candidate's key on a lease of its own, and the task that keeps the lease alive."""

    def __init__(self, client: EtcdClient, ttl_s: float) -> None:
        self._client = client
        self._ttl_s = ttl_s
        self._lease: int | None = None
        self._created: int | None = None
        self._over = asyncio.Event()
        self._keeper: asyncio.Task[None] | None = None

    @property
    def fencing_token(self) -> int:
        """The revision that created the candidate's key; later leaders have larger ones."""
        assert self._created is not None, "the candidate does not stand yet"
        return self._created

    @property
    def over(self) -> bool:
        """Whether the lease is known to be lost, or was resigned."""
        return self._over.is_set()

    async def stand(self, election: str, candidate: str) -> None:
        """Get a lease, keep it alive from now on, and put the candidate's key on it."""
        loop = asyncio.get_running_loop()
        asked_s = loop.time()
        self._lease = await self._client.grant(self._ttl_s)
        self._keeper = loop.create_task(
            self._keep_alive(self._lease, asked_s), name=f"lease of {candidate} in {election}"
        )
        key = f"{election}/{self._lease & 0xFFFFFFFFFFFFFFFF:016x}"
        self._created = await self._client.put(key, candidate.encode(), self._lease)

    async def lost(self) -> None:
        """Returns when the lease is known to be lost, or was resigned."""
        await self._over.wait()

    async def resign(self) -> None:
        """Give up the lease and with it the key; harmless when it is over already."""
        lease = self._lease
        await self.abandon()
        if lease is not None:
            await self._client.revoke(lease)

    async def abandon(self) -> None:
        """Stop the keep-alive and leave the lease to run out."""
        self._over.set()
        self._lease = None
        keeper, self._keeper = self._keeper, None
        if keeper is not None:
            keeper.cancel()
            await asyncio.wait([keeper])

    async def _keep_alive(self, lease: int, renewed_s: float) -> None:
        """Renew until the lease is gone, or may be gone for all that this node can know."""
        loop = asyncio.get_running_loop()
        while (left_s := renewed_s + self._ttl_s - loop.time()) > 0:
            await asyncio.sleep(min(left_s, self._ttl_s / _RENEWALS_PER_TTL))
            asked_s = loop.time()
            try:
                async with asyncio.timeout_at(renewed_s + self._ttl_s):
                    lives = await self._client.keep_alive(lease)
            except (BrokerError, TimeoutError):
                continue
            if not lives:
                break
            renewed_s = asked_s
        self._over.set()


class _Updates:
    """A snapshot, and then a stream that began right after it."""

    def __init__(self, snapshot: list[BrokerUpdate], watch: EtcdWatch) -> None:
        self._snapshot = snapshot
        self._watch = watch

    def __aiter__(self) -> _Updates:
        return self

    async def __anext__(self) -> BrokerUpdate:
        if self._snapshot:
            return self._snapshot.pop(0)
        change = await self._watch.next()
        return BrokerUpdate(change.key, change.value)


def _check_ttl(ttl_s: float) -> None:
    if not ttl_s > 0:
        raise ValueError(f"ttl_s {ttl_s} must be more than 0 seconds")
