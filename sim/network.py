"""The simulated network: hosts, links between them, and the verbs that break and mend links.

Implements :class:`harness.backend.Network`. Faults are per direction and act on connections and
connection attempts alike; a connection that a cut caught stays silent after the cut is healed.
"""

from __future__ import annotations

import errno
from collections.abc import Iterator, Mapping
from dataclasses import asdict, fields, replace
from typing import TYPE_CHECKING, Any

from harness.backend import HARNESS, Tap
from harness.fault_ports import CALM, LinkFaults
from sim.errors import SimulationError
from sim.host import Host
from sim.latency import LOOPBACK
from sim.link import Effects, Link, LinkOptions
from sim.pipe import Pipe, TappedPipe

if TYPE_CHECKING:
    from sim.loop import SimLoop
    from sim.server import Listener
    from sim.transport import Address, StreamTransport


class SimNetwork:
    """Every host and link of a world; ``options`` are those of links not configured."""

    def __init__(self, loop: SimLoop) -> None:
        self._loop = loop
        self._hosts: dict[str, Host] = {}
        self._links: dict[tuple[str, str], Link] = {}
        self._connections: dict[StreamTransport, None] = {}
        self._effects = Effects()
        self._disturbed: dict[tuple[str, str], None] = {}
        self._broken = 0
        self._weather = 0
        self.options = LinkOptions()
        self._taps: dict[int, Tap] = {}

    # Topology.

    def host(self, name: str) -> Host:
        """The machine called ``name``; it exists as soon as somebody speaks of it."""
        try:
            return self._hosts[name]
        except KeyError:
            return self._hosts.setdefault(name, Host(name))

    def link(self, source: str, target: str) -> Link:
        """The direction ``source`` → ``target``."""
        try:
            return self._links[source, target]
        except KeyError:
            return self._make_link(source, target)

    def _make_link(self, source: str, target: str) -> Link:
        options = LinkOptions(latency=LOOPBACK) if source == target else self.options
        entropy = self._loop.seeds.child(f"link/{source}>{target}")
        ends = (source, self.host(target))
        link = Link(self._loop.environment, ends, options, entropy, self._effects)
        self._links[source, target] = link
        return link

    def configure(self, source: str, target: str, *, both: bool = True, **changes: Any) -> None:
        """Replace fields of a link's :class:`LinkOptions`, e.g. ``latency=Constant(0.01)``."""
        for link in self._directions(source, target, both):
            link.configure(replace(link.options, **changes))

    # Fault verbs: harness.backend.Network.

    def cut(self, source: str, target: str, *, both: bool = True) -> None:
        """Black hole: bytes and connection attempts vanish, nobody is told."""
        self._fault("cut", source, target, both=both)
        for link in self._directions(source, target, both):
            link.set_cut()
            for transport in self._connections:
                if transport.outgoing.link is link and transport.outgoing.sever():
                    self._effects.connections_cut += 1

    def hold(self, source: str, target: str, *, both: bool = True) -> None:
        """Keep what is sent, in order, until :meth:`heal` releases it."""
        self._fault("hold", source, target, both=both)
        for link in self._directions(source, target, both):
            link.set_hold()

    def delay(self, source: str, target: str, seconds: float, *, both: bool = True) -> None:
        """Add a latency to everything sent from now on."""
        self._fault("delay", source, target, both=both)
        for link in self._directions(source, target, both):
            link.set_delay(seconds)

    def reset(self, source: str, target: str) -> None:
        """Reset the established connections between the two; new ones work."""
        self._check_ends(source, target)
        self._fault("reset", source, target, both=True)
        pair = {source, target}
        for transport in list(self._connections):
            link = transport.outgoing.link
            if {link.source, link.target} == pair:
                transport.reset()
                self._effects.connections_reset += link.source == source

    def disturb(self, source: str, target: str, chances: LinkFaults, *, both: bool = True) -> None:
        """Break writes, or lose, double and reorder datagrams, by chance; ``CALM`` ends it."""
        self._fault("calm" if chances == CALM else "disturb", source, target, both=both)
        self._settle_broken()
        pairs = [(link.source, link.target) for link in self._directions(source, target, both)]
        for pair in pairs:
            self._disturbed.pop(pair, None)
            if chances.fragmentation:
                self._disturbed[pair] = None
        for link in self._directions(source, target, both):
            usual = self.options if chances == CALM else chances
            changes = {each.name: getattr(usual, each.name) for each in fields(LinkFaults)}
            link.configure(replace(link.options, **changes))

    def _settle_broken(self) -> None:
        """Writes that broke while a fault wanted it are its effect; all others are weather."""
        if self._disturbed:
            self._broken += self._effects.writes_fragmented - self._weather
        self._weather = self._effects.writes_fragmented

    def heal(self, source: str, target: str, *, both: bool = True) -> None:
        """Remove the faults of a link; held bytes are delivered, cut connections stay silent."""
        self._fault("heal", source, target, both=both)
        for link in self._directions(source, target, both):
            link.heal(self._loop.environment.now)

    def effects(self) -> Mapping[str, int]:
        """Counters of what faults did so far; broken writes are weather, not a fault."""
        counters = asdict(self._effects)
        del counters["writes_fragmented"]
        self._settle_broken()
        counters["writes_broken"] = self._broken
        return counters

    @property
    def writes_fragmented(self) -> int:
        """How many writes arrived in two pieces."""
        return self._effects.writes_fragmented

    def _check_ends(self, source: str, target: str) -> None:
        if source == target:
            raise SimulationError(f"a link joins two hosts, not {source!r} with itself")

    def _directions(self, source: str, target: str, both: bool) -> Iterator[Link]:
        self._check_ends(source, target)
        yield self.link(source, target)
        if both:
            yield self.link(target, source)

    def _fault(self, verb: str, source: str, target: str, *, both: bool) -> None:
        self._loop.observe(
            HARNESS, "fault", {"verb": verb, "source": source, "target": target, "both": both}
        )

    # What the loop's connections and listeners call.

    def listen(self, listener: Listener) -> None:
        """Bind a port; ``OSError`` (EADDRINUSE) if it is taken."""
        host, port = listener.address
        taken = self.host(host).listeners
        if port in taken:
            raise OSError(
                errno.EADDRINUSE,
                f"address already in use: {taken[port].owner.name} has {host}:{port}",
            )
        taken[port] = listener

    def unlisten(self, listener: Listener) -> None:
        """Free a port if it is still this listener's."""
        host, port = listener.address
        taken = self.host(host).listeners
        if taken.get(port) is listener:
            del taken[port]

    def tap(self, port: int, tap: Tap) -> None:
        """Have every later connection to a port read; readers must not act."""
        assert port not in self._taps, f"port {port} has a tap"
        self._taps[port] = tap

    def pipes(self, client: Address, server: Address) -> tuple[Pipe, Pipe]:
        """Both directions of a new connection, the client's first."""
        forth, back = self.link(client[0], server[0]), self.link(server[0], client[0])
        tap = self._taps.get(server[1])
        if tap is None:
            return Pipe(self._loop, forth), Pipe(self._loop, back)
        from_client, from_server = tap(client[0], server[0])
        return TappedPipe(self._loop, forth, from_client), TappedPipe(self._loop, back, from_server)

    def established(self, *ends: StreamTransport) -> None:
        """Remember the ends of a new connection, for faults."""
        for end in ends:
            self._connections[end] = None

    def forget(self, end: StreamTransport) -> None:
        """An end is closed; no fault concerns it any more."""
        self._connections.pop(end, None)

    def shut_down(self) -> None:
        """The program is over: close what it left open, so that its protocols hear of the end."""
        for end in list(self._connections):
            end.abort()

    def __repr__(self) -> str:
        return f"<SimNetwork of {', '.join(self._hosts) or 'no hosts'}>"
