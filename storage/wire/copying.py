"""The copies that both peers hold: one way out, and both ways at once."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from storage.errors import ProtocolError
from storage.wire import messages as m
from storage.wire.channel import Channel
from storage.wire.errors import CopyFailed, ServerError
from storage.wire.states import Copy, Sender

# Tuples, because the hash of an Enum member costs more than comparing two of them.
_CLIENT_DONE = (Copy.NONE, Copy.BOTH_CLIENT_DONE)
_SERVER_DONE = (Copy.NONE, Copy.BOTH_SERVER_DONE)


class CopyStream:
    """A copy in both directions, each message one piece (START_REPLICATION and its like)."""

    __slots__ = ("_channel", "_connection", "_finish", "_own_done", "_peer_done")

    def __init__(
        self, channel: Channel, finish: Callable[[], Awaitable[object]] | None = None
    ) -> None:
        self._channel = channel
        self._connection = channel.connection
        is_server = channel.connection.role is Sender.SERVER
        self._own_done = _SERVER_DONE if is_server else _CLIENT_DONE
        self._peer_done = _CLIENT_DONE if is_server else _SERVER_DONE
        self._finish = finish

    async def send(self, *parts: bytes) -> None:
        """Send one message made of ``parts``; waits while the peer does not keep up.

        Raises ``ConnectionError``, or ``ShutdownRequested`` when it would have to wait.
        """
        self._channel.send_copy_data(parts, sum(map(len, parts)))
        if self._channel.must_drain:
            await self._channel.drain()

    @property
    def is_congested(self) -> bool:
        """Whether the peer does not keep up, so that a :meth:`send` would wait."""
        return self._channel.write_paused

    def post(self, *parts: bytes) -> None:
        """Send one message without waiting, even if it piles up here.

        For senders that look at :attr:`is_congested` first, and for answers whose number the
        peer's own messages bound. Raises ``ConnectionError``.
        """
        self._channel.send_copy_data(parts, sum(map(len, parts)))

    async def receive(self) -> bytes | None:
        """The peer's next message; ``None`` once it has ended its half.

        Raises ``ConnectionError`` when the peer is gone, ``CopyFailed`` when it gave up,
        ``ServerError`` for a server's error, ``ShutdownRequested`` when it would have to wait.
        """
        data = self._connection.take_copy_data()
        if data is not None:
            return data
        return await self._receive_slowly()

    async def _receive_slowly(self) -> bytes | None:
        connection = self._connection
        while connection.progress.copy not in self._peer_done:
            if connection.has_message:
                await self._take_aside()
            else:
                await self._channel.wait_readable()
            data = connection.take_copy_data()
            if data is not None:
                return data
        return None

    async def _take_aside(self) -> None:
        message = await self._channel.receive()
        if isinstance(message, m.ErrorResponse):
            await self._take_error(message)
        take_aside(message)

    async def _take_error(self, report: m.ErrorResponse) -> None:
        """Read to the end of the failed command, so that the session can go on."""
        if self._finish is not None and report.severity is m.Severity.ERROR:
            await self._finish()

    async def done(self) -> None:
        """End our half, take what the peer still sends, and return when it has ended its half."""
        if self._connection.progress.copy not in self._own_done:
            self._channel.send(m.CopyDone())
            self._channel.flush()
        while await self.receive() is not None:
            pass
        if self._finish is not None:
            await self._finish()


def take_aside(message: m.Message) -> None:
    """Handle a message that interrupts copy data; raises for those that end or break the copy."""
    match message:
        case m.CopyFail(reason):
            raise CopyFailed(f"copy from the client failed: {reason}")
        case m.ErrorResponse():
            raise ServerError(message)
        case m.Terminate():
            raise ConnectionResetError("the client ended the session in the middle of a copy")
        case m.CopyDone() | m.Flush() | m.Sync() | m.NoticeResponse() | m.ParameterStatus():
            return
        case m.CommandComplete():
            return  # A server that shuts down ends a stream like this.
        case _:
            raise ProtocolError(f"{type(message).__name__} in the middle of a copy")


class CopyOut:
    """A copy from the server to the client; for handlers."""

    __slots__ = ("_channel", "_complete")

    def __init__(self, channel: Channel, complete: Callable[[str], Awaitable[None]]) -> None:
        self._channel = channel
        self._complete = complete

    async def send(self, *parts: bytes) -> None:
        """Send one piece of data made of ``parts``; waits while the client does not keep up."""
        self._channel.send_copy_data(parts, sum(map(len, parts)))
        if self._channel.must_drain:
            await self._channel.drain()

    async def done(self, tag: str | None) -> None:
        """End the copy and complete the command; with ``None`` more results follow."""
        self._channel.send(m.CopyDone())
        if tag is not None:
            await self._complete(tag)
