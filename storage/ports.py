"""Ports: what a node needs of its world besides the network, which is asyncio itself.

Each docstring is the contract; ``scenarios/ports/`` runs one suite over every implementation.
Every coroutine here may raise the ``PortError`` its class names, and nothing else of the
environment: a library's own exception never crosses a port.
"""

from __future__ import annotations

import random
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field
from typing import Protocol

from storage.errors import DiskError
from storage.runtimes import LabelledRuntimes, Runtimes


def path_parts(path: str) -> tuple[str, ...]:
    """Components of a :class:`Disk` path, ``()`` for the root ``""``; ``DiskError`` if not legal.

    This is the one rule of what a path may be; every implementation refuses the rest with it.
    """
    if not path:
        return ()
    parts = tuple(path.split("/"))
    if any(part in ("", ".", "..") or "\0" in part for part in parts):
        raise DiskError(
            f"{path!r} is not a path on this disk; write it relative, with '/' between names, "
            "without '.', '..', empty or NUL parts"
        )
    return parts


class File(Protocol):
    """An open file of a :class:`Disk`. Raises ``DiskError``; a closed file raises it as well."""

    async def pread(self, offset: int, length: int) -> bytes:
        """Up to ``length`` bytes from ``offset``; shorter only at the end of the file."""
        ...

    async def pwrite(self, offset: int, data: bytes) -> None:
        """Write all of ``data``; a gap before ``offset`` reads as zeros. Not durable by itself.

        On ``DiskFull`` a prefix may have been written.
        """
        ...

    async def size(self) -> int:
        """Present length in bytes."""
        ...

    async def truncate(self, size: int) -> None:
        """Cut or zero-extend to ``size`` bytes. Not durable by itself."""
        ...

    async def fsync(self) -> None:
        """Make content and size durable. After an error, what is durable is unknown."""
        ...

    async def fdatasync(self) -> None:
        """Make the content durable, but promise nothing for bytes beyond the last durable size."""
        ...

    async def close(self) -> None:
        """Release the handle; does not make anything durable. Closing twice is harmless."""
        ...


class Disk(Protocol):
    """A node's own directory tree. Paths are relative, ``/``-separated, without ``.`` or ``..``.

    A file's content is durable after ``fsync(file)``; its name (creation, rename, unlink) after
    ``sync_dir`` of the directory that holds it. Anything else may be lost, file by file, when the
    host dies, in any order. A process crash loses nothing that was written.
    """

    async def open(self, path: str, *, create: bool = False, exclusive: bool = False) -> File:
        """Open for reading and writing. ``FileMissing`` unless ``create``.

        With ``exclusive`` (implies ``create``) raises ``FileAlreadyExists`` if the name is taken.
        """
        ...

    async def rename(self, source: str, target: str) -> None:
        """Atomically give a file or directory a new name, replacing a *file* that has it."""
        ...

    async def unlink(self, path: str) -> None:
        """Remove a file's name; ``FileMissing`` if there is none."""
        ...

    async def mkdir(self, path: str) -> None:
        """Create a directory and its missing parents; harmless if it exists."""
        ...

    async def rmtree(self, path: str) -> None:
        """Remove a directory and all below it; harmless if it is missing. Not atomic."""
        ...

    async def listdir(self, path: str) -> list[str]:
        """Names in a directory, sorted; ``FileMissing`` if there is no such directory."""
        ...

    async def exists(self, path: str) -> bool:
        """Whether the path names a file or a directory."""
        ...

    async def sync_dir(self, path: str) -> None:
        """Make the names in a directory durable. ``""`` is the root."""
        ...


@dataclass(frozen=True, slots=True)
class ObjectInfo:
    """One row of a listing: ``size`` in bytes; ``etag`` changes whenever the content does."""

    key: str
    size: int
    etag: str


class ObjectStore(Protocol):
    """An S3-like bucket: whole-object writes, strong read-after-write, strong listings.

    Any ``ObjectStoreError`` that is not ``ObjectMissing`` or ``PreconditionFailed`` may hide a
    success (``may_have_happened``). Concurrent operations on one key take effect in any order.
    """

    async def put(
        self, key: str, data: bytes, *, if_absent: bool = False, if_etag: str | None = None
    ) -> str:
        """Store an object whole and return its etag. A reader sees the old or the new one.

        ``if_absent`` and ``if_etag`` make it conditional: ``PreconditionFailed`` when they do not
        hold.
        """
        ...

    async def get(self, key: str) -> bytes:
        """The whole object, or ``ObjectMissing``."""
        ...

    async def get_range(self, key: str, offset: int, length: int) -> bytes:
        """``length`` bytes from ``offset``, shorter only at the end, or ``ObjectMissing``."""
        ...

    async def head(self, key: str) -> ObjectInfo:
        """Size and etag, or ``ObjectMissing``."""
        ...

    async def list(self, prefix: str) -> list[ObjectInfo]:
        """Every object whose key starts with ``prefix``, in key order."""
        ...

    async def delete(self, key: str) -> None:
        """Remove an object; harmless if it is missing."""
        ...


@dataclass(frozen=True, slots=True)
class BrokerUpdate:
    """A key's newest value, or ``None`` when it was deleted or its time to live ran out."""

    key: str
    value: bytes | None


class Leadership(Protocol):
    """A won election. Holding it is no proof of still leading: check ``fencing_token`` at the
    resource, or stop when :meth:`lost` returns."""

    @property
    def fencing_token(self) -> int:
        """Grows with each leadership of the same election."""
        ...

    async def lost(self) -> None:
        """Returns when the lease is known to be lost, or was resigned."""
        ...

    async def resign(self) -> None:
        """Give the leadership up so that another candidate wins at once; ends its keep-alive."""
        ...


class Broker(Protocol):
    """Publish/subscribe of small values with a time to live, and leader election (etcd's model).

    Raises ``BrokerError``. Updates of one key arrive in order; intermediate values may be skipped.
    """

    async def publish(self, key: str, value: bytes, *, ttl_s: float) -> None:
        """Set a key that disappears when ``ttl_s`` seconds pass without another publish.

        It may live up to a lease granularity (1 s or ttl_s, whichever is larger) longer.
        """
        ...

    async def get(self, prefix: str) -> dict[str, bytes]:
        """Every live key that starts with ``prefix``, with its value."""
        ...

    def subscribe(self, prefix: str) -> AbstractAsyncContextManager[AsyncIterator[BrokerUpdate]]:
        """Present values first, then every change, until the context is left.

        The iterator raises ``BrokerError`` when the stream breaks; subscribe again then.
        """
        ...

    async def campaign(self, election: str, candidate: str, *, ttl_s: float) -> Leadership:
        """Wait until this candidate leads; a cancelled campaign leaves nothing behind."""
        ...

    async def leader(self, election: str) -> str | None:
        """The candidate that leads now, or ``None``."""
        ...


class Clock(Protocol):
    """Wall time. It may jump and drift, per node; measure durations with ``loop.time()``."""

    def wall_us(self) -> int:
        """Microseconds since the Unix epoch, as this node believes."""
        ...


@dataclass(frozen=True)
class Ports:
    """Everything a node main gets of its world. ``entropy`` draws ids and jitter only.

    Disk, object store and broker may be used from every runtime of the node.
    """

    disk: Disk
    objects: ObjectStore
    broker: Broker
    clock: Clock
    entropy: random.Random
    runtimes: Runtimes = field(default_factory=LabelledRuntimes)
