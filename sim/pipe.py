"""One direction of a connection: bytes in flight, in order, inside a window of unread bytes.

The pipe is an alarm of the environment while something is in flight, and hands what has arrived to
the receiving transport in one ready callback, all that is due at an instant in one piece.
"""

from __future__ import annotations

import enum
from collections import deque
from typing import TYPE_CHECKING, Any

from google_crc32c import value as crc32c

from harness.backend import Sink
from sim.handles import Delivery, SimHandle
from sim.link import Link
from sim.trace import MESSAGE

if TYPE_CHECKING:
    from sim.loop import SimLoop
    from sim.transport import StreamTransport

WINDOW = 256 * 1024
"""Bytes sent and not yet read, beyond which the sender has to buffer (the kernels' buffers)."""

_HEADER = 40  # A segment without payload still takes its turn on a link.


class Signal(enum.Enum):
    """What travels besides bytes."""

    OPEN = "open"
    END = "end"
    RESET = "reset"


class Pipe:
    """Carries bytes and signals from ``sender`` to ``receiver`` over ``link``."""

    __slots__ = (
        "_append",
        "_backlog",
        "_flying",
        "_handle",
        "_last_arrival_s",
        "_loop",
        "_scheduled",
        "_stalled",
        "backlog_size",
        "in_flight",
        "link",
        "receiver",
        "sender",
    )

    _cancelled = False  # Makes the pipe an alarm.

    def __init__(self, loop: SimLoop, link: Link) -> None:
        self._loop = loop
        self._append = loop.trace.append
        self.link = link
        self.sender: StreamTransport
        self.receiver: StreamTransport
        self.in_flight = 0
        self.backlog_size = 0
        self._backlog: deque[bytes] = deque()
        self._flying: deque[tuple[float, Any, float]] = deque()  # arrival, item, sent at
        self._last_arrival_s = 0.0
        self._scheduled = False
        self._stalled = False
        self._handle: Delivery

    def connect(self, sender: StreamTransport, receiver: StreamTransport) -> None:
        """Name both ends; deliveries run in the receiver's context."""
        self.sender = sender
        self.receiver = receiver
        self._handle = Delivery(self._deliver, (), receiver.context)

    def send(self, data: bytes) -> None:
        """Put bytes on their way, or into the backlog when the window is full."""
        size = len(data)
        if self._backlog or self.in_flight + size > WINDOW:
            self._backlog.append(data)
            self.backlog_size += size
            self._refill()
            return
        self.in_flight += size
        link = self.link
        if not link.plain:
            self._launch_fragments(data)
            return
        environment = self._loop.environment
        now = environment._now
        arrival = now + link.latency()
        if arrival < self._last_arrival_s:
            arrival = self._last_arrival_s
        else:
            self._last_arrival_s = arrival
        self._flying.append((arrival, data, now))
        if not self._scheduled:
            self._scheduled = True
            if arrival > now:
                environment.ring_at(arrival, self)
            else:
                self.ring()

    def signal(self, signal: Signal) -> None:
        """Send a signal behind everything sent before it."""
        self._launch(signal, _HEADER, self._loop.environment.now)

    def _launch_fragments(self, data: bytes) -> None:
        now = self._loop.environment.now
        middle = self.link.split_at(len(data))
        if middle:
            self._launch(data[:middle], middle, now)
            self._launch(data[middle:], len(data) - middle, now)
        else:
            self._launch(data, len(data), now)

    def _launch(self, item: bytes | Signal, size: int, now: float) -> None:
        """The way with every fault: the link may lose, keep, delay or queue it."""
        link = self.link
        if link.cut:
            link.effects.bytes_cut += size
            self.sever()  # A stream with a hole in it must never flow again.
            self.sender.unanswered()
            return
        if link.holds(size, lambda later: self._launch(item, size, later)):
            return
        arrival = max(link.arrival_s(now, size), self._last_arrival_s)
        self._last_arrival_s = arrival
        if self._stalled and item is Signal.RESET:
            self._flying.clear()
            self._stalled = self._scheduled = False
        self._flying.append((arrival, item, now))
        if not self._scheduled:
            self._schedule(now)

    def _schedule(self, now: float) -> None:
        self._scheduled = True
        arrival = self._flying[0][0]
        if arrival > now:
            self._loop.environment.ring_at(arrival, self)
        else:
            self.ring()

    def ring(self) -> None:
        """The first item in flight has arrived at the receiver's host."""
        if self.receiver.gone:
            self._meet_nobody()
        else:
            self._loop.push(self._handle)

    def _meet_nobody(self) -> None:
        """The receiving socket is closed: its host answers with a reset, if it still lives.

        The end of a stream alone is no reason for one while both ends closed in an orderly way.
        """
        self._scheduled = False
        unread = any(
            type(item) is bytes
            or item is Signal.OPEN
            or (item is Signal.END and self.receiver.died)
            for _, item, _ in self._flying
        )
        self._flying.clear()
        if not unread or self.sender.gone:
            return
        if self.link.host.up:
            self.receiver.outgoing.signal(Signal.RESET)
        else:
            self.sender.unanswered()

    def abandon(self) -> None:
        """The receiver's process died: whatever waits for it is lost, and no delivery is due."""
        if self._flying and not self.link.host.up and not self.sender.gone:
            self.sender.unanswered()
        self._flying.clear()
        self._scheduled = self._stalled = False

    def _deliver(self) -> None:
        """Hand everything that is due to the receiver; runs as a ready callback of its node."""
        receiver = self.receiver
        if receiver.gone:
            self._meet_nobody()
            return
        flying = self._flying
        now = self._loop.environment._now
        _, item, sent_at = flying[0]
        if not receiver.reading and item is not Signal.RESET and item is not Signal.OPEN:
            self._stall()
            return
        flying.popleft()
        if type(item) is not bytes:
            self._reschedule(now)
            receiver.signalled(item)
            return
        if flying and flying[0][0] <= now:
            item = self._join(item, now)
        size = len(item)
        link = self.link
        self._append((now, MESSAGE, link.source, link.target, size, crc32c(item), sent_at))
        if self._backlog:
            self._loop.network.link(link.target, link.source).post(
                _HEADER, lambda: self._acknowledged(size)
            )
        else:
            self.in_flight -= size
        if flying:
            self._reschedule(now)
        else:
            self._scheduled = False
        try:
            receiver.receive(item)
        except Exception as error:
            receiver.protocol_failed(error)

    def _reschedule(self, now: float) -> None:
        self._scheduled = False
        if self._flying:
            self._schedule(now)

    def _join(self, first: bytes, now: float) -> bytes:
        pieces = [first]
        flying = self._flying
        while flying and flying[0][0] <= now and type(flying[0][1]) is bytes:
            pieces.append(flying.popleft()[1])
        return b"".join(pieces)

    def _stall(self) -> None:
        """The receiver does not read: leave the bytes where they are, but let a reset through."""
        if any(item is Signal.RESET for _, item, _ in self._flying):
            self._flying = deque(each for each in self._flying if each[1] is Signal.RESET)
            self._reschedule(self._loop.environment.now)
        else:
            self._stalled = True

    def sever(self) -> bool:
        """A cut caught this connection: it stays silent for ever. False if it was so already."""
        if self.link.forever:
            return False
        self.link = self.link.cut_forever()
        return True

    def unstall(self) -> None:
        """The receiver reads again."""
        if self._stalled:
            self._stalled = False
            self._loop.push(self._handle)

    def _acknowledged(self, size: int) -> None:
        self.in_flight -= size
        assert self.in_flight >= 0, f"{size} bytes acknowledged that were not in flight"
        self._loop.push(SimHandle(self._window_opened, (), self.sender.context))

    def _window_opened(self) -> None:
        """Send from the backlog; a callback of the sender's node, so a frozen one does not."""
        self._refill()
        self.sender.backlog_shrank()

    def _refill(self) -> None:
        """Move bytes from the backlog into the window as far as it has room."""
        backlog = self._backlog
        while backlog and self.in_flight < WINDOW:
            data = backlog.popleft()
            room = WINDOW - self.in_flight
            if len(data) > room:
                backlog.appendleft(data[room:])
                data = data[:room]
            self.backlog_size -= len(data)
            self.in_flight += len(data)
            self._launch_fragments(data)

    def drop_backlog(self) -> None:
        """Forget what was not sent yet."""
        self._backlog.clear()
        self.backlog_size = 0


class TappedPipe(Pipe):
    """A pipe of which somebody reads what is sent."""

    __slots__ = ("_sink",)

    def __init__(self, loop: SimLoop, link: Link, sink: Sink) -> None:
        super().__init__(loop, link)
        self._sink = sink

    def send(self, data: bytes) -> None:
        """Show the bytes, then put them on their way."""
        self._sink(data)
        super().send(data)
