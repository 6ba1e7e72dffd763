"""A Postgres-protocol server on asyncio: a listener and one registered task per connection.

``close`` stops the listener at once, asks every session to end, and cuts off what does not; it
needs no further connection to notice (SYSTEM.md B2), and a client that never reads cannot hold it.
"""

from __future__ import annotations

import asyncio

from storage.tasks import Registration, TaskKind, TaskRegistry, current_registration
from storage.wire.channel import Channel
from storage.wire.conversation import Conversation, QueryHandler, ServerOptions
from storage.wire.states import Sender

__all__ = ["QueryHandler", "ServerOptions", "WireServer", "serve"]


class WireServer:
    """A running server; made by :func:`serve`."""

    def __init__(
        self, handler: QueryHandler, registry: TaskRegistry, options: ServerOptions
    ) -> None:
        self._handler = handler
        self._registry = registry
        self._options = options
        self._listener: asyncio.Server | None = None
        self._sessions: dict[int, Registration] = {}
        self._accepted = 0

    async def listen(self, host: str, port: int) -> None:
        """Start accepting connections."""
        assert self._listener is None, "a server listens once"
        loop = asyncio.get_running_loop()
        self._listener = await loop.create_server(self._new_channel, host, port)

    @property
    def port(self) -> int:
        """The port that it listens on; tells which one port 0 became."""
        assert self._listener is not None
        port: int = self._listener.sockets[0].getsockname()[1]
        return port

    @property
    def sessions(self) -> int:
        """Number of open sessions."""
        return len(self._sessions)

    def _new_channel(self) -> Channel:
        return Channel(Sender.SERVER, self._options.limits, self._accept)

    def _accept(self, channel: Channel) -> None:
        self._accepted += 1
        number = self._accepted
        self._registry.spawn(
            TaskKind.WIRE_CONNECTION, channel.peer_name, self._converse(number, channel)
        )

    async def _converse(self, number: int, channel: Channel) -> None:
        entry = current_registration()
        assert entry is not None
        self._sessions[number] = entry
        entry.on_shutdown(channel.interrupt)
        try:
            conversation = Conversation(
                channel, self._handler, self._options, self._registry.trace_ids
            )
            await conversation.run(number)
        finally:
            del self._sessions[number]
            channel.abort()

    async def close(self, *, within_s: float = 5.0) -> None:
        """Stop listening at once, then end every session within ``within_s`` seconds."""
        if self._listener is not None:
            self._listener.close()
            self._listener = None
        await self._registry.stop(list(self._sessions.values()), within_s=within_s)


async def serve(
    host: str,
    port: int,
    handler: QueryHandler,
    registry: TaskRegistry,
    *,
    options: ServerOptions | None = None,
) -> WireServer:
    """Listen on ``(host, port)`` and answer each command with ``handler``; ``OSError`` if not."""
    server = WireServer(handler, registry, options or ServerOptions())
    await server.listen(host, port)
    return server
