"""Stream transports: asyncio's transport contract on two pipes.

Half-close, flow control with water marks, resets and silence follow Linux TCP: what a closed or
dead socket receives is answered with a reset while its host lives, and with nothing otherwise.
"""

from __future__ import annotations

import asyncio
import errno
from collections.abc import Callable, Iterable
from contextvars import Context
from typing import TYPE_CHECKING, Any

from sim.handles import Parcel, SimHandle
from sim.node import Incarnation
from sim.pipe import Pipe, Signal

if TYPE_CHECKING:
    from sim.loop import SimLoop
    from sim.server import Listener

Address = tuple[str, int]
"""Host name and port, as ``getsockname`` and ``getpeername`` of a simulated socket return it."""

_HIGH_WATER = 64 * 1024
RETRANSMISSION_TIMEOUT_S = 924.6
"""How long unanswered bytes keep a connection: Linux's default ``tcp_retries2``."""


class StreamTransport(asyncio.Transport):
    """One end of a connection.

    ``gone`` once nothing can arrive at it any more, ``died`` if that is because its process died.
    """

    def __init__(
        self, loop: SimLoop, owner: Incarnation, context: Context, names: tuple[Address, Address]
    ) -> None:
        super().__init__({"sockname": names[0], "peername": names[1]})
        self._loop = loop
        self._owner = owner
        self.context = context
        self.gone = False
        self.died = False
        self.reading = True
        self.outgoing: Pipe
        self.incoming: Pipe
        self.receive: Callable[[bytes], Any]
        self.listener: Listener | None = None
        self._protocol: Any = None
        self._closing = False
        self._ended = False
        self._eof_written = False
        self._end_sent = False
        self._writing_paused = False
        self._high = _HIGH_WATER
        self._low = _HIGH_WATER // 4
        self._give_up: Parcel | None = None
        self._endpoint = owner.open_endpoint(self)

    def join(self, outgoing: Pipe, incoming: Pipe) -> None:
        """Attach the two directions."""
        self.outgoing = outgoing
        self.incoming = incoming

    # What protocols call.

    def set_protocol(self, protocol: asyncio.BaseProtocol) -> None:
        """Deliver to ``protocol`` from now on; buffered protocols are supported."""
        self._protocol = protocol
        if isinstance(protocol, asyncio.BufferedProtocol):
            self.receive = self._receive_buffered
        else:
            self.receive = protocol.data_received  # type: ignore[attr-defined]

    @property
    def made(self) -> bool:
        """Whether the process was told of the connection, which the kernel may have made before."""
        return self._protocol is not None

    def get_protocol(self) -> asyncio.BaseProtocol:
        """The protocol that receives."""
        assert self._protocol is not None, "the connection is not made yet"
        return self._protocol  # type: ignore[no-any-return]

    def write(self, data: bytes | bytearray | memoryview[Any]) -> None:
        """Send bytes; never blocks, but may call ``pause_writing``."""
        if type(data) is not bytes:
            if not isinstance(data, bytes | bytearray | memoryview):
                raise TypeError(f"data must be bytes-like, not {type(data).__name__}")
            data = bytes(data)
        if self._eof_written:
            raise RuntimeError("Cannot call write() after write_eof()")
        if self._ended or self._closing or not data:
            return
        outgoing = self.outgoing
        outgoing.send(data)
        if outgoing.backlog_size > self._high and not self._writing_paused:
            self._writing_paused = True
            self._protocol.pause_writing()

    def writelines(self, list_of_data: Iterable[bytes | bytearray | memoryview[Any]]) -> None:
        """Send the concatenation of all pieces."""
        self.write(b"".join(list_of_data))

    def write_eof(self) -> None:
        """Half-close: the peer reads an end of file after what was written."""
        if self._eof_written or self._closing:
            return
        self._eof_written = True
        if not self.outgoing.backlog_size:
            self._send_end()

    def can_write_eof(self) -> bool:
        """Always; TCP can."""
        return True

    def close(self) -> None:
        """Send what is buffered, then close; nothing more is received."""
        if self._closing or self._ended:
            return
        self._closing = True
        self.receive = _ignore
        if not self.outgoing.backlog_size:
            self._finish()

    def abort(self) -> None:
        """Close now with a reset; buffered bytes are lost."""
        if not self._ended:
            self.outgoing.drop_backlog()
            self.outgoing.signal(Signal.RESET)
            self._end(None)

    def is_closing(self) -> bool:
        """Whether it is closed or about to be."""
        return self._closing or self._ended

    def pause_reading(self) -> None:
        """Leave what arrives in the window until :meth:`resume_reading`."""
        self.reading = False

    def resume_reading(self) -> None:
        """Receive again."""
        if not self.reading and not self._ended:
            self.reading = True
            self.incoming.unstall()

    def is_reading(self) -> bool:
        """Whether data is delivered."""
        return self.reading and not self.is_closing()

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        """Water marks in bytes of ``pause_writing`` and ``resume_writing``, as in asyncio."""
        if high is None:
            high = _HIGH_WATER if low is None else 4 * low
        if low is None:
            low = high // 4
        if not high >= low >= 0:
            raise ValueError(f"high ({high!r}) must be >= low ({low!r}) must be >= 0")
        self._high, self._low = high, low

    def get_write_buffer_limits(self) -> tuple[int, int]:
        """The water marks ``(low, high)`` in bytes."""
        return self._low, self._high

    def get_write_buffer_size(self) -> int:
        """Bytes that do not fit into the peer's window yet."""
        return self.outgoing.backlog_size

    # What the network calls.

    def signalled(self, signal: Signal) -> None:
        """A signal arrived; runs as a ready callback of this end's node."""
        if signal is Signal.OPEN:
            assert self.listener is not None, "only the accepting end hears OPEN"
            self.listener.accept(self)
        elif signal is Signal.RESET:
            self.outgoing.drop_backlog()
            self._end(ConnectionResetError(errno.ECONNRESET, "Connection reset by peer"))
        elif not self._closing:
            try:
                keep_open = self._protocol.eof_received()
            except Exception as error:
                self.protocol_failed(error)
            else:
                if not keep_open:
                    self.close()

    def protocol_failed(self, error: Exception) -> None:
        """The protocol raised while receiving: report it and drop the connection, as asyncio."""
        self._loop.call_exception_handler(
            {
                "message": "Fatal error: protocol callback failed.",
                "exception": error,
                "transport": self,
                "protocol": self._protocol,
            }
        )
        self.outgoing.drop_backlog()
        self.outgoing.signal(Signal.RESET)
        self._end(error)

    def reset(self) -> None:
        """The network resets the connection; both ends are told."""
        if not self._ended:
            self.outgoing.drop_backlog()
            error = ConnectionResetError(errno.ECONNRESET, "Connection reset by peer")
            self.gone = True
            self._loop.push(SimHandle(self._end, (error,), self.context))

    def unanswered(self) -> None:
        """Bytes of this end vanished; without an answer the connection times out some day."""
        if self._give_up is None and not self._ended:
            self._give_up = Parcel(self._loop.environment, self._time_out)
            at_s = self._loop.environment.now + RETRANSMISSION_TIMEOUT_S
            self._loop.environment.ring_at(at_s, self._give_up)

    def _time_out(self) -> None:
        error = TimeoutError(errno.ETIMEDOUT, "Connection timed out")
        self._loop.push(SimHandle(self._end, (error,), self.context))

    def backlog_shrank(self) -> None:
        """Room appeared in the window: go on with whatever waited for it."""
        if self._ended:
            return
        size = self.outgoing.backlog_size
        if self._writing_paused and size <= self._low:
            self._writing_paused = False
            self._protocol.resume_writing()
        if not size and self._closing:
            self._finish()
        elif not size and self._eof_written and not self._end_sent:
            self._send_end()

    def process_died(self, *, host_died: bool) -> None:
        """The owning process is gone: the kernel resets the connection unless it died as well."""
        announce = not host_died and not self._ended
        self._closing = self._ended = self.gone = self.died = True
        self.outgoing.drop_backlog()
        self.incoming.abandon()
        self._loop.network.forget(self)
        if announce:
            self.outgoing.signal(Signal.RESET)

    def _finish(self) -> None:
        if not self._end_sent:
            self._send_end()
        self._end(None)

    def _send_end(self) -> None:
        self._end_sent = True
        self.outgoing.signal(Signal.END)

    def _end(self, error: Exception | None) -> None:
        if self._ended:
            return
        self._closing = self._ended = self.gone = True
        if self._give_up is not None:
            self._give_up.cancel()
        self._loop.push(SimHandle(self._lose, (error,), self.context))

    def _lose(self, error: Exception | None) -> None:
        self._loop.network.forget(self)
        self._owner.close_endpoint(self._endpoint)
        try:
            if self._protocol is not None:
                self._protocol.connection_lost(error)
        finally:
            if self.listener is not None:
                self.listener.connection_ended(self)

    def _receive_buffered(self, data: bytes) -> None:
        view = memoryview(data)
        while view:
            buffer = memoryview(self._protocol.get_buffer(len(view)))
            size = min(len(buffer), len(view))
            if size == 0:
                raise RuntimeError("get_buffer() returned an empty buffer")
            buffer[:size] = view[:size]
            self._protocol.buffer_updated(size)
            view = view[size:]

    def __repr__(self) -> str:
        name, peer = self.get_extra_info("sockname"), self.get_extra_info("peername")
        return f"<StreamTransport {name[0]}:{name[1]}>{peer[0]}:{peer[1]}>"


def _ignore(data: bytes) -> None:
    """A closing socket reads nothing."""
