"""The event loop on which node code runs in OS processes: host names of the cluster, real sockets.

``create_server(f, "sk0", 5454)`` listens on a free loopback port and registers it with the hub;
``create_connection(f, "sk0", 5454)`` goes through the hub, which knows who dials whom. A cluster
host is a name without a dot; IP addresses, ``localhost`` and dotted names pass through untouched.
"""

from __future__ import annotations

import asyncio
import errno
import ipaddress
import json
import socket
from typing import Any

from real import preface

LOOPBACK = "127.0.0.1"


def is_cluster_host(host: object) -> bool:
    """Whether a host name belongs to the cluster rather than to the machine's own network."""
    if not isinstance(host, str) or host in ("", "localhost") or "." in host or ":" in host:
        return False
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return True
    return False


class NamedHostLoop(asyncio.SelectorEventLoop):
    """A selector loop that is one host of a cluster from :meth:`join` on."""

    def __init__(self) -> None:
        super().__init__()
        self.host = ""
        self._hub: tuple[str, int] | None = None
        self._incarnation = 0
        self._session: socket.socket | None = None
        self._session_lock = asyncio.Lock()
        self._named_ports: dict[int, int] = {}

    def join(self, hub: tuple[str, int], host: str, incarnation: int = 0) -> None:
        """Become ``host`` of the cluster whose hub listens at ``hub``."""
        assert is_cluster_host(host), f"{host!r} cannot be a host of a cluster"
        self.leave()
        self._hub, self.host, self._incarnation = hub, host, incarnation

    def leave(self) -> None:
        """Belong to no cluster any more; names registered by this loop are gone."""
        if self._session is not None:
            self._session.close()
        self._session, self._hub, self.host = None, None, ""
        self._named_ports.clear()

    def close(self) -> None:
        """Leave the cluster, then close the loop."""
        self.leave()
        super().close()

    async def create_server(
        self, protocol_factory: Any, host: Any = None, port: Any = None, **options: Any
    ) -> asyncio.Server:
        """As asyncio's; a cluster host must be this loop's own (``EADDRNOTAVAIL``)."""
        if isinstance(host, (list, tuple)) and len(host) == 1:
            host = host[0]
        if not is_cluster_host(host):
            return await super().create_server(protocol_factory, host, port, **options)
        if host != self.host:
            raise OSError(errno.EADDRNOTAVAIL, f"{host!r} is not this host, {self.host!r}")
        for name in ("family", "flags", "sock", "reuse_address", "reuse_port"):
            options.pop(name, None)
        server = await super().create_server(protocol_factory, LOOPBACK, 0, **options)
        actual = server.sockets[0].getsockname()[1]
        try:
            await self._register(int(port), actual)
        except BaseException:
            server.close()
            raise
        return server

    async def create_connection(
        self, protocol_factory: Any, host: Any = None, port: Any = None, **options: Any
    ) -> tuple[asyncio.Transport, Any]:
        """As asyncio's; ``ConnectionRefusedError`` when nobody listens on the cluster host."""
        if not is_cluster_host(host):
            return await super().create_connection(protocol_factory, host, port, **options)
        for name in ("family", "proto", "flags", "local_addr", "happy_eyeballs_delay"):
            options.pop(name, None)
        options.pop("interleave", None)
        sock = await self._dial(host, int(port))
        try:
            return await super().create_connection(protocol_factory, sock=sock, **options)
        except BaseException:
            sock.close()
            raise

    def _stop_serving(self, sock: socket.socket) -> None:
        """Called by ``asyncio.Server.close`` for each of its sockets: take the name away too."""
        named = self._named_ports.pop(sock.getsockname()[1], None) if sock.fileno() >= 0 else None
        if named is not None and self._session is not None:
            self._session.send(preface.encode(preface.Unlisten(named)))
        super()._stop_serving(sock)  # type: ignore[misc]

    async def _dial(self, host: str, port: int) -> socket.socket:
        sock = await self._open(preface.Connect(self.host, host, port))
        try:
            answer = await self.sock_recv(sock, 1)
            if answer == preface.ACCEPTED:
                return sock
            reason = await self.sock_recv(sock, preface.LINE_BYTES_MAX) if answer else b""
            raise ConnectionRefusedError(
                errno.ECONNREFUSED, reason.decode() or f"the hub hung up on {host}:{port}"
            )
        except BaseException:
            sock.close()
            raise

    async def _open(self, first: preface.Line) -> socket.socket:
        if self._hub is None:
            raise OSError(errno.ENETUNREACH, f"this loop belongs to no cluster; cannot do {first}")
        sock = socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP)
        sock.setblocking(False)
        try:
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            await self.sock_connect(sock, self._hub)
            await self.sock_sendall(sock, preface.encode(first))
        except BaseException:
            sock.close()
            raise
        return sock

    async def _register(self, port: int, actual: int) -> None:
        async with self._session_lock:
            if self._session is None:
                self._session = await self._open(preface.Session(self.host, self._incarnation))
            await self.sock_sendall(self._session, preface.encode(preface.Listen(port, actual)))
            answer = json.loads(await self.sock_recv(self._session, preface.LINE_BYTES_MAX))
        if "error" in answer:
            raise OSError(errno.EADDRINUSE, answer["error"])
        self._named_ports[actual] = port
