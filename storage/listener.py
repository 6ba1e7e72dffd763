"""A listening socket that belongs to a registered task: who asks the task to stop closes it."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

from storage.tasks import (
    Registration,
    TaskKind,
    TaskRegistry,
    current_registration,
    wait_shutdown,
)


class Listener:
    """The listener of one server, and its task; it listens once."""

    def __init__(self, registry: TaskRegistry, kind: TaskKind) -> None:
        self._registry = registry
        self._kind = kind
        self._server: asyncio.Server | None = None
        self._entry: Registration | None = None

    async def listen(
        self,
        protocols: Callable[[], asyncio.BaseProtocol],
        address: tuple[str, int],
        afterwards: Callable[[], Awaitable[None]] | None = None,
    ) -> None:
        """Start accepting connections, each with a new protocol; ``OSError`` if it cannot.

        ``afterwards``: what the task does once it was asked to stop and the socket is closed.
        """
        assert self._server is None, "a server listens once"
        host, port = address
        self._server = await asyncio.get_running_loop().create_server(protocols, host, port)
        started = asyncio.Event()
        self._registry.spawn(self._kind, f"{host}:{port}", self._hold(started, afterwards))
        await started.wait()

    async def _hold(
        self, started: asyncio.Event, afterwards: Callable[[], Awaitable[None]] | None
    ) -> None:
        self._entry = current_registration()
        assert self._entry is not None
        assert self._server is not None
        self._entry.on_shutdown(self._server.close)
        started.set()
        await wait_shutdown()
        if afterwards is not None:
            await afterwards()

    @property
    def port(self) -> int:
        """The port that it listens on; tells which one port 0 became."""
        assert self._server is not None, "nothing listens yet"
        port: int = self._server.sockets[0].getsockname()[1]
        return port

    @property
    def entry(self) -> Registration:
        """Its task, to be stopped by whoever closes the server."""
        assert self._entry is not None, "only a server that listens can be closed"
        return self._entry
