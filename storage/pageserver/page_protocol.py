"""Messages of ``pagestream``: one request or response per CopyData, big endian, pure.

A client may send requests without waiting; answers come in the order of the requests and carry
their ids. Every request names an LSN and a ``not_modified_since`` (``read_view.ReadPoint`` says
what they mean); every answer names the LSN at which it holds. A refusal is an answer too: the
stream goes on.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import ClassVar, Final

from storage.errors import ProtocolError
from storage.lsn import INVALID_LSN, Lsn
from storage.pageserver.keys import BLOCK_SIZE, Relation

LATEST_LSN: Final = Lsn(0xFFFFFFFFFFFFFFFF)
"""``request_lsn`` of a reader that wants whatever is newest."""

_REQUEST = struct.Struct(">BQQQIIIBI")
_RESPONSE = struct.Struct(">BQQ")
_COUNT = struct.Struct(">Q")
_SQLSTATE_SIZE = 5


@dataclass(frozen=True, slots=True)
class PageRequest:
    """Fields that every request has; ``request_id`` is the client's, 64-bit."""

    tag: ClassVar[int]
    relation: Relation
    block: int = 0
    request_id: int = 0
    request_lsn: Lsn = LATEST_LSN
    not_modified_since: Lsn = INVALID_LSN

    def encode(self) -> bytes:
        """The message."""
        return _REQUEST.pack(
            self.tag, self.request_id, self.request_lsn, self.not_modified_since,
            *self.relation, self.block,
        )  # fmt: skip


class GetPage(PageRequest):
    """Wants block ``block`` of a relation; answered by :class:`Page`."""

    __slots__ = ()
    tag = 1


class Exists(PageRequest):
    """Asks whether a relation fork exists; answered by :class:`Count` 0 or 1."""

    __slots__ = ()
    tag = 2


class RelationBlocks(PageRequest):
    """Asks for a relation fork's length; answered by :class:`Count` in blocks."""

    __slots__ = ()
    tag = 3


class DatabaseSize(PageRequest):
    """Asks for the size of the main forks of the relation's database: :class:`Count` in bytes."""

    __slots__ = ()
    tag = 4


class SlruSegment(PageRequest):
    """Wants a whole segment of an SLRU, answered by :class:`Segment`; ``relation.space`` is the
    number of the SLRU (:class:`~storage.pageserver.keys.Slru`), ``relation.relation`` its own."""

    __slots__ = ()
    tag = 5


@dataclass(frozen=True, slots=True)
class Page:
    """A page of 8 KiB as of ``lsn``."""

    request_id: int
    lsn: Lsn
    data: bytes

    def parts(self) -> tuple[bytes, bytes]:
        """The message in two parts, so that the page need not be copied."""
        assert len(self.data) == BLOCK_SIZE, f"a page of {len(self.data)} bytes"
        return _RESPONSE.pack(101, self.request_id, self.lsn), self.data


@dataclass(frozen=True, slots=True)
class Count:
    """A number as of ``lsn``."""

    request_id: int
    lsn: Lsn
    value: int

    def parts(self) -> tuple[bytes, bytes]:
        """The message in two parts."""
        return _RESPONSE.pack(102, self.request_id, self.lsn), _COUNT.pack(self.value)


@dataclass(frozen=True, slots=True)
class Segment:
    """A segment of an SLRU as of ``lsn``: as many pages of 8 KiB as it has."""

    request_id: int
    lsn: Lsn
    data: bytes

    def parts(self) -> tuple[bytes, bytes]:
        """The message in two parts."""
        assert len(self.data) % BLOCK_SIZE == 0, f"a segment of {len(self.data)} bytes"
        return _RESPONSE.pack(104, self.request_id, self.lsn), self.data


@dataclass(frozen=True, slots=True)
class Refused:
    """The request failed; ``sqlstate`` is the error's class, ``message`` is for people."""

    request_id: int
    sqlstate: str
    message: str
    lsn: Lsn = INVALID_LSN

    def parts(self) -> tuple[bytes, bytes]:
        """The message in two parts."""
        text = self.sqlstate.encode().ljust(_SQLSTATE_SIZE) + self.message.encode()
        return _RESPONSE.pack(103, self.request_id, self.lsn), text


PageResponse = Page | Count | Segment | Refused

_REQUESTS: Final = {
    request.tag: request for request in (GetPage, Exists, RelationBlocks, DatabaseSize, SlruSegment)
}


def parse_request(message: bytes) -> PageRequest:
    """Read a client's message; ``ProtocolError`` for anything else."""
    request = _REQUESTS.get(message[0] if message else -1)
    if request is None or len(message) != _REQUEST.size:
        raise ProtocolError(f"not a page request: {len(message)} bytes beginning {message[:8]!r}")
    _, number, lsn, since, space, database, relation, fork, block = _REQUEST.unpack(message)
    return request(Relation(space, database, relation, fork), block, number, Lsn(lsn), Lsn(since))


def parse_response(message: bytes) -> PageResponse:
    """Read a server's message; ``ProtocolError`` for anything else."""
    if len(message) < _RESPONSE.size:
        raise ProtocolError(f"not a page response: {len(message)} bytes")
    tag, number, lsn = _RESPONSE.unpack_from(message)
    body = message[_RESPONSE.size :]
    if tag == 101 and len(body) == BLOCK_SIZE:
        return Page(number, Lsn(lsn), body)
    if tag == 102 and len(body) == _COUNT.size:
        return Count(number, Lsn(lsn), int(_COUNT.unpack(body)[0]))
    if tag == 104 and len(body) % BLOCK_SIZE == 0:
        return Segment(number, Lsn(lsn), body)
    if tag == 103 and len(body) >= _SQLSTATE_SIZE:
        sqlstate = body[:_SQLSTATE_SIZE].decode("ascii", "replace")
        return Refused(number, sqlstate, body[_SQLSTATE_SIZE:].decode("utf-8", "replace"), Lsn(lsn))
    raise ProtocolError(f"not a page response: tag {tag} with {len(body)} bytes")
