"""The few primitives a world must provide; everything a scenario sees is built once, on these.

``sim/backend.py`` and ``real/backend.py`` implement them. Nodes are known by name; the same names
are host names on the network (see ARCHITECTURE.md, "Names, addresses, services"). Scenario code
runs on a loop where dialling ``("sk0", 5454)`` works, as host :data:`HARNESS`.
"""

from __future__ import annotations

import enum
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from harness.fault_ports import (
    BrokerSwitch,
    LinkFaults,
    Loss,
    NodeClock,
    NodeDisk,
    ObjectStoreSwitch,
)
from storage.events import Field
from storage.ports import Broker, ObjectStore

HARNESS = "harness"
"""Host name of the scenario itself."""


RETURNED_UNASKED = "its main returned although nobody asked the node to stop"
"""Why a node died that neither raised nor was killed; a world logs it at ERROR."""


class Ability(enum.Enum):
    """What a world can do that another may not; a scenario that needs it is skipped elsewhere."""

    POSTGRES = "run stock PostgreSQL"
    LOSE_UNSYNCED_DATA = "lose data that was not synced when a host dies"
    DATAGRAM_LOSS = "lose, duplicate and reorder datagrams"
    FRAGMENTATION = "break writes to a connection in two"
    DISK_FAULTS = "make calls of a disk fail, lie or hang"
    DISK_COPIES = "alter what is on a disk, or swap it with an older copy"
    CLOCK_FAULTS = "set the wall clock of a node wrong"
    OBJECT_STORE_FAULTS = "make single requests to S3 fail, get lost or take long"
    CREDENTIALS = "take a node's credentials for S3 away"
    SERVICE_LINKS = "cut one node off from S3 or the broker"
    BROKER_REQUESTS = "make single requests to the broker fail or get lost"
    BROKER_STREAMS = "let watches lag or fall silent"
    BROKER_LEASES = "let leases run out"
    VIRTUAL_TIME = "run faster than the wall clock"
    TAPS = "read what travels on connections"


@dataclass(frozen=True)
class NodeSpec:
    """A node to run: ``role`` is a key of ``storage.roles.ROLES`` (or ``"postgres"`` in real)."""

    name: str
    role: str
    options: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class LogLine:
    """One log record of a node; ``level`` is ``logging``'s name (``WARNING``)."""

    at_s: float
    node: str
    level: str
    text: str


@dataclass(frozen=True, slots=True)
class Event:
    """One typed event (see ARCHITECTURE.md, "Events"); ``at_s`` counts from the run's start."""

    at_s: float
    node: str
    kind: str
    fields: Mapping[str, Field]


Sink = Callable[[bytes], object]
Tap = Callable[[str, str], tuple[Sink, Sink]]
"""For a new connection, given the hosts of its client and its server: who reads what the client and
what the server sends, at the moment of sending and whatever becomes of it."""


class Network(Protocol):
    """Fault verbs on links. A direction is (source, target); ``both`` undoes and does two.

    Verbs work on new and on established connections. ``heal`` undoes every fault of the direction.
    """

    def cut(self, source: str, target: str, *, both: bool = True) -> None:
        """Black hole: bytes and connection attempts vanish, nobody is told."""
        ...

    def hold(self, source: str, target: str, *, both: bool = True) -> None:
        """Keep what is sent, in order, until :meth:`heal` releases it."""
        ...

    def delay(self, source: str, target: str, seconds: float, *, both: bool = True) -> None:
        """Add a latency to everything sent from now on."""
        ...

    def reset(self, source: str, target: str) -> None:
        """Reset the established connections between the two; new ones work."""
        ...

    def heal(self, source: str, target: str, *, both: bool = True) -> None:
        """Remove the faults of a link; held bytes are delivered, cut connections stay silent."""
        ...

    def disturb(self, source: str, target: str, chances: LinkFaults, *, both: bool = True) -> None:
        """Break writes, or lose, double and reorder datagrams, by chance; ``CALM`` ends it."""
        ...

    def tap(self, port: int, tap: Tap) -> None:
        """Have every later connection to a port read; readers must not act. ``UnsupportedFault``
        in a world without :attr:`Ability.TAPS`."""
        ...

    def effects(self) -> Mapping[str, int]:
        """Counters of what faults did: ``bytes_cut``, ``bytes_held``, ``connections_reset``…"""
        ...


class Backend(Protocol):
    """A world's primitives. Each verb raises ``HarnessError`` for a node it does not know."""

    @property
    def world(self) -> str:
        """``sim`` or ``real``."""
        ...

    @property
    def abilities(self) -> frozenset[Ability]:
        """What this world can do beyond the least."""
        ...

    @property
    def network(self) -> Network:
        """Fault verbs on links."""
        ...

    @property
    def object_store(self) -> ObjectStoreSwitch:
        """Faults of S3."""
        ...

    @property
    def broker(self) -> BrokerSwitch:
        """Faults of the broker."""
        ...

    @property
    def clock_error_s(self) -> float:
        """How much later than an effect its cause may be dated, between nodes; 0 in sim."""
        ...

    def now_s(self) -> float:
        """Seconds since the run began: virtual in sim, monotonic in real."""
        ...

    async def spawn(self, spec: NodeSpec) -> None:
        """Start a node's next incarnation on its disk (empty the first time); not yet ready."""
        ...

    async def wait_ready(self, name: str, *, within_s: float) -> None:
        """Return once the node's main set ``ready``; ``NodeDied`` if it ended instead."""
        ...

    async def stop(self, name: str, *, within_s: float) -> None:
        """Ask the node to end (SIGTERM); ``NotLive`` if it still runs after ``within_s``."""
        ...

    async def kill(self, name: str, *, host: bool = False, loss: Loss = Loss.RANDOM) -> None:
        """Crash the process now. With ``host`` the machine dies: unsynced data goes as ``loss``
        says (where the world can), and peers see silence instead of a reset."""
        ...

    async def pause(self, name: str) -> None:
        """Freeze the process (SIGSTOP): its connections stay open and say nothing."""
        ...

    async def resume(self, name: str) -> None:
        """Undo :meth:`pause`."""
        ...

    async def wipe(self, name: str) -> None:
        """Erase the disk of a node that is not running."""
        ...

    def running(self, name: str) -> bool:
        """Whether an incarnation of the node runs now (paused counts as running)."""
        ...

    def died(self, name: str) -> str | None:
        """Why the node's last incarnation ended by itself, or ``None`` if it did not."""
        ...

    def disk(self, name: str) -> NodeDisk:
        """Faults of a node's disk."""
        ...

    def clock(self, name: str) -> NodeClock:
        """Faults of a node's wall clock."""
        ...

    def host_port(self, name: str, port: int) -> tuple[str, int]:
        """An address of a service for a stock client; in sim just the names."""
        ...

    def admin_objects(self) -> ObjectStore:
        """The bucket itself, past every fault, for oracles."""
        ...

    def admin_broker(self) -> Broker:
        """The broker itself, past every fault, for oracles."""
        ...

    def effects(self) -> Mapping[str, int]:
        """Counters of what every fault did so far, as ``"network.bytes_cut"``, and with the node
        where it is one node's, as ``"disk/sk0.bytes_lost"``."""
        ...

    def note(self, kind: str, fields: Mapping[str, Field]) -> None:
        """Put an event of the harness itself among the run's events."""
        ...

    def follow(self, listener: Callable[[Event], None]) -> Callable[[], None]:
        """Tell ``listener`` of every event of a node from now on, until the returned call.

        At once in sim, where it must not act but only wake somebody, and of what befalls nodes and
        of faults as well; late by up to 0.5 s in real.
        """
        ...

    def logs(self) -> Sequence[LogLine]:
        """Every log record of every node so far, in order of time."""
        ...

    def events(self) -> Sequence[Event]:
        """Every event so far, deliveries among them, in order of time."""
        ...

    def observations(self) -> Sequence[Event]:
        """Every event so far but deliveries, in order of time: what oracles judge."""
        ...

    async def close(self) -> None:
        """End every node and service and remove what the run left; never raises half way."""
        ...
