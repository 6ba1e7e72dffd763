"""Listening sockets and asyncio's ``Server`` object over them."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Callable
from contextvars import Context, copy_context
from typing import TYPE_CHECKING, Any

from sim.node import Incarnation
from sim.transport import Address, StreamTransport

if TYPE_CHECKING:
    from sim.loop import SimLoop

ProtocolFactory = Callable[[], asyncio.BaseProtocol]


class ListeningSocket:
    """What ``Server.sockets`` shows of a simulated socket."""

    __slots__ = ("_address",)

    def __init__(self, address: Address) -> None:
        self._address = address

    def getsockname(self) -> Address:
        """Host name and port."""
        return self._address


class Listener:
    """A port that accepts connections, as ``owner``, into protocols of a factory."""

    def __init__(self, loop: SimLoop, factory: ProtocolFactory, address: Address) -> None:
        self._loop = loop
        self._factory = factory
        self.address = address
        self.owner: Incarnation = loop.nodes.owner()
        self.context: Context = copy_context()
        self.open = False
        self.connections: dict[StreamTransport, None] = {}
        self._waiters: list[asyncio.Future[None]] = []
        self._endpoint = self.owner.open_endpoint(self)

    def accept(self, transport: StreamTransport) -> None:
        """A handshake is complete; runs as a ready callback in a copy of the listener's context."""
        if not self.open:
            transport.abort()
            return
        self.connections[transport] = None
        try:
            protocol = self._factory()
            transport.set_protocol(protocol)
            protocol.connection_made(transport)
        except Exception as error:
            transport.protocol_failed(error)

    def connection_ended(self, transport: StreamTransport) -> None:
        """Forget a connection; whoever waits for the last one to end goes on."""
        self.connections.pop(transport, None)
        if not self.connections:
            waiters, self._waiters = self._waiters, []
            for waiter in waiters:
                if not waiter.done():
                    waiter.set_result(None)

    def listen(self) -> None:
        """Accept from now on."""
        if not self.open:
            self._loop.network.listen(self)
            self.open = True

    def close(self) -> None:
        """Refuse from now on; established connections stay."""
        if self.open:
            self.open = False
            self._loop.network.unlisten(self)
            self.owner.close_endpoint(self._endpoint)

    def process_died(self, *, host_died: bool) -> None:
        """The port closes with its process."""
        self.open = False
        self._loop.network.unlisten(self)

    async def drained(self) -> None:
        """Return once no connection is left."""
        if self.connections:
            waiter = self._loop.create_future()
            self._waiters.append(waiter)
            await waiter


class SimServer(asyncio.AbstractServer):
    """What ``create_server`` returns; closes its listeners at once."""

    def __init__(self, loop: SimLoop, listeners: list[Listener]) -> None:
        self._loop = loop
        self._listeners = listeners
        self._closed = False
        self._forever: asyncio.Future[None] | None = None

    @property
    def sockets(self) -> tuple[Any, ...]:
        """Objects with ``getsockname()``, one per address; empty once closed."""
        return () if self._closed else tuple(ListeningSocket(x.address) for x in self._listeners)

    def get_loop(self) -> asyncio.AbstractEventLoop:
        """The loop that serves."""
        return self._loop

    def is_serving(self) -> bool:
        """Whether connections are accepted."""
        return not self._closed and all(listener.open for listener in self._listeners)

    async def start_serving(self) -> None:
        """Begin to accept; for servers made with ``start_serving=False``."""
        for listener in self._listeners:
            listener.listen()

    async def serve_forever(self) -> None:
        """Accept until cancelled, then close, as asyncio does."""
        if self._forever is not None:
            raise RuntimeError(f"server {self!r} is already being awaited on serve_forever()")
        if self._closed:
            raise RuntimeError(f"server {self!r} is closed")
        await self.start_serving()
        self._forever = self._loop.create_future()
        try:
            await self._forever
        finally:
            self.close()
            self._forever = None

    def close(self) -> None:
        """Stop listening at once; established connections stay open."""
        self._closed = True
        for listener in self._listeners:
            listener.close()
        if self._forever is not None and not self._forever.done():
            self._forever.cancel()

    async def wait_closed(self) -> None:
        """As this Python's asyncio: it waits for the connections from 3.12 on."""
        if sys.version_info >= (3, 12):
            for listener in self._listeners:
                await listener.drained()

    def close_clients(self) -> None:
        """Close every accepted connection (asyncio 3.13)."""
        for listener in self._listeners:
            for transport in list(listener.connections):
                transport.close()

    def abort_clients(self) -> None:
        """Reset every accepted connection (asyncio 3.13)."""
        for listener in self._listeners:
            for transport in list(listener.connections):
                transport.abort()

    def __repr__(self) -> str:
        return f"<SimServer {[listener.address for listener in self._listeners]}>"
