"""What the contract suite may ask of a world: ports of named nodes, and the faults both can make.

``sim_lab.py`` and ``real_lab.py`` implement it. Every verb works at once, on what is open and on
what comes later, until it is undone.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from contextlib import AbstractContextManager
from typing import Protocol

from storage.ports import Broker, Clock, Disk, ObjectStore

PortTest = Callable[[], Awaitable[None]]


class Lab(Protocol):
    """One world with a disk, a bucket and a broker, for one test."""

    world: str

    def run(self, test: PortTest) -> None:
        """Run a test to its end and take the world down; raises what the test raises."""
        ...

    def disk(self, node: str = "a") -> Disk:
        """A new incarnation of a node opens its disk; an older one of the same node is dead."""
        ...

    def full_disk(self, free_bytes: int) -> AbstractContextManager[None]:
        """No file of any disk grows beyond ``free_bytes`` inside; disks are empty before."""
        ...

    def objects(self, node: str = "a", *, credentials: bool = True) -> ObjectStore:
        """A node's client of the shared bucket; without valid ``credentials`` on demand."""
        ...

    async def objects_outage(self) -> None:
        """The object store is gone."""
        ...

    async def objects_restore(self) -> None:
        """Undo :meth:`objects_outage` and :meth:`lose_replies`."""
        ...

    async def lose_replies(self) -> None:
        """The object store does what it is asked and nobody hears of it."""
        ...

    def broker(self, node: str = "a") -> Broker:
        """A node's client of the shared broker."""
        ...

    async def crash_broker_client(self, node: str) -> None:
        """The node's process dies: its client does nothing more, not even say goodbye."""
        ...

    async def broker_outage(self) -> None:
        """The broker is gone."""
        ...

    async def broker_restore(self) -> None:
        """Undo :meth:`broker_outage`."""
        ...

    async def cut_broker(self, node: str) -> None:
        """Nothing passes between a node and the broker, and neither is told."""
        ...

    async def heal_broker(self, node: str) -> None:
        """Undo :meth:`cut_broker`."""
        ...

    def clock(self) -> Clock:
        """A node's wall clock."""
        ...
