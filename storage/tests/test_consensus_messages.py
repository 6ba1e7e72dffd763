"""Every message survives its encoding, and nothing else is taken for a message."""

from __future__ import annotations

import pytest

from storage.consensus import messages as m
from storage.consensus.term_history import TermHistory, TermSwitch
from storage.errors import ProtocolError
from storage.ids import TenantId, TimelineId
from storage.lsn import Lsn

HISTORY = TermHistory((TermSwitch(0, Lsn(8)), TermSwitch(3, Lsn(1 << 40))))
LARGE = (1 << 64) - 1

PROPOSER = [
    m.ProposerGreeting(1, TenantId("a" * 32), TimelineId("0" * 32), LARGE, LARGE, 18, 1 << 30),
    m.VoteRequest(LARGE, 0),
    m.ProposerElected(7, Lsn(9), HISTORY),
    m.AppendRequest(7, Lsn(9), Lsn(8), Lsn(1), True, b"wal"),
    m.AppendRequest(7, Lsn(LARGE), Lsn(8), Lsn(1), False, b""),
]
ACCEPTOR = [
    m.AcceptorGreeting(5, 9),
    m.VoteResponse(4, True, Lsn(5), Lsn(6), Lsn(7), Lsn(8), HISTORY),
    m.VoteResponse(4, False, Lsn(5), Lsn(6), Lsn(7), Lsn(8), HISTORY),
    m.AppendResponse(1, Lsn(2), Lsn(3), Lsn(LARGE)),
]


@pytest.mark.parametrize("message", PROPOSER)
def test_proposer_messages_survive(message):
    decoded = m.decode_proposer(m.encode(message))
    assert decoded == message
    assert type(decoded) is type(message)


@pytest.mark.parametrize("message", ACCEPTOR)
def test_acceptor_messages_survive(message):
    decoded = m.decode_acceptor(m.encode(message))
    assert decoded == message
    assert type(decoded) is type(message)


def test_lsns_come_back_as_lsns():
    decoded = m.decode_proposer(m.encode(PROPOSER[3]))
    assert str(decoded.begin_lsn) == "0/9"


def test_header_and_wal_may_travel_apart():
    request = PROPOSER[3]
    assert m.encode_append_header(request) + request.data == m.encode(request)


@pytest.mark.parametrize("message", [*PROPOSER, *ACCEPTOR])
def test_each_side_refuses_the_other_sides_messages_and_cut_ones(message):
    data = m.encode(message)
    own, other = m.decode_proposer, m.decode_acceptor
    if message in ACCEPTOR and type(message) in {type(a) for a in ACCEPTOR}:
        own, other = other, own
    with pytest.raises(ProtocolError, match="unknown consensus message tag"):
        other(data)
    with pytest.raises(ProtocolError):
        own(data[: 1 + len(data) // 4])


def test_nothing_is_no_message():
    with pytest.raises(ProtocolError):
        m.decode_proposer(b"")
