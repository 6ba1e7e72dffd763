"""A Postgres-protocol server on asyncio: a listener and one registered task per connection.

``close`` stops the listener at once, asks every session to end, and cuts off what does not; it
needs no further connection to notice (SYSTEM.md B2), and a client that never reads cannot hold it.
"""

from __future__ import annotations

from storage.listener import Listener
from storage.tasks import Registration, TaskKind, TaskRegistry, current_registration
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
        self._listener = Listener(registry, TaskKind.WIRE_LISTENER)
        self._sessions: dict[int, Registration] = {}
        self._conversations: dict[int, Conversation] = {}
        self._accepted = 0

    async def listen(self, host: str, port: int) -> None:
        """Start accepting connections."""
        await self._listener.listen(self._new_channel, (host, port))

    @property
    def port(self) -> int:
        """The port that it listens on; tells which one port 0 became."""
        return self._listener.port

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
        entries = [self._listener.entry, *self._sessions.values()]
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
