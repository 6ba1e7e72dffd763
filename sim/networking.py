"""The loop's networking API: names, connections and servers of the simulated network."""

from __future__ import annotations

import asyncio
import errno
import socket
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, cast

from harness.backend import HARNESS
from sim.datagram import DatagramTransport
from sim.dial import Dial
from sim.node import current_node
from sim.server import Listener, ProtocolFactory, SimServer
from sim.transport import Address
from sim.unsupported import UnsupportedApis, refuse

if TYPE_CHECKING:
    from sim.loop import SimLoop
    from sim.network import SimNetwork
    from sim.node import Nodes

_OWN_NAMES = frozenset({"", "0.0.0.0", "::", "localhost", "127.0.0.1", "::1"})


class Networking(UnsupportedApis):
    """The part of the loop that opens sockets."""

    network: SimNetwork
    nodes: Nodes

    @property
    def _whole(self) -> SimLoop:
        """This loop, all parts of it."""
        return cast("SimLoop", self)

    async def create_connection(  # type: ignore[override]  # noqa: PLR0913
        self,
        protocol_factory: ProtocolFactory,
        host: str | None = None,
        port: int | None = None,
        *,
        ssl: Any = None,
        sock: Any = None,
        local_addr: Address | None = None,
        **options: Any,
    ) -> tuple[asyncio.Transport, asyncio.BaseProtocol]:
        """Connect to ``(host, port)``; resolver and TLS tuning is accepted and has no effect."""
        self.refuse_tls(ssl, sock)
        if host is None or port is None:
            raise ValueError("create_connection needs a host name and a port")
        own = current_node()
        target = (own if host in _OWN_NAMES else host, _port_number(port))
        source_port = local_addr[1] if local_addr else self.network.host(own).free_port()
        return await Dial(self._whole, (own, source_port), target).connect(protocol_factory)

    async def create_server(  # type: ignore[override]  # noqa: PLR0913
        self,
        protocol_factory: ProtocolFactory,
        host: str | Sequence[str] | None = None,
        port: int | None = None,
        *,
        ssl: Any = None,
        sock: Any = None,
        start_serving: bool = True,
        **options: Any,
    ) -> SimServer:
        """Listen on a port of this node; ``OSError`` if it is taken or the name is another's."""
        self.refuse_tls(ssl, sock)
        names = [host or ""] if host is None or isinstance(host, str) else list(host)
        listeners = []
        for name in dict.fromkeys(self._bind_name(each) for each in names):
            number = _port_number(port or 0) or self.network.host(name).free_port()
            listeners.append(Listener(self._whole, protocol_factory, (name, number)))
        server = SimServer(self._whole, listeners)
        if start_serving:
            await server.start_serving()
        return server

    async def create_datagram_endpoint(  # type: ignore[override]
        self,
        protocol_factory: Callable[[], asyncio.DatagramProtocol],
        local_addr: Address | None = None,
        remote_addr: Address | None = None,
        *,
        sock: Any = None,
        **options: Any,
    ) -> tuple[asyncio.DatagramTransport, asyncio.DatagramProtocol]:
        """Bind a datagram port; with ``remote_addr`` it speaks with that peer alone."""
        self.refuse_tls(None, sock)
        name, port = local_addr or ("", 0)
        host = self._bind_name(name)
        number = _port_number(port) or self.network.host(host).free_port()
        protocol = protocol_factory()
        transport = DatagramTransport(self._whole, protocol, ((host, number), remote_addr))
        protocol.connection_made(transport)
        return transport, protocol

    def _bind_name(self, name: str) -> str:
        """The host a listener binds; the scenario may stand in for hosts that are no nodes."""
        own = current_node()
        if name in _OWN_NAMES or name == own:
            return own
        if own == HARNESS and self.nodes.latest(name) is None:
            return name
        raise OSError(errno.EADDRNOTAVAIL, f"node {own!r} cannot listen as {name!r}")

    async def getaddrinfo(  # type: ignore[override]
        self, host: str | None, port: int | str | None, *, type: int = 0, **options: Any
    ) -> list[tuple[int, int, int, str, Address]]:
        """One address: the host's own name; every name resolves, whether or not it listens."""
        name = current_node() if host is None or host in _OWN_NAMES else host
        address = (name, _port_number(port or 0))
        kind = type or socket.SOCK_STREAM
        return [(socket.AF_INET, kind, 0, "", address)]

    async def getnameinfo(self, sockaddr: Any, flags: int = 0) -> tuple[str, str]:
        """A simulated address is its own name."""
        return str(sockaddr[0]), str(sockaddr[1])

    def refuse(self, name: str, alternative: str) -> None:
        """Raise ``UnsupportedApi``."""
        refuse(name, alternative)


def _port_number(port: int | str) -> int:
    number = int(port)
    if not 0 <= number < 65536:
        raise OverflowError(f"port {port} is outside 0 … 65535")
    return number
