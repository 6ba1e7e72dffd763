"""A simulated S3 bucket that nodes share: each sees it through a view with its own troubles.

Objects are whole and strongly consistent at the instant a request takes effect; when that is,
whether it is, and whether anybody hears of it, is decided by ``sim/service.py``.
"""

from __future__ import annotations

import hashlib
import random
from bisect import bisect_left, insort
from dataclasses import dataclass, field

from harness.backend import HARNESS
from harness.fault_ports import NO_FAULTS
from sim.latency import Latency, LogNormal
from sim.loop import SimLoop
from sim.service import Caller, Service, ServiceFaults, ServiceOptions
from sim.station import IMMORTAL, Holder
from storage.errors import ObjectMissing, ObjectStoreError, PreconditionFailed
from storage.ports import ObjectInfo


@dataclass(frozen=True, slots=True)
class ObjectStoreOptions:
    """Costs of the bucket: the way to it, ``delete`` on top of that, and bytes per second."""

    service: ServiceOptions = field(
        default=ServiceOptions(work=LogNormal(0.01, 0.6, 2.0), timeout_s=10.0)
    )
    delete: Latency = field(default=LogNormal(0.005, 0.8, 2.0))
    bytes_per_s: float = 200e6

    def __post_init__(self) -> None:
        if self.bytes_per_s <= 0:
            raise ValueError(f"bytes_per_s {self.bytes_per_s} must be positive")


class Bucket:
    """The objects themselves; every operation is one instant and cannot fail by accident."""

    def __init__(self) -> None:
        self._objects: dict[str, tuple[bytes, str]] = {}
        self._keys: list[str] = []

    def put(self, key: str, data: bytes, *, if_absent: bool, if_etag: str | None) -> str:
        """Store an object if its conditions hold; its etag is a hash of the content."""
        present = self._objects.get(key)
        if if_absent and present is not None:
            raise PreconditionFailed(f"put of {key!r}: the object exists already")
        if if_etag is not None and (present is None or present[1] != if_etag):
            found = "no object" if present is None else f"etag {present[1]}"
            raise PreconditionFailed(f"put of {key!r} if etag is {if_etag}: there is {found}")
        if present is None:
            insort(self._keys, key)
        etag = hashlib.blake2b(data, digest_size=16).hexdigest()
        self._objects[key] = (data, etag)
        assert len(self._keys) == len(self._objects), "keys and objects differ"
        return etag

    def get(self, key: str) -> bytes:
        """The content of an object, or ``ObjectMissing``."""
        return self._find(key)[0]

    def head(self, key: str) -> ObjectInfo:
        """Size and etag of an object, or ``ObjectMissing``."""
        data, etag = self._find(key)
        return ObjectInfo(key, len(data), etag)

    def list(self, prefix: str) -> list[ObjectInfo]:
        """Every object whose key starts with ``prefix``, in key order."""
        found = []
        for number in range(bisect_left(self._keys, prefix), len(self._keys)):
            key = self._keys[number]
            if not key.startswith(prefix):
                break
            found.append(self.head(key))
        return found

    def delete(self, key: str) -> None:
        """Remove an object, if it is there."""
        if self._objects.pop(key, None) is not None:
            del self._keys[bisect_left(self._keys, key)]

    def _find(self, key: str) -> tuple[bytes, str]:
        found = self._objects.get(key)
        if found is None:
            raise ObjectMissing(f"there is no object {key!r}")
        return found


class SimObjectStore:
    """The shared bucket. ``service`` holds the fault verbs; nodes get :meth:`view`."""

    def __init__(
        self,
        loop: SimLoop,
        generator: random.Random,
        options: ObjectStoreOptions | None = None,
    ) -> None:
        self.options = options or ObjectStoreOptions()
        self.bucket = Bucket()
        self.loop = loop
        self.service = Service(loop, generator, ObjectStoreError, self.options.service)
        self._frozen: dict[str, list[ObjectInfo]] | None = None
        self.delete_s = self.options.delete.sampler(generator)
        self.deletes_slowed_by_s = 0.0

    def view(self, node: str, holder: Holder = IMMORTAL) -> ObjectStoreView:
        """The bucket as one incarnation of a node sees it."""
        return ObjectStoreView(self, Caller(node, holder))

    def admin(self) -> AdminObjects:
        """The bucket itself, past every fault and in no time."""
        return AdminObjects(self.bucket)

    def _note(self, verb: str, **fields: str) -> None:
        self.loop.observe(HARNESS, "fault", {"verb": verb, "target": "s3", **fields})

    def slow_deletes(self, by_s: float) -> None:
        """Let every delete take so many seconds longer; 0 ends it."""
        assert by_s >= 0, f"deletes cannot be slowed by {by_s} s"
        self.deletes_slowed_by_s = by_s
        if by_s:
            self._note("slow_deletes", by_s=str(by_s))
        else:
            self._note("end", fault="slow_deletes")

    def slowed_s(self) -> float:
        """How much longer this delete takes; counted."""
        if self.deletes_slowed_by_s:
            self.service.effects["deletes_slowed"] += 1
        return self.deletes_slowed_by_s

    def freeze_listings(self) -> None:
        """Let each listing be answered as it was first answered since."""
        self._frozen = {}
        self._note("freeze_listings")

    def thaw_listings(self) -> None:
        """Let listings tell what there is again."""
        self._frozen = None
        self._note("end", fault="freeze_listings")

    def listed(self, prefix: str) -> list[ObjectInfo]:
        """What a node is told of the keys with a prefix; counted if it is stale."""
        found = self.bucket.list(prefix)
        if self._frozen is None:
            return found
        told = self._frozen.setdefault(prefix, found)
        self.service.effects["listings_stale"] += told != found
        return list(told)

    def inject(self, faults: ServiceFaults) -> None:
        """Let requests of every node fail by chance; ``NO_FAULTS`` ends it."""
        self.service.inject(faults)
        if faults == NO_FAULTS:
            self._note("end", fault="inject")
        else:
            self._note("inject", chances=str(faults))

    def deny(self, node: str) -> None:
        """A node has wrong credentials, until :meth:`allow`."""
        self.service.deny(node)
        self._note("deny", source=node)

    def allow(self, node: str) -> None:
        """Undo :meth:`deny`."""
        self.service.allow(node)
        self._note("end", fault="deny", source=node)

    def cut(self, node: str) -> None:
        """A black hole between a node and the bucket, until :meth:`heal`."""
        self.service.cut(node)
        self._note("cut", source=node)

    def heal(self, node: str) -> None:
        """Undo :meth:`cut`."""
        self.service.heal(node)
        self._note("heal", source=node)

    def outage(self) -> None:
        """Every operation fails or hangs until :meth:`restore`."""
        self.service.outage()
        self._note("outage")

    def restore(self) -> None:
        """End an outage."""
        self.service.restore()
        self._note("restore")

    def effects(self) -> dict[str, int]:
        """Counters of what the faults did."""
        return dict(self.service.effects)


class ObjectStoreView:
    """One node's client of the bucket; implements ``storage.ports.ObjectStore``."""

    __slots__ = ("_caller", "_store")

    def __init__(self, store: SimObjectStore, caller: Caller) -> None:
        self._store = store
        self._caller = caller

    async def put(
        self, key: str, data: bytes, *, if_absent: bool = False, if_etag: str | None = None
    ) -> str:
        """Store an object whole and return its etag."""
        _check_key(key)
        owned = bytes(data)
        bucket = self._store.bucket
        return await self._store.service.request(
            self._caller,
            f"put of {key!r}",
            lambda: bucket.put(key, owned, if_absent=if_absent, if_etag=if_etag),
            changes=True,
            extra_s=len(owned) / self._store.options.bytes_per_s,
        )

    async def get(self, key: str) -> bytes:
        """The whole object, or ``ObjectMissing``."""
        bucket = self._store.bucket
        return await self._store.service.request(
            self._caller, f"get of {key!r}", lambda: bucket.get(key)
        )

    async def get_range(self, key: str, offset: int, length: int) -> bytes:
        """``length`` bytes from ``offset``, shorter only at the end, or ``ObjectMissing``."""
        _check_range(offset, length)
        bucket = self._store.bucket
        return await self._store.service.request(
            self._caller,
            f"get of {key!r} at {offset}",
            lambda: bucket.get(key)[offset : offset + length],
        )

    async def head(self, key: str) -> ObjectInfo:
        """Size and etag, or ``ObjectMissing``."""
        bucket = self._store.bucket
        return await self._store.service.request(
            self._caller, f"head of {key!r}", lambda: bucket.head(key)
        )

    async def list(self, prefix: str) -> list[ObjectInfo]:
        """Every object whose key starts with ``prefix``, in key order."""
        store, node = self._store, self._caller.node

        def listing() -> list[ObjectInfo]:
            if store.service.fails_listing(node):
                raise ObjectStoreError(f"list of {prefix!r} failed: internal error")
            return store.listed(prefix)

        return await store.service.request(self._caller, f"list of {prefix!r}", listing)

    async def delete(self, key: str) -> None:
        """Remove an object; harmless if it is missing."""
        _check_key(key)
        store = self._store
        await store.service.request(
            self._caller,
            f"delete of {key!r}",
            lambda: store.bucket.delete(key),
            changes=True,
            extra_s=store.delete_s() + store.slowed_s(),
        )


class AdminObjects:
    """The bucket as an oracle sees it; implements ``storage.ports.ObjectStore``."""

    def __init__(self, bucket: Bucket) -> None:
        self._bucket = bucket

    async def put(
        self, key: str, data: bytes, *, if_absent: bool = False, if_etag: str | None = None
    ) -> str:
        """Store an object whole and return its etag."""
        _check_key(key)
        return self._bucket.put(key, bytes(data), if_absent=if_absent, if_etag=if_etag)

    async def get(self, key: str) -> bytes:
        """The whole object, or ``ObjectMissing``."""
        return self._bucket.get(key)

    async def get_range(self, key: str, offset: int, length: int) -> bytes:
        """``length`` bytes from ``offset``, shorter only at the end, or ``ObjectMissing``."""
        _check_range(offset, length)
        return self._bucket.get(key)[offset : offset + length]

    async def head(self, key: str) -> ObjectInfo:
        """Size and etag, or ``ObjectMissing``."""
        return self._bucket.head(key)

    async def list(self, prefix: str) -> list[ObjectInfo]:
        """Every object whose key starts with ``prefix``, in key order."""
        return self._bucket.list(prefix)

    async def delete(self, key: str) -> None:
        """Remove an object; harmless if it is missing."""
        _check_key(key)
        self._bucket.delete(key)


def _check_key(key: str) -> None:
    if not key:
        raise ValueError("an object needs a key of at least one character")


def _check_range(offset: int, length: int) -> None:
    if offset < 0 or length < 0:
        raise ValueError(f"a range of {length} bytes at {offset} is negative")
