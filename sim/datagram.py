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


class Datagram:
    """One copy on its way; an alarm that rings at the target's host."""

    __slots__ = ("_data", "_link", "_loop", "_source", "_target")

    _cancelled = False

    def __init__(
        self, loop: SimLoop, link: Link, ends: tuple[Address, Address], data: bytes
    ) -> None:
        self._loop = loop
        self._link = link
        self._source, self._target = ends
        self._data = data

    def ring(self) -> None:
        """Arrive: at the endpoint that has the port now, or nowhere."""
        host = self._loop.network.host(self._target[0])
        endpoint = host.datagram_ports.get(self._target[1])
        if endpoint is not None:
            endpoint.arrive(self._link, self._data, self._source)

    def launch(self, now_s: float) -> None:
        """Take the way across the link, with every fault it has."""
        link, size = self._link, len(self._data)
        if link.cut:
            link.effects.bytes_cut += size
        elif not link.holds(size, self.launch):
            arrival_s = link.arrival_s(now_s, size) + self._lateness_s()
            self._loop.environment.ring_at(arrival_s, self)

    def _lateness_s(self) -> float:
        link = self._link
        probability = link.options.datagram_reordering
        if probability == 0.0 or link.entropy.random() >= probability:
            return 0.0
        link.effects.datagrams_reordered += 1
        return link.latency() * _REORDERED_LATENCIES * link.entropy.random()


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
        self._context: Context = copy_context()
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
        options = link.options
        copies = 1
        if options.datagram_loss and link.draw() < options.datagram_loss:
            link.effects.datagrams_lost += 1
            return
        if options.datagram_duplication and link.draw() < options.datagram_duplication:
            link.effects.datagrams_duplicated += 1
            copies = 2
        now = self._loop.environment._now
        for _ in range(copies):
            datagram = Datagram(self._loop, link, (self._address, target), data)
            if link.plain and not options.datagram_reordering:
                self._loop.environment.ring_at(now + link.latency(), datagram)
            else:
                datagram.launch(now)

    def arrive(self, link: Link, data: bytes, source: Address) -> None:
        """A datagram is here: receive it as a ready callback of the node."""
        self._loop.push(Delivery(self._receive, (link, data, source), self._context))

    def _receive(self, link: Link, data: bytes, source: Address) -> None:
        if self._closed or (self._peer is not None and source != self._peer):
            return
        self._append(
            (
                self._loop.environment._now,
                MESSAGE,
                link.source,
                link.target,
                len(data),
                crc32c(data),
            )
        )
        self._protocol.datagram_received(data, source)

    def close(self) -> None:
        """Release the port; ``connection_lost`` follows."""
        if not self._closed:
            self._release()
            self._owner.close_endpoint(self._endpoint)
            self._loop.push(SimHandle(self._protocol.connection_lost, (None,), self._context))

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
