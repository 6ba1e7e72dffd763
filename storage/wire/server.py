"""A Postgres-protocol server on asyncio: a listener and one registered task per connection.

``close`` stops the listener at once, asks every session to end, and cuts off what does not; it
needs no further connection to notice (SYSTEM.md B2), and a client that never reads cannot hold it.
"""

from __future__ import annotations

import asyncio

from storage.tasks import (
    Registration,
    TaskKind,
    TaskRegistry,
    current_registration,
    wait_shutdown,
)
from storage.wire.channel import Channel
from storage.wire.conversation import Conversation, QueryHandler, ServerOptions
from storage.wire.messages import CancelRequest
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
        self._conversations: dict[int, Conversation] = {}
        self._entry: Registration | None = None
        self._accepted = 0

    async def listen(self, host: str, port: int) -> None:
        """Start accepting connections."""
        assert self._listener is None, "a server listens once"
        loop = asyncio.get_running_loop()
        self._listener = await loop.create_server(self._new_channel, host, port)
        started = asyncio.Event()
        self._registry.spawn(TaskKind.WIRE_LISTENER, f"{host}:{port}", self._hold_listener(started))
        await started.wait()

    async def _hold_listener(self, started: asyncio.Event) -> None:
        self._entry = current_registration()
        assert self._entry is not None
        assert self._listener is not None
        self._entry.on_shutdown(self._listener.close)
        started.set()
        await wait_shutdown()

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
        conversation = Conversation(channel, self._handler, self._options, self._registry.trace_ids)
        self._sessions[number] = entry
        self._conversations[number] = conversation
        entry.on_shutdown(channel.interrupt)
        try:
            await conversation.run(number, self._cancel)
        finally:
            del self._sessions[number]
            del self._conversations[number]
            channel.abort()

    def _cancel(self, request: CancelRequest) -> None:
        conversation = self._conversations.get(request.process_id)
        if conversation is not None and conversation.key.secret == request.secret:
            conversation.cancel_command()

    async def close(self, *, within_s: float = 5.0) -> None:
        """Stop listening at once, then end every session within ``within_s`` seconds."""
        assert self._entry is not None, "only a server that listens can be closed"
        entries = [self._entry, *self._sessions.values()]
        # A connection accepted just before has its session by now.
        while await self._registry.stop(entries, within_s=within_s) and self._sessions:
            entries = list(self._sessions.values())


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
