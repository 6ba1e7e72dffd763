"""Datagrams: each may be lost, doubled or late, and none knows of any other."""

from __future__ import annotations

import asyncio
import errno
from collections.abc import Callable
from contextvars import Context, copy_context
from typing import TYPE_CHECKING, Any

from google_crc32c import value as crc32c

from sim.handles import Delivery, SimHandle
from sim.link import Link
from sim.node import Incarnation
from sim.trace import MESSAGE
from sim.transport import Address

if TYPE_CHECKING:
    from sim.loop import SimLoop

_REORDERED_LATENCIES = 10.0
_SIZE_MAX = 65507
"""Bytes of payload a UDP datagram can carry over IPv4."""


class Datagram(Delivery):
    """One copy on its way: an alarm that becomes the ready callback of the endpoint it meets."""

    __slots__ = ("_loop", "data", "link", "sent_at", "source", "target")

    _cancelled = False

    def __init__(
        self, loop: SimLoop, link: Link, source: Address, target: Address, data: bytes
    ) -> None:
        self._loop: SimLoop = loop
        self.link = link
        self.source = source
        self.target = target
        self.data = data
        self.sent_at = loop.environment._now

    def ring(self) -> None:
        """Arrive: at the endpoint that has the port now, or nowhere."""
        endpoint = self.link.host.datagram_ports.get(self.target[1])
        if endpoint is not None:
            self._callback = endpoint.receive
            self._args = (self,)
            self._context = endpoint.context
            self._loop.push(self)

    def launch(self) -> None:
        """Take the way across the link."""
        environment, link = self._loop.environment, self.link
        if link.plain and not link.options.datagram_reordering:
            environment.ring_at(environment._now + link.latency(), self)
        else:
            self._struggle(environment._now)

    def _struggle(self, now_s: float) -> None:
        """Take a way that may lose, keep, delay or reorder."""
        link, size = self.link, len(self.data)
        if link.cut:
            link.effects.bytes_cut += size
        elif not link.holds(size, self._struggle):
            arrival_s = link.arrival_s(now_s, size) + self._lateness_s()
            self._loop.environment.ring_at(arrival_s, self)

    def _lateness_s(self) -> float:
        link = self.link
        probability = link.options.datagram_reordering
        if probability == 0.0 or link.draw() >= probability:
            return 0.0
        link.effects.datagrams_reordered += 1
        return link.latency() * _REORDERED_LATENCIES * link.draw()


class DatagramTransport(asyncio.DatagramTransport):
    """A bound datagram port of a node."""

    def __init__(
        self, loop: SimLoop, protocol: asyncio.DatagramProtocol, names: tuple[Address, Any]
    ) -> None:
        super().__init__({"sockname": names[0], "peername": names[1]})
        self._loop = loop
        self._protocol: Any = protocol
        self._address: Address = names[0]
        self._peer: Address | None = names[1]
        self._owner: Incarnation = loop.nodes.owner()
        self.context: Context = copy_context()
        self._links: dict[str, Link] = {}
        self._closed = False
        self._append: Callable[[tuple[Any, ...]], None] = loop.trace.append
        ports = loop.network.host(self._address[0]).datagram_ports
        if self._address[1] in ports:
            raise OSError(errno.EADDRINUSE, f"datagram port {self._address} is in use")
        ports[self._address[1]] = self
        self._endpoint = self._owner.open_endpoint(self)

    def sendto(self, data: Any, addr: Any = None) -> None:
        """Send one datagram to ``addr``, or to the remote address given at creation."""
        target = addr or self._peer
        if type(data) is not bytes:
            data = bytes(data)
        if target is None or (self._peer is not None and target != self._peer):
            raise ValueError(f"address {addr!r} must be given, or be the connected {self._peer!r}")
        if len(data) > _SIZE_MAX:
            raise OSError(errno.EMSGSIZE, f"a datagram of {len(data)} bytes exceeds {_SIZE_MAX}")
        if self._closed:
            return
        link = self._links.get(target[0])
        if link is None:
            link = self._links[target[0]] = self._loop.network.link(self._address[0], target[0])
        if link.doubled_below and (luck := link.draw()) < link.doubled_below:
            if luck < link.lost_below:
                link.effects.datagrams_lost += 1
                return
            link.effects.datagrams_duplicated += 1
            Datagram(self._loop, link, self._address, target, data).launch()
        Datagram(self._loop, link, self._address, target, data).launch()

    def receive(self, datagram: Datagram) -> None:
        """A datagram is here; runs as a ready callback of the node."""
        link, data, source = datagram.link, datagram.data, datagram.source
        if self._closed or (self._peer is not None and source != self._peer):
            return
        now, sent_at = self._loop.environment._now, datagram.sent_at
        self._append((now, MESSAGE, link.source, link.target, len(data), crc32c(data), sent_at))
        self._protocol.datagram_received(data, source)

    def close(self) -> None:
        """Release the port; ``connection_lost`` follows."""
        if not self._closed:
            self._release()
            self._owner.close_endpoint(self._endpoint)
            self._loop.push(SimHandle(self._protocol.connection_lost, (None,), self.context))

    def abort(self) -> None:
        """The same as :meth:`close`: nothing is buffered."""
        self.close()

    def is_closing(self) -> bool:
        """Whether it is closed."""
        return self._closed

    def set_protocol(self, protocol: asyncio.BaseProtocol) -> None:
        """Deliver to ``protocol`` from now on."""
        self._protocol = protocol

    def get_protocol(self) -> asyncio.BaseProtocol:
        """The protocol that receives."""
        return self._protocol  # type: ignore[no-any-return]

    def process_died(self, *, host_died: bool) -> None:
        """The port is free again, and nothing arrives any more."""
        self._release()

    def _release(self) -> None:
        self._closed = True
        ports = self._loop.network.host(self._address[0]).datagram_ports
        if ports.get(self._address[1]) is self:
            del ports[self._address[1]]
