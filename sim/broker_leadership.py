"""A candidacy at the simulated broker, from its lease to its end; ``storage.ports.Leadership``."""

from __future__ import annotations

import asyncio

from sim.broker_store import BrokerStore
from sim.service import Caller, Service
from storage.errors import BrokerError

_RENEWALS_PER_TTL = 3


def check_ttl(ttl_s: float) -> None:
    """Refuse a time to live that is over before it begins."""
    if not ttl_s > 0:
        raise ValueError(f"ttl_s {ttl_s} must be more than 0 seconds")


class SimLeadership:
    """A candidate's key on a lease of its own, and the task that keeps the lease alive."""

    def __init__(self, store: BrokerStore, service: Service, caller: Caller, ttl_s: float) -> None:
        self._store = store
        self._service = service
        self._caller = caller
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

    async def stand(self, election: str, candidate: str) -> None:
        """Get a lease, keep it alive from now on, and put the candidate's key on it."""
        loop = self._service.loop
        asked_s = loop.time()
        lease = await self._service.request(
            self._caller, "grant of a lease", lambda: self._store.grant(self._ttl_s), changes=True
        )
        self._lease = lease
        self._keeper = loop.create_task(
            self._keep_alive(lease, asked_s), name=f"lease of {candidate} in {election}"
        )
        self._created = await self._service.request(
            self._caller,
            f"campaign in {election!r}",
            lambda: self._create(f"{election}/{lease:016x}", candidate, lease),
            changes=True,
        )

    async def lost(self) -> None:
        """Returns when the lease is known to be lost, or was resigned."""
        await self._over.wait()

    async def resign(self) -> None:
        """Give up the lease and with it the key; harmless when it is over already."""
        if self._keeper is not None:
            self._keeper.cancel()
        self._over.set()
        lease, self._lease = self._lease, None
        if lease is not None:
            await self._service.request(
                self._caller, "revoke of a lease", lambda: self._store.revoke(lease), changes=True
            )

    def _create(self, key: str, candidate: str, lease: int) -> int:
        if not self._store.living(lease):
            raise BrokerError(f"the lease of {candidate!r} ran out before it could stand")
        return self._store.put(key, candidate.encode(), lease)

    async def _keep_alive(self, lease: int, renewed_s: float) -> None:
        """Renew until the lease is gone, or may be gone for all that this node can know."""
        loop = self._service.loop
        while (left_s := renewed_s + self._ttl_s - loop.time()) > 0:
            await asyncio.sleep(min(left_s, self._ttl_s / _RENEWALS_PER_TTL))
            asked_s = loop.time()
            try:
                async with asyncio.timeout_at(renewed_s + self._ttl_s):
                    lives = await self._service.request(
                        self._caller,
                        "renewal of a lease",
                        lambda: self._store.keep_alive(lease),
                    )
            except (BrokerError, TimeoutError):
                continue
            if not lives:
                break
            renewed_s = asked_s
        self._over.set()
