"""Messages between a walproposer and a safekeeper, and their bytes.

One message travels in one CopyData frame: a tag byte, then fixed big-endian fields. Proposer:
greeting, vote request, elected, append request. Acceptor: greeting, vote response, append
response. LSNs and terms are 64-bit. Every LSN that ends a log, a term or a commit is the end of
a complete WAL record, because an append request always carries whole records.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from typing import NamedTuple, TypeVar

from storage.consensus.term_history import TermHistory, TermSwitch
from storage.errors import ProtocolError
from storage.ids import TenantId, TimelineId
from storage.lsn import Lsn

PROTOCOL_VERSION = 1
"""Changes whenever the bytes of a message do."""


class ProposerGreeting(NamedTuple):
    """Opens a conversation; the acceptor refuses values that differ from the timeline's own.

    ``pg_version`` is the major version, ``wal_segment_size`` is in bytes.
    """

    protocol_version: int
    tenant_id: TenantId
    timeline_id: TimelineId
    proposer_id: int
    system_id: int
    pg_version: int
    wal_segment_size: int


class AcceptorGreeting(NamedTuple):
    """Answers a greeting: who the acceptor is and the last term it voted in."""

    node_id: int
    term: int


class VoteRequest(NamedTuple):
    """Asks for the vote in ``term``; the acceptor will obey no lower term after it."""

    term: int
    proposer_id: int


class VoteResponse(NamedTuple):
    """``term`` is the acceptor's after the request. The rest describes its durable log."""

    term: int
    given: bool
    flush_lsn: Lsn
    commit_lsn: Lsn
    truncate_lsn: Lsn
    timeline_start_lsn: Lsn
    term_history: TermHistory


class ProposerElected(NamedTuple):
    """Tells a voter who won: cut the log at ``start_lsn``, where it parts from the winner's."""

    term: int
    start_lsn: Lsn
    term_history: TermHistory


class AppendRequest(NamedTuple):
    """WAL from ``begin_lsn`` on, or none: then it announces LSNs, or asks for a sign of life.

    ``commit_lsn`` never exceeds the end of ``data``. No peer needs WAL before ``truncate_lsn``.
    """

    term: int
    begin_lsn: Lsn
    commit_lsn: Lsn
    truncate_lsn: Lsn
    reply_requested: bool
    data: bytes


class AppendResponse(NamedTuple):
    """What is durable now. A ``term`` above the proposer's deposes it."""

    term: int
    flush_lsn: Lsn
    commit_lsn: Lsn
    remote_consistent_lsn: Lsn


ProposerMessage = ProposerGreeting | VoteRequest | ProposerElected | AppendRequest
AcceptorMessage = AcceptorGreeting | VoteResponse | AppendResponse
Message = ProposerMessage | AcceptorMessage

_PROPOSER_GREETING = struct.Struct(">cI16s16sQQII")
_ACCEPTOR_GREETING = struct.Struct(">cQQ")
_VOTE_REQUEST = struct.Struct(">cQQ")
_VOTE_RESPONSE = struct.Struct(">cQ?QQQQ")
_PROPOSER_ELECTED = struct.Struct(">cQQ")
_APPEND_REQUEST = struct.Struct(">cQQQQ?")
_APPEND_RESPONSE = struct.Struct(">cQQQQ")
_SWITCH = struct.Struct(">QQ")

M = TypeVar("M", ProposerMessage, AcceptorMessage)


def _encode_history(history: TermHistory) -> bytes:
    return b"".join(_SWITCH.pack(switch.term, switch.lsn) for switch in history.switches)


def _decode_history(data: bytes) -> TermHistory:
    if len(data) % _SWITCH.size:
        raise ProtocolError(f"a term history of {len(data)} bytes is cut in the middle")
    return TermHistory(tuple(TermSwitch(term, Lsn(lsn)) for term, lsn in _SWITCH.iter_unpack(data)))


def encode_append_header(request: AppendRequest) -> bytes:
    """What precedes the WAL in the frame, so that the WAL itself need not be copied."""
    return _APPEND_REQUEST.pack(b"A", *request[:5])


def encode(message: Message) -> bytes:
    """The payload of the CopyData frame that carries ``message``."""
    match message:
        case AppendRequest():
            return encode_append_header(message) + message.data
        case AppendResponse():
            return _APPEND_RESPONSE.pack(b"a", *message)
        case ProposerGreeting():
            version, tenant, timeline, *rest = message
            ids = bytes.fromhex(tenant), bytes.fromhex(timeline)
            return _PROPOSER_GREETING.pack(b"G", version, *ids, *rest)
        case AcceptorGreeting():
            return _ACCEPTOR_GREETING.pack(b"g", *message)
        case VoteRequest():
            return _VOTE_REQUEST.pack(b"V", *message)
        case VoteResponse():
            return _VOTE_RESPONSE.pack(b"v", *message[:-1]) + _encode_history(message.term_history)
        case ProposerElected(term, start, history):
            return _PROPOSER_ELECTED.pack(b"E", term, start) + _encode_history(history)
    raise AssertionError(f"no encoding for {message!r}")


def _proposer_greeting(data: bytes) -> ProposerGreeting:
    _, version, tenant, timeline, *rest = _PROPOSER_GREETING.unpack(data)
    return ProposerGreeting(version, TenantId(tenant.hex()), TimelineId(timeline.hex()), *rest)


def _acceptor_greeting(data: bytes) -> AcceptorGreeting:
    _, node_id, term = _ACCEPTOR_GREETING.unpack(data)
    return AcceptorGreeting(node_id, term)


def _vote_request(data: bytes) -> VoteRequest:
    _, term, proposer_id = _VOTE_REQUEST.unpack(data)
    return VoteRequest(term, proposer_id)


def _vote_response(data: bytes) -> VoteResponse:
    _, term, given, *lsns = _VOTE_RESPONSE.unpack_from(data)
    flush, commit, truncate, start = map(Lsn, lsns)
    history = _decode_history(data[_VOTE_RESPONSE.size :])
    return VoteResponse(term, given, flush, commit, truncate, start, history)


def _proposer_elected(data: bytes) -> ProposerElected:
    _, term, start = _PROPOSER_ELECTED.unpack_from(data)
    return ProposerElected(term, Lsn(start), _decode_history(data[_PROPOSER_ELECTED.size :]))


def _append_request(data: bytes) -> AppendRequest:
    _, term, begin, commit, truncate, reply = _APPEND_REQUEST.unpack_from(data)
    payload = data[_APPEND_REQUEST.size :]
    return AppendRequest(term, Lsn(begin), Lsn(commit), Lsn(truncate), reply, payload)


def _append_response(data: bytes) -> AppendResponse:
    _, term, flush, commit, remote = _APPEND_RESPONSE.unpack(data)
    return AppendResponse(term, Lsn(flush), Lsn(commit), Lsn(remote))


_PROPOSER_DECODERS: dict[int, Callable[[bytes], ProposerMessage]] = {
    ord("G"): _proposer_greeting,
    ord("V"): _vote_request,
    ord("E"): _proposer_elected,
    ord("A"): _append_request,
}
_ACCEPTOR_DECODERS: dict[int, Callable[[bytes], AcceptorMessage]] = {
    ord("g"): _acceptor_greeting,
    ord("v"): _vote_response,
    ord("a"): _append_response,
}


def decode_proposer(data: bytes) -> ProposerMessage:
    """What a proposer sent; ``ProtocolError`` names the bytes that are no such message."""
    decoder = _PROPOSER_DECODERS.get(data[0]) if data else None
    return _decode(decoder, data)


def decode_acceptor(data: bytes) -> AcceptorMessage:
    """What an acceptor sent; ``ProtocolError`` names the bytes that are no such message."""
    decoder = _ACCEPTOR_DECODERS.get(data[0]) if data else None
    return _decode(decoder, data)


def _decode(decoder: Callable[[bytes], M] | None, data: bytes) -> M:
    if decoder is None:
        raise ProtocolError(f"unknown consensus message tag {data[:1]!r}")
    try:
        return decoder(data)
    except struct.error as error:
        raise ProtocolError(f"consensus message {data[:1]!r} is malformed: {error}") from error
