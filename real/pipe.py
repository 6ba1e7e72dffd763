"""Connections through the hub: two pipes over four socket ends, forwarding under faults.

Bytes take the fast path (one ``recv_into`` into a shared buffer, one ``send``) while their link is
clear. Otherwise they queue in order, and so does the end of the stream. A pipe once cut is
*silent* for ever: bytes it lost can never be made good, so nothing more may reach its peer.
"""

from __future__ import annotations

import asyncio
import contextlib
import enum
import socket
import struct
from collections import deque
from collections.abc import Callable

from real.links import Link

WINDOW_BYTES = 4 * 1024 * 1024
"""What the hub keeps or swallows per pipe before the sender feels it, like a TCP send buffer."""

FRAGMENT_GAP_S = 0.002
"""How much later the second piece of a broken write arrives: in a read of its own."""

_BUFFER = bytearray(256 * 1024)
_VIEW = memoryview(_BUFFER)
_LINGER_RESET = struct.pack("ii", 1, 0)


class Ending(enum.Enum):
    """How a stream ends: in order (FIN), or by a reset (RST)."""

    EOF = "eof"
    RESET = "reset"


def close_with_reset(sock: socket.socket) -> None:
    """Close a TCP socket so that its peer sees ECONNRESET, not an orderly end."""
    with contextlib.suppress(OSError):
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _LINGER_RESET)
    sock.close()


class Pipe:
    """One direction of a connection: what is read at ``source`` is written to ``sink``."""

    def __init__(
        self, connection: Connection, link: Link, source: socket.socket, sink: socket.socket
    ) -> None:
        self.link = link
        self.silent = link.cut
        self.over = False
        self.reverse: Pipe
        self._ended = False
        self._connection = connection
        self._loop = connection.loop
        self._source, self._source_fd = source, source.fileno()
        self._sink, self._sink_fd = sink, sink.fileno()
        self._queue: deque[tuple[float, bytes | Ending]] = deque()
        self._queued_bytes = 0
        self._swallowed_bytes = 0
        self._sink_lost = False
        self._reading = False
        self._writing = False
        self._timer: asyncio.TimerHandle | None = None

    def start(self) -> None:
        """Begin to forward."""
        self._read_on()

    def silence(self) -> None:
        """Lose everything in flight and whatever follows; the peer is told nothing."""
        self.silent = True
        self.link.effects["bytes_cut"] += self._queued_bytes
        self._write_off()
        self._clear_queue()
        if self._ended:
            self._finish()
        else:
            self._read_on()

    def stop(self) -> None:
        """Forget the sockets; they are about to be closed."""
        self._read_off()
        self._write_off()
        self._clear_queue()

    def _clear_queue(self) -> None:
        self._queue.clear()
        self._queued_bytes = 0
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _readable(self) -> None:
        try:
            size = self._source.recv_into(_BUFFER)
        except (BlockingIOError, InterruptedError):
            return
        except OSError:
            self.end(Ending.RESET)
            return
        if size == 0:
            self.end(Ending.EOF)
        elif self.silent or self._sink_lost:
            self._swallow(size)
        elif self.link.clear and not self._queue:
            self.link.record(size)
            sent = self._send(_VIEW[:size])
            if sent < size and not self._sink_lost:
                self._enqueue(bytes(_VIEW[sent:size]))
        else:
            self.link.record(size)
            self._count_late(size)
            first = self.link.split_at(size)
            if first:
                self._enqueue(bytes(_VIEW[:first]))
            self._enqueue(bytes(_VIEW[first:size]), later_s=FRAGMENT_GAP_S if first else 0.0)

    def _swallow(self, size: int) -> None:
        self._swallowed_bytes += size
        if self.silent:
            self.link.effects["bytes_cut"] += size
            self.link.record(size, lost=True)
        if self._swallowed_bytes > WINDOW_BYTES:
            self._read_off()

    def _count_late(self, size: int) -> None:
        if self.link.held:
            self.link.effects["bytes_held"] += size
        elif self.link.delay_s:
            self.link.effects["bytes_delayed"] += size

    def end(self, ending: Ending) -> None:
        """The source has ended; tell the sink after what is queued, unless the link is cut."""
        self._read_off()
        self._ended = True
        if self.silent or self._sink_lost:
            self._finish()
        else:
            self._enqueue(ending)

    def _enqueue(self, payload: bytes | Ending, *, later_s: float = 0.0) -> None:
        later_s += self.link.delay_s
        due_s = self._loop.time() + later_s if later_s else 0.0
        if self._queue:
            due_s = max(due_s, self._queue[-1][0])
        self._queue.append((due_s, payload))
        if isinstance(payload, bytes):
            self._queued_bytes += len(payload)
            if self._queued_bytes > WINDOW_BYTES:
                self._read_off()
        self.pump()

    def pump(self) -> None:
        """Deliver what is due; called again when time, space or a heal allows more."""
        while self._queue and not self.link.held:
            due_s, payload = self._queue[0]
            if due_s > self._loop.time():
                self._write_off()
                self._wake_at(due_s)
                return
            if isinstance(payload, Ending):
                self._queue.popleft()
                self._deliver_ending(payload)
                return
            sent = self._send(payload)
            if self._sink_lost:
                return
            self._queued_bytes -= sent
            if sent < len(payload):
                self._queue[0] = (due_s, payload[sent:])
                self._write_on()
                return
            self._queue.popleft()
        self._write_off()
        if self._queued_bytes <= WINDOW_BYTES // 2:
            self._read_on()

    def _wake_at(self, due_s: float) -> None:
        if self._timer is None:
            self._timer = self._loop.call_at(due_s, self._timer_fired)

    def _timer_fired(self) -> None:
        self._timer = None
        self.pump()

    def _send(self, data: bytes | memoryview) -> int:
        try:
            return self._sink.send(data)
        except (BlockingIOError, InterruptedError):
            return 0
        except OSError:
            self._lose_sink()
            return 0

    def _lose_sink(self) -> None:
        """The receiving process is gone: its host answers with a reset, which travels back."""
        self._sink_lost = True
        self._write_off()
        self._clear_queue()
        self.reverse.end(Ending.RESET)

    def _deliver_ending(self, ending: Ending) -> None:
        if ending is Ending.RESET:
            self._connection.reset()
            return
        with contextlib.suppress(OSError):
            self._sink.shutdown(socket.SHUT_WR)
        self._finish()

    def _finish(self) -> None:
        self.over = True
        if self.reverse.over:
            self._connection.close()

    def _read_on(self) -> None:
        if not self._reading and not self._ended:
            self._reading = True
            self._loop.add_reader(self._source_fd, self._readable)

    def _read_off(self) -> None:
        if self._reading:
            self._reading = False
            self._loop.remove_reader(self._source_fd)

    def _write_on(self) -> None:
        if not self._writing:
            self._writing = True
            self._loop.add_writer(self._sink_fd, self.pump)

    def _write_off(self) -> None:
        if self._writing:
            self._writing = False
            self._loop.remove_writer(self._sink_fd)


class Connection:
    """An established connection between two hosts."""

    def __init__(
        self, links: tuple[Link, Link], sockets: tuple[socket.socket, socket.socket]
    ) -> None:
        self.loop = asyncio.get_running_loop()
        self.closed = False
        self.on_close: Callable[[], object] | None = None
        self._sockets = sockets
        dialler, listener = sockets
        self.forth = Pipe(self, links[0], dialler, listener)
        self.back = Pipe(self, links[1], listener, dialler)
        self.forth.reverse, self.back.reverse = self.back, self.forth

    def start(self) -> None:
        """Forward both ways until both sides ended."""
        self.forth.start()
        self.back.start()

    def pipes(self) -> tuple[Pipe, Pipe]:
        """Both directions."""
        return (self.forth, self.back)

    def close(self) -> None:
        """Close both ends in order."""
        self._end(socket.socket.close)

    def reset(self) -> None:
        """Close both ends with a reset; what was queued is lost."""
        self._end(close_with_reset)

    def _end(self, close: Callable[[socket.socket], None]) -> None:
        if self.closed:
            return
        self.closed = True
        for pipe in self.pipes():
            pipe.stop()
        for sock in self._sockets:
            close(sock)
        if self.on_close is not None:
            self.on_close()
