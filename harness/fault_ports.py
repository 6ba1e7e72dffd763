"""What worlds offer for faults of disks, clocks and shared services, beside the network's verbs.

Implemented by ``sim/disk.py``, ``sim/clock.py``, ``sim/object_store.py``, ``sim/broker.py`` and,
for the real world, by ``real/fault_page.py`` and ``real/s3_proxy.py``. What a world lacks it
declares by its :class:`harness.backend.Ability`; the verb then raises ``UnsupportedFault``.
"""

from __future__ import annotations

import enum
import random
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from typing import Any, Protocol

Note = Callable[..., None]
"""Is told of every fault as it begins and ends: ``verb``, ``target`` and whatever describes it.

An end has the verb ``end`` and names in ``fault`` the verb that is over.
"""


class DiskFault(enum.Enum):
    """Faults that are armed and strike the next call they match."""

    EIO = "the call fails; a failed sync persists some of it and will never persist the rest"
    ENOSPC = "the call finds no space; a write may leave a prefix"
    DROPPED_SYNC = "a sync reports success and does nothing"
    MISDIRECTED_WRITE = "a write reports success and lands elsewhere in the file"
    SHORT_READ = "a read returns fewer bytes than the file holds"


class Loss(enum.Enum):
    """What a host crash does to everything that was not synced."""

    RANDOM = "each file and directory draws NOTHING, EVERYTHING, PREFIX or SUBSET"
    NOTHING = "all of it reached the platter in time"
    EVERYTHING = "none of it did"
    PREFIX = "what happened first survives, the last of it torn"
    SUBSET = "each change survives or not by itself"
    TORN = "all survives but the last write of each file, of which some sectors do"
    SIZES = "contents survive, but sizes are the last ones that were synced"
    NAMES = "contents survive, but no name that was not synced"


class Fate(enum.Enum):
    """What becomes of a request to a shared service."""

    SERVED = "it is served"
    REFUSED = "an error answer comes back and nothing happens"
    FAILED = "an error answer comes back and it may have happened"
    LOST_REQUEST = "it never arrives"
    LOST_REPLY = "it is served and the reply is lost"
    LATE = "it is served after its client stopped waiting"


@dataclass(frozen=True, slots=True)
class ServiceFaults:
    """Chance of each fault per request, 0 to 1.

    ``refused``: an error answer, nothing happened. ``lost_request``: a timeout, nothing happened.
    ``lost_reply``: a timeout although it happened. ``late``: a timeout, and it happens afterwards,
    up to ``late_s`` seconds later. ``failed``: an error answer although it may have happened.
    ``slow``: it takes up to ``slow_s`` longer. ``failing_list``: a listing gets an error answer.
    """

    refused: float = 0.0
    lost_request: float = 0.0
    lost_reply: float = 0.0
    late: float = 0.0
    failed: float = 0.0
    slow: float = 0.0
    failing_list: float = 0.0
    slow_s: float = 2.0
    late_s: float = 20.0

    def __post_init__(self) -> None:
        chances = (self.refused, self.lost_request, self.lost_reply, self.late, self.failed)
        rest = (self.slow, self.failing_list)
        if min(*chances, *rest) < 0 or max(sum(chances), *rest) > 1:
            raise ValueError(f"{self}: chances lie between 0 and 1, and exclude each other")

    def draw(self, generator: random.Random) -> Drawn:
        """What becomes of the next request."""
        slow_s = 0.0
        if self.slow and generator.random() < self.slow:
            slow_s = generator.random() * self.slow_s
        chance = generator.random()
        for fate, share in (
            (Fate.REFUSED, self.refused),
            (Fate.LOST_REQUEST, self.lost_request),
            (Fate.LOST_REPLY, self.lost_reply),
            (Fate.LATE, self.late),
            (Fate.FAILED, self.failed),
        ):
            if chance < share:
                late_s = generator.random() * self.late_s if fate is Fate.LATE else 0.0
                return Drawn(fate, slow_s, late_s)
            chance -= share
        return Drawn(Fate.SERVED, slow_s)

    def __str__(self) -> str:
        default = ServiceFaults()
        return " ".join(
            f"{each.name}={getattr(self, each.name)}"
            for each in fields(self)
            if getattr(self, each.name) != getattr(default, each.name)
        )


@dataclass(frozen=True, slots=True)
class Drawn:
    """A request's fate, and how many seconds later it is served: slow, or after its timeout."""

    fate: Fate
    slow_s: float = 0.0
    late_s: float = 0.0


NO_FAULTS = ServiceFaults()


@dataclass(frozen=True, slots=True)
class LinkFaults:
    """Chances on a link, 0 to 1: that a write arrives in two pieces, that a datagram is lost,
    doubled or overtaken."""

    fragmentation: float = 0.0
    datagram_loss: float = 0.0
    datagram_duplication: float = 0.0
    datagram_reordering: float = 0.0


CALM = LinkFaults()


class NodeDisk(Protocol):
    """The disk of one node's host."""

    @property
    def effects(self) -> Mapping[str, int]:
        """Counters of what the faults did."""
        ...

    def arm(self, fault: DiskFault, *, times: int = 1) -> None:
        """Let the next ``times`` calls that the fault can strike suffer it."""
        ...

    def disarm(self) -> None:
        """Forget every armed fault that has not struck."""
        ...

    def stall(self, *, syncs_only: bool = False) -> None:
        """Let no call return until :meth:`resume`, or no sync: writes then pile up in memory."""
        ...

    def resume(self) -> None:
        """End a stall."""
        ...

    def slow(self, by_s: float) -> None:
        """Let every call take so much longer, as a worn or an overloaded device does; 0 ends it."""
        ...

    def fill(self, free_bytes: int | None) -> None:
        """Leave so many bytes free; ``None`` frees the disk again."""
        ...

    def rot_some(self, part: str) -> str | None:
        """Flip one bit of some file whose path contains ``part``; its path, ``None`` if none."""
        ...

    def contents(self, part: str) -> Mapping[str, bytes]:
        """What the files hold now whose path contains ``part``, by path; for oracles.
        ``UnsupportedFault`` in a world where nodes go on writing meanwhile."""
        ...

    def snapshot(self) -> Any:
        """A copy of everything on it, to be given to :meth:`restore`."""
        ...

    def restore(self, image: Any) -> None:
        """Swap in a copy taken earlier; the node must not run."""
        ...


class NodeClock(Protocol):
    """The wall clock of one node's host."""

    @property
    def effects(self) -> Mapping[str, int]:
        """Counters of what the faults did."""
        ...

    def jump(self, by_us: int) -> None:
        """Set the clock forward or, with a negative number, back."""
        ...

    def drift(self, ppm: float) -> None:
        """Make the clock run fast (positive) or slow from now on; 0 makes it right."""
        ...


class Switch(Protocol):
    """A shared service that can be taken away and given back."""

    def outage(self) -> None:
        """Every operation fails or hangs until :meth:`restore`."""
        ...

    def restore(self) -> None:
        """End an outage."""
        ...

    def effects(self) -> Mapping[str, int]:
        """Counters of what the faults did: ``calls_failed``…"""
        ...


class ObjectStoreSwitch(Switch, Protocol):
    """Faults of S3."""

    def inject(self, faults: ServiceFaults) -> None:
        """Let requests of every node fail by chance; ``NO_FAULTS`` ends it."""
        ...

    def slow_deletes(self, by_s: float) -> None:
        """Let every delete take so many seconds longer; 0 ends it."""
        ...

    def freeze_listings(self) -> None:
        """Let each listing be answered as it was first answered since, until :meth:`thaw_listings`:
        the staleness of S3 before December 2020."""
        ...

    def thaw_listings(self) -> None:
        """Let listings tell what there is again."""
        ...

    def deny(self, node: str) -> None:
        """A node has wrong credentials, until :meth:`allow`."""
        ...

    def allow(self, node: str) -> None:
        """Undo :meth:`deny`."""
        ...

    def cut(self, node: str) -> None:
        """A black hole between a node and the service, until :meth:`heal`."""
        ...

    def heal(self, node: str) -> None:
        """Undo :meth:`cut`."""
        ...


class BrokerSwitch(Switch, Protocol):
    """Faults of the broker."""

    def inject(self, faults: ServiceFaults) -> None:
        """Let requests of every node fail by chance; ``NO_FAULTS`` ends it."""
        ...

    def cut(self, node: str) -> None:
        """A black hole between a node and the broker: its leases run out if it lasts."""
        ...

    def heal(self, node: str) -> None:
        """Undo :meth:`cut`."""
        ...

    def half_open(self, node: str) -> None:
        """The node's streams fall silent, requests work, until its keep-alive notices."""
        ...

    def lag_watches(self, by_s: float) -> None:
        """Let every change reach watchers so much later; 0 ends it."""
        ...

    def expire_leases(self, prefix: str) -> None:
        """Let the lease of every key with this prefix run out now."""
        ...
