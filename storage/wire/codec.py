"""One end of a connection without I/O: bytes in, messages out, and back, in the manner of h11.

Feed received bytes, take messages one by one, encode messages to send; the state tables of
``states.py`` watch over both directions. Copy data, the hot path of WAL and pages, has calls of its
own that build no message objects. Knows nothing of sockets, time or tasks.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass

from storage.errors import ProtocolError
from storage.wire import decoding, encoding, startup
from storage.wire import messages as m
from storage.wire.states import Copy, Phase, Progress, Sender

_HEADER = struct.Struct("!Bi")
_LENGTH = struct.Struct("!i")
_COPY_DATA = ord("d")
_STARTUP_KINDS = (m.Startup, m.SslRequest, m.GssEncRequest, m.CancelRequest)
_PEER_COPY_STATES = {
    # Tuples with the most frequent first: they are compared by identity, without hashing.
    Sender.CLIENT: (Copy.BOTH, Copy.IN, Copy.BOTH_SERVER_DONE),
    Sender.SERVER: (Copy.BOTH, Copy.OUT, Copy.BOTH_CLIENT_DONE),
}
_BULKY = frozenset(b"dQPBpFDTEN")


@dataclass(frozen=True, slots=True)
class Limits:
    """Largest messages accepted, in bytes: ``small`` is for those that carry no data."""

    startup: int = 10_000
    small: int = 10_000
    bulk: int = 256 << 20


class Connection:
    """Protocol state of one end; ``role`` says which end this is."""

    def __init__(self, role: Sender, limits: Limits | None = None) -> None:
        self.role = role
        self.peer = Sender.SERVER if role is Sender.CLIENT else Sender.CLIENT
        self.progress = Progress()
        self.eof = False
        self._limits = limits or Limits()
        self._table = decoding.FRONTEND if role is Sender.SERVER else decoding.BACKEND
        self._peer_copies = _PEER_COPY_STATES[self.peer]
        self._own_copies = _PEER_COPY_STATES[role]
        self._data = b""
        self._offset = 0
        self._later: list[bytes] = []
        self._later_size = 0
        self._wanted = 0

    # ---- receiving

    @property
    def buffered(self) -> int:
        """Bytes received and not yet taken."""
        return len(self._data) - self._offset + self._later_size

    @property
    def wanted(self) -> int:
        """Size in bytes of the message that is being received, as far as known; else 0."""
        return self._wanted

    def feed(self, data: bytes) -> None:
        """Take received bytes over; parses nothing yet."""
        if self._offset == len(self._data) and not self._later:
            self._data = data
            self._offset = 0
        else:
            self._later.append(data)
            self._later_size += len(data)

    def feed_eof(self) -> None:
        """The peer will send nothing more."""
        self.eof = True

    def _gather(self) -> None:
        # Copies what is left of one chunk, always less than one message, plus the later ones.
        self._data = b"".join((self._data[self._offset :], *self._later))
        self._offset = 0
        self._later.clear()
        self._later_size = 0

    def _frame(self) -> tuple[int, int, int] | None:
        """Type byte, start and end of the body of the next whole message in ``_data``."""
        left = len(self._data) - self._offset
        if left < 5:
            if not self._later:
                return None
            self._gather()
            left = len(self._data)
            if left < 5:
                return None
        kind, length = _HEADER.unpack_from(self._data, self._offset)
        if length < 4 or length > self._limits.small:
            self._check_length(kind, length)
        if left <= length:
            self._check_length(kind, length)
            self._wanted = length + 1
            if left + self._later_size <= length:
                return None
            self._gather()
            self._wanted = 0
        start = self._offset + 5
        return kind, start, start + length - 4

    def _check_length(self, kind: int, length: int) -> None:
        if length < 4:
            raise ProtocolError(f"malformed message: length {length} of a {bytes((kind,))!r}")
        if kind not in self._table:
            raise ProtocolError(f"unknown message type {bytes((kind,))!r}")
        limit = self._limits.bulk if kind in _BULKY else self._limits.small
        if length > limit:
            raise ProtocolError(
                f"message {bytes((kind,))!r} of {length} bytes is too long: at most {limit}"
            )

    def take_copy_data(self) -> bytes | None:
        """The next message's data if it is whole and the peer's copy data; else ``None``."""
        if self.progress.copy not in self._peer_copies:
            return None
        frame = self._frame()
        if frame is None or frame[0] != _COPY_DATA:
            return None
        self._offset = frame[2]
        return self._data[frame[1] : frame[2]]

    @property
    def has_message(self) -> bool:
        """Whether a whole message is buffered (after start-up)."""
        return self._frame() is not None

    def next_message(self) -> m.Message | None:
        """The next whole message, its edge taken; ``None`` while more bytes are needed.

        Raises ``ProtocolError`` for malformed, oversized, unknown or misplaced messages.
        """
        if self.role is Sender.SERVER and self.progress.phase is Phase.STARTUP:
            return self._next_startup()
        if self.role is Sender.CLIENT and self.progress.phase is Phase.STARTUP:
            return self._next_encryption_answer()
        frame = self._frame()
        if frame is None:
            return None
        kind, start, end = frame
        self._offset = end
        message = decoding.decode(self._table, kind, self._data[start:end])
        self.progress.advance(self.peer, type(message))
        return message

    def _next_startup(self) -> m.Message | None:
        if self._later:
            self._gather()
        left = len(self._data) - self._offset
        if left < 4:
            return None
        (length,) = _LENGTH.unpack_from(self._data, self._offset)
        if not 8 <= length <= self._limits.startup:
            raise ProtocolError(f"start-up packet of {length} bytes: 8 to {self._limits.startup}")
        if left < length:
            return None
        body = self._data[self._offset + 4 : self._offset + length]
        self._offset += length
        message = startup.decode_startup(body)
        self.progress.advance(self.peer, type(message))
        return message

    def _next_encryption_answer(self) -> m.Message | None:
        if self._later:
            self._gather()
        if self._offset == len(self._data):
            return None
        if self._data[self._offset : self._offset + 1] != b"N":
            raise ProtocolError("the server wants to encrypt; only clear text is spoken here")
        self._offset += 1
        return m.EncryptionRefused()

    # ---- sending

    def encode(self, message: m.Message) -> bytes:
        """Bytes to send for ``message``, its edge taken; ``ProtocolError`` if it is misplaced."""
        self.progress.advance(self.role, type(message))
        if isinstance(message, _STARTUP_KINDS):
            return startup.encode_startup(message)
        if isinstance(message, m.EncryptionRefused):
            return b"N"
        return encoding.encode(message)

    def encode_copy_data(self, parts: tuple[bytes, ...], size: int) -> bytes:
        """One CopyData message whose data is ``parts`` in order, ``size`` bytes in all."""
        if self.progress.copy not in self._own_copies:
            self.progress.advance(self.role, m.CopyData)
            raise AssertionError("the table allows copy data where no copy runs")
        return b"".join((_HEADER.pack(_COPY_DATA, size + 4), *parts))
