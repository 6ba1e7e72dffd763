"""The broker's state, as etcd keeps it: revisions, keys on leases, and who watches what.

Each operation is one instant. A lease runs out some time after its deadline, never before it. While
the broker is down leases stand still; when it comes back each gets its whole time again, as etcd's
new leader grants it.
"""

from __future__ import annotations

import math
import random
from collections.abc import Callable
from dataclasses import dataclass, field

from sim.environment import SimEnvironment
from sim.handles import Parcel
from sim.station import after

ChangeListener = Callable[[str, bytes | None], None]
"""Hears of every change: the key and its new value, ``None`` when it is gone."""


@dataclass(slots=True)
class Lease:
    """Keeps its keys until ``deadline_s`` (virtual time), and up to a granularity longer."""

    number: int
    ttl_s: float
    deadline_s: float
    keys: dict[str, None] = field(default_factory=dict)
    alarm: Parcel | None = None


@dataclass(frozen=True, slots=True)
class Entry:
    """A key's value, the lease it lives on, and the revision that created it."""

    value: bytes
    lease: int
    created: int


class BrokerStore:
    """Keys, leases and revisions; tells one listener of every change."""

    def __init__(
        self, environment: SimEnvironment, generator: random.Random, listener: ChangeListener
    ) -> None:
        self.revision = 1
        self._environment = environment
        self._generator = generator
        self._listener = listener
        self._entries: dict[str, Entry] = {}
        self._leases: dict[int, Lease] = {}
        self._lease_number = 0
        self._frozen = False
        self.leases_expired = 0

    def grant(self, ttl_s: float) -> int:
        """A new lease of ``ttl_s`` seconds, which are rounded up to whole ones as etcd does."""
        if ttl_s <= 0:
            raise ValueError(f"a lease of {ttl_s} s is over before it begins")
        self._lease_number += 1
        whole_s = float(math.ceil(ttl_s))
        lease = Lease(self._lease_number, whole_s, self._environment.now + whole_s)
        self._leases[lease.number] = lease
        self._arm(lease)
        return lease.number

    def keep_alive(self, number: int) -> bool:
        """Give a lease its whole time again; false if it has run out."""
        lease = self._leases.get(number)
        if lease is None:
            return False
        lease.deadline_s = self._environment.now + lease.ttl_s
        return True

    def revoke(self, number: int) -> None:
        """End a lease and delete its keys; harmless if it is over."""
        lease = self._leases.pop(number, None)
        if lease is None:
            return
        if lease.alarm is not None:
            lease.alarm.cancel()
        for key in lease.keys:
            self._delete(key)

    def put(self, key: str, value: bytes, lease_number: int) -> int:
        """Set a key on a living lease; returns the revision that created the key."""
        lease = self._leases[lease_number]
        self.revision += 1
        present = self._entries.get(key)
        if present is not None and present.lease != lease_number:
            self._leases[present.lease].keys.pop(key)
        lease.keys[key] = None
        created = self.revision if present is None else present.created
        self._entries[key] = Entry(value, lease_number, created)
        self._listener(key, value)
        return created

    def publish(self, key: str, value: bytes, ttl_s: float) -> None:
        """Set a key that has a lease of its own and renew that."""
        present = self._entries.get(key)
        if present is not None and self._leases[present.lease].ttl_s == math.ceil(ttl_s):
            self.keep_alive(present.lease)
            self.put(key, value, present.lease)
        else:
            self.put(key, value, self.grant(ttl_s))

    def living(self, lease_number: int) -> bool:
        """Whether a lease has not run out."""
        return lease_number in self._leases

    def range(self, prefix: str) -> dict[str, bytes]:
        """Live keys that start with ``prefix``, in key order, with their values."""
        return {
            key: entry.value
            for key, entry in sorted(self._entries.items())
            if key.startswith(prefix)
        }

    def by_creation(self, prefix: str) -> list[tuple[str, Entry]]:
        """Live keys that start with ``prefix``, the oldest first."""
        found = [item for item in self._entries.items() if item[0].startswith(prefix)]
        return sorted(found, key=lambda item: item[1].created)

    def freeze(self) -> None:
        """The broker went down: no lease runs out."""
        self._frozen = True

    def thaw(self) -> None:
        """The broker is back: every lease has its whole time before it."""
        self._frozen = False
        for lease in self._leases.values():
            lease.deadline_s = self._environment.now + lease.ttl_s
            self._arm(lease)

    def _delete(self, key: str) -> None:
        assert key in self._entries, f"{key!r} is on a lease but does not exist"
        self.revision += 1
        del self._entries[key]
        self._listener(key, None)

    def _arm(self, lease: Lease) -> None:
        if lease.alarm is not None:
            lease.alarm.cancel()
        granularity_s = max(1.0, lease.ttl_s)
        slack_s = self._generator.random() * granularity_s
        wait_s = max(0.0, lease.deadline_s - self._environment.now) + slack_s
        lease.alarm = after(self._environment, wait_s, lambda: self._ring(lease))

    def _ring(self, lease: Lease) -> None:
        lease.alarm = None
        if self._frozen:
            return
        if lease.deadline_s > self._environment.now:
            self._arm(lease)
            return
        self.leases_expired += 1
        self.revoke(lease.number)
