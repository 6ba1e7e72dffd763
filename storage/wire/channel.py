"""The shell around the codec: an asyncio protocol that feeds it and carries its bytes away.

One owner reads and writes. A read returns without suspending while whole messages are buffered;
waits end with ``ShutdownRequested`` after :meth:`Channel.interrupt` and with
``ConnectionResetError`` when the peer is gone. What is sent is gathered until a flush.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import cast

from storage.tasks import ShutdownRequested
from storage.wire import messages as m
from storage.wire.codec import Connection, Limits
from storage.wire.states import Sender

READ_AHEAD_BYTES = 256 * 1024
"""Beyond this many unread bytes the peer is made to wait (plus the message being received)."""

YIELD_BYTES = 1024 * 1024
"""A sender whose peer keeps up lets other tasks run after this much has been sent."""

ANSWER_COST_BYTES = 16 * 1024
"""A short answer takes as long to make as so many bytes take to send: a client that asks for much
in advance gives way to others as well."""

GATHER_BYTES = 64 * 1024
"""Gathered output beyond this size is handed to the transport."""


class Channel(asyncio.Protocol):
    """One connection's transport and codec."""

    def __init__(
        self,
        role: Sender,
        limits: Limits | None = None,
        on_open: Callable[[Channel], None] | None = None,
    ) -> None:
        self.connection = Connection(role, limits)
        self._on_open = on_open
        self._loop = asyncio.get_running_loop()
        self._transport: asyncio.Transport | None = None
        self._readable: asyncio.Future[None] | None = None
        self._writable: asyncio.Future[None] | None = None
        self.write_paused = False
        self._read_paused = False
        self._interrupted = False
        self._loss: Exception | None = None
        self._closed = asyncio.Event()
        self._out: list[bytes] = []
        self._out_size = 0
        self._unyielded = 0

    # ---- called by the transport

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """The connection is open."""
        self._transport = cast(asyncio.Transport, transport)
        if self._on_open is not None:
            self._on_open(self)

    def connection_lost(self, error: Exception | None) -> None:
        """The connection is gone, by a reset (``error``) or because it was closed."""
        self._loss = error or ConnectionResetError("the connection is closed")
        self.connection.feed_eof()
        self._closed.set()
        self._wake_reader()
        self._wake_writer()

    def data_received(self, data: bytes) -> None:
        """Bytes arrived."""
        connection = self.connection
        connection.feed(data)
        if self._readable is not None:
            self._wake_reader()
        elif connection.buffered > max(READ_AHEAD_BYTES, connection.wanted):
            self._pause_reading()

    def eof_received(self) -> bool:
        """The peer sends nothing more; what we still have to say may go out."""
        self.connection.feed_eof()
        self._wake_reader()
        return True

    def pause_writing(self) -> None:
        """The transport's buffer is full."""
        self.write_paused = True

    def resume_writing(self) -> None:
        """The transport's buffer has drained."""
        self.write_paused = False
        self._wake_writer()

    def _wake_reader(self) -> None:
        if self._readable is not None and not self._readable.done():
            self._readable.set_result(None)

    def _wake_writer(self) -> None:
        if self._writable is not None and not self._writable.done():
            self._writable.set_result(None)

    def _pause_reading(self) -> None:
        assert self._transport is not None
        if not self._read_paused and not self._transport.is_closing():
            self._read_paused = True
            self._transport.pause_reading()

    def _resume_reading(self) -> None:
        if self._read_paused and self._transport is not None:
            self._read_paused = False
            if not self._transport.is_closing():
                self._transport.resume_reading()

    # ---- called by the owner

    @property
    def lost(self) -> bool:
        """Whether the peer is gone or has said its last."""
        return self._is_gone() or self.connection.eof

    @property
    def peer_name(self) -> str:
        """Address of the peer for people."""
        assert self._transport is not None
        peer = self._transport.get_extra_info("peername")
        return ":".join(str(part) for part in peer[:2]) if isinstance(peer, tuple) else "?"

    def interrupt(self) -> None:
        """Make present and future waits raise ``ShutdownRequested``."""
        self._interrupted = True
        self._wake_reader()
        self._wake_writer()

    def _check_interrupted(self) -> None:
        if self._interrupted:
            raise ShutdownRequested("terminating connection: the node is stopping")

    async def receive(self) -> m.Message:
        """The next message; raises ``ProtocolError`` for what is none, and as all waits do.

        Whatever a client has asked for in advance is not answered once the session is to end.
        """
        while True:
            self._check_interrupted()
            message = self.connection.next_message()
            if message is not None:
                return message
            await self.wait_readable()

    async def receive_copy_data(self) -> bytes | None:
        """The next piece of copy data, or ``None`` if another message comes first."""
        while True:
            self._check_interrupted()
            data = self.connection.take_copy_data()
            if data is not None:
                return data
            if self.connection.has_message:
                return None
            await self.wait_readable()

    async def wait_readable(self) -> None:
        """Wait for more bytes than are buffered."""
        self._check_interrupted()
        if self.connection.eof:
            raise self._loss or ConnectionResetError("the peer closed the connection")
        assert self._readable is None, "two tasks read one connection"
        self._resume_reading()
        self._readable = self._loop.create_future()
        try:
            await self._readable
        finally:
            self._readable = None

    def send(self, message: m.Message) -> None:
        """Encode a message and gather it for the next flush."""
        self._out.append(self.connection.encode(message))
        self._out_size += len(self._out[-1])
        if self._out_size > GATHER_BYTES:
            self.flush()

    def send_copy_data(self, parts: tuple[bytes, ...], size: int) -> None:
        """Send one piece of copy data at once, after what was gathered."""
        frame = self.connection.encode_copy_data(parts, size)
        self._unyielded += size
        if self._out:
            self._out.append(frame)
            self.flush()
        else:
            self._write(frame)

    def flush(self) -> None:
        """Hand what was gathered to the transport; raises ``ConnectionError`` if it is gone."""
        if self._out:
            data = b"".join(self._out)
            self._out.clear()
            self._out_size = 0
            self._unyielded += max(len(data), ANSWER_COST_BYTES)
            self._write(data)

    def _write(self, data: bytes) -> None:
        if self._is_gone():
            raise ConnectionResetError("the connection is closed") from self._loss
        assert self._transport is not None
        self._transport.write(data)

    def _is_gone(self) -> bool:
        """Whether what is written now reaches nobody: a failed write says so before its loss."""
        transport = self._transport
        return self._loss is not None or (transport is not None and transport.is_closing())

    def send_last_word(self, data: bytes) -> None:
        """Send bytes past the codec's state, before the connection is closed; never raises."""
        self._out.append(data)
        if not self._is_gone():
            self.flush()

    @property
    def must_drain(self) -> bool:
        """Whether a sender of much data should :meth:`drain` now."""
        return self.write_paused or self._unyielded > YIELD_BYTES

    async def drain(self) -> None:
        """Wait while the transport's buffer is full, and let other tasks run now and then."""
        if self._unyielded > YIELD_BYTES:
            self._unyielded = 0
            await asyncio.sleep(0)
        while self.write_paused:
            if self._loss is not None:
                raise ConnectionResetError("the connection is closed") from self._loss
            self._check_interrupted()
            self._writable = self._loop.create_future()
            try:
                await self._writable
            finally:
                self._writable = None

    async def close(self, *, within_s: float) -> None:
        """Send what is left and close; a peer that does not read is cut off after ``within_s``."""
        if self._transport is None:
            return
        if not self._is_gone():
            self.flush()
        self._transport.close()
        try:
            async with asyncio.timeout(within_s):
                await self._closed.wait()
        except TimeoutError:
            self._transport.abort()

    def abort(self) -> None:
        """Cut the connection now."""
        if self._transport is not None:
            self._transport.abort()
