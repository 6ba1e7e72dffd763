"""What a proposer and a safekeeper say to each other, read from the bytes between them.

The frames are those of the Postgres protocol, the messages travel in CopyData (one tag byte, then
big-endian fields: ``storage/consensus/messages.py``). This reader shares no code with either side.
A connection that carries something else is left alone as soon as that is seen.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import NamedTuple

COPY_DATA = ord("d")
_LENGTH = struct.Struct(">I")
_GREETING = struct.Struct(">cI16s16sQQII")
_VOTE_REQUEST = struct.Struct(">cQQ")
_TERM = struct.Struct(">cQ")
_VOTE = struct.Struct(">cQ?QQQQ")
_SWITCH = struct.Struct(">QQ")
_APPENDED = struct.Struct(">cQQQQ")
_ELECTED = struct.Struct(">cQQ")
_APPEND = struct.Struct(">cQQQQ?")


class Greeting(NamedTuple):
    """A proposer says for which timeline it speaks; ids in hexadecimal."""

    tenant: str
    timeline: str
    proposer: int


class VoteAsked(NamedTuple):
    """A proposer asks for a vote."""

    term: int
    proposer: int


class Elected(NamedTuple):
    """A proposer says that it won: cut the log at ``start_lsn``. ``history`` tells which term wrote
    the winner's log from which LSN on; the last is its own."""

    term: int
    start_lsn: int
    history: tuple[tuple[int, int], ...]


class Led(NamedTuple):
    """A leader sends WAL that ends at ``end_lsn``, or none, and tells what is committed."""

    term: int
    end_lsn: int
    commit_lsn: int


class TermTold(NamedTuple):
    """A safekeeper greets with the last term that it voted in."""

    term: int


class Voted(NamedTuple):
    """A safekeeper answers a vote request; ``log_term`` wrote the newest entry of its log, which is
    durable up to ``flush_lsn``."""

    term: int
    given: bool
    flush_lsn: int
    log_term: int
    commit_lsn: int


class Appended(NamedTuple):
    """A safekeeper says what is durable."""

    term: int
    flush_lsn: int


Message = Greeting | VoteAsked | Elected | Led | TermTold | Voted | Appended


class Frames:
    """Payloads of the CopyData frames in one direction of a connection. A client begins with a
    packet that has no type (``from_client``)."""

    def __init__(self, *, from_client: bool) -> None:
        self._untyped = from_client
        self._pending = b""

    def feed(self, data: bytes) -> Iterator[bytes]:
        """Take bytes; yield the payload of each CopyData frame that is complete now."""
        if self._pending:
            data = self._pending + data
        position, size = 0, len(data)
        if self._untyped:
            if size < 4:
                self._pending = data
                return
            (position,) = _LENGTH.unpack_from(data)
            if size < position:
                self._pending = data
                return
            self._untyped = False
        while size - position >= 5:
            end = position + 1 + int(_LENGTH.unpack_from(data, position + 1)[0])
            if end > size:
                break
            if data[position] == COPY_DATA:
                yield data[position + 5 : end]
            position = end
        self._pending = data[position:]


def read_proposer(payload: bytes) -> Message | None:
    """What a proposer sent; ``None`` for what is no message of one."""
    tag = payload[:1]
    if tag == b"A":
        _, term, begin_lsn, commit_lsn, _, _ = _APPEND.unpack_from(payload)
        return Led(term, begin_lsn + len(payload) - _APPEND.size, commit_lsn)
    if tag == b"E":
        _, term, start_lsn = _ELECTED.unpack_from(payload)
        return Elected(term, start_lsn, tuple(_SWITCH.iter_unpack(payload[_ELECTED.size :])))
    if tag == b"V" and len(payload) == _VOTE_REQUEST.size:
        return VoteAsked(*_VOTE_REQUEST.unpack(payload)[1:])
    if tag == b"G" and len(payload) == _GREETING.size:
        _, _, tenant, timeline, proposer, *_ = _GREETING.unpack(payload)
        return Greeting(tenant.hex(), timeline.hex(), proposer)
    return None


def read_safekeeper(payload: bytes) -> Message | None:
    """What a safekeeper sent; ``None`` for what is no message of one."""
    tag = payload[:1]
    if tag == b"a" and len(payload) == _APPENDED.size:
        return Appended(*_APPENDED.unpack(payload)[1:3])
    if tag == b"v" and len(payload) > _VOTE.size:
        _, term, given, flush_lsn, commit_lsn, *_ = _VOTE.unpack_from(payload)
        log_term, _ = _SWITCH.unpack_from(payload, len(payload) - _SWITCH.size)
        return Voted(term, given, flush_lsn, log_term, commit_lsn)
    if tag == b"g" and len(payload) >= _TERM.size + 8:
        return TermTold(int.from_bytes(payload[9:17], "big"))
    return None
