"""Promises read from the wire: every broken one is named, and bytes are understood however cut."""

from __future__ import annotations

import struct
from collections.abc import Callable

import pytest

from harness.backend import Event
from harness.checkers.consensus_messages import ConsensusMessages, Timeline
from harness.checkers.consensus_wire import (
    Appended,
    Elected,
    Frames,
    Greeting,
    Led,
    TermTold,
    VoteAsked,
    Voted,
    read_proposer,
    read_safekeeper,
)
from harness.checkers.conversation import Conversation
from harness.checkers.safekeeper_logs import SafekeeperLogs
from harness.errors import CheckFailed
from storage.consensus.messages import (
    AcceptorGreeting,
    AppendRequest,
    AppendResponse,
    Message,
    ProposerElected,
    ProposerGreeting,
    VoteRequest,
    VoteResponse,
    encode,
)
from storage.consensus.term_history import TermHistory, TermSwitch
from storage.ids import TenantId, TimelineId
from storage.lsn import Lsn

TENANT, TIMELINE = "0a" * 16, "0b" * 16
NAMED = (TENANT, TIMELINE)
START_UP = struct.pack(">II", 8, 196608)


def frame(message: Message) -> bytes:
    payload = encode(message)
    return b"d" + struct.pack(">I", 4 + len(payload)) + payload


def greeting(proposer: int) -> ProposerGreeting:
    ids = TenantId(TENANT), TimelineId(TIMELINE)
    return ProposerGreeting(1, *ids, proposer, 7, 16, 1 << 20)


def vote(term: int, given: bool, flush: int = 0, log_term: int = 0) -> VoteResponse:
    history = TermHistory((TermSwitch(0, Lsn(0)),))
    if log_term:
        history = TermHistory((*history.switches, TermSwitch(log_term, Lsn(8))))
    return VoteResponse(term, given, Lsn(flush), Lsn(0), Lsn(0), Lsn(0), history)


def appended(term: int, flush: int) -> AppendResponse:
    return AppendResponse(term, Lsn(flush), Lsn(0), Lsn(0))


def append(term: int, data: bytes = b"wal") -> AppendRequest:
    return AppendRequest(term, Lsn(8), Lsn(0), Lsn(0), False, data)


def elected(term: int) -> ProposerElected:
    """The leader's own term begins at 8."""
    history = TermHistory((TermSwitch(0, Lsn(0)), TermSwitch(term, Lsn(8))))
    return ProposerElected(term, Lsn(8), history)


def test_messages_are_read_as_they_are_written() -> None:
    assert read_proposer(encode(greeting(5))) == Greeting(TENANT, TIMELINE, 5)
    assert read_proposer(encode(VoteRequest(3, 5))) == VoteAsked(3, 5)
    assert read_proposer(encode(elected(3))) == Elected(3, 8, ((0, 0), (3, 8)))
    assert read_proposer(encode(append(3))) == Led(3, 11, 0)
    assert read_safekeeper(encode(AcceptorGreeting(1, 4))) == TermTold(4)
    assert read_safekeeper(encode(vote(3, True, 64, 2))) == Voted(3, True, 64, 2, 0)
    assert read_safekeeper(encode(appended(3, 99))) == Appended(3, 99)
    for other in (b"w" + bytes(40), b"k", b"r", b""):
        assert read_proposer(other) is None
        assert read_safekeeper(other) is None


@pytest.mark.parametrize("cut", range(1, 40))
def test_frames_are_found_however_bytes_arrive(cut: int) -> None:
    query = b"Q" + struct.pack(">I", 6) + b"x\0"
    stream = START_UP + query + frame(VoteRequest(1, 2)) + frame(append(1, b"x" * 50)) + b"d\0"
    frames = Frames(from_client=True)
    found = [p for at in range(0, len(stream), cut) for p in frames.feed(stream[at : at + cut])]
    assert found == [encode(VoteRequest(1, 2)), encode(append(1, b"x" * 50))]


class Talk:
    """Safekeepers and proposers that say what a test has them say."""

    def __init__(self, quorum: int = 2) -> None:
        self.deleted: list[tuple[str, Timeline]] = []
        self.oracle = ConsensusMessages(quorum, lambda *which: which in self.deleted)
        self._open: dict[tuple[int, str], Conversation] = {}

    def ask(self, proposer: int, safekeeper: str, *messages: Message) -> Talk:
        talk = self._open.get((proposer, safekeeper))
        if talk is None:
            talk = self._open[proposer, safekeeper] = Conversation(
                self.oracle, SafekeeperLogs(2), safekeeper
            )
            talk.from_client(START_UP + frame(greeting(proposer)))
        assert talk.from_client(b"".join(map(frame, messages))) == len(messages)
        return self

    def answer(self, proposer: int, safekeeper: str, *messages: Message) -> Talk:
        self.ask(proposer, safekeeper)
        talk = self._open[proposer, safekeeper]
        assert talk.from_safekeeper(b"".join(map(frame, messages))) == len(messages)
        return self

    def elect(self, proposer: int, term: int, voters: str = "ab", *, flush: int = 0) -> Talk:
        """``flush``: where the voters' logs end, in term 1 if they have any."""
        for voter in voters:
            self.ask(proposer, voter, VoteRequest(term, proposer))
            self.answer(proposer, voter, vote(term, True, flush, int(flush > 0)))
        for voter in voters:
            self.ask(proposer, voter, elected(term), append(term))
        return self

    def event(self, kind: str, **fields: object) -> Talk:
        self.oracle.observe(Event(0.0, "a", kind, fields))  # type: ignore[arg-type]
        return self


GOOD: dict[str, Callable[[Talk], object]] = {
    "two terms, two leaders": lambda t: t.elect(1, 1).elect(2, 2, "bc"),
    "a vote again for the same": lambda t: t.elect(1, 1).answer(1, "a", vote(1, True)),
    "a refusal": lambda t: t.elect(1, 1).ask(2, "a", VoteRequest(1, 2)).answer(
        2, "a", vote(1, False)
    ),
    "a log that a later term cut": lambda t: t.elect(1, 1)
    .answer(1, "a", appended(1, 99))
    .elect(2, 2, flush=99)
    .answer(2, "a", appended(2, 50))
    .answer(3, "a", vote(3, True, 50, 2)),
    "a log that grew": lambda t: t.elect(1, 1)
    .answer(1, "a", appended(1, 99))
    .answer(2, "a", vote(2, True, 120, 1)),
    "a log that has not reached where the term begins": lambda t: t.elect(1, 1)
    .answer(1, "a", appended(1, 7))
    .answer(2, "a", vote(2, True, 7, 0)),
    "a log that the next leader cuts before it dies": lambda t: t.elect(1, 1)
    .answer(1, "a", appended(1, 99))
    .elect(2, 2, "bc")
    .ask(2, "a", elected(2))
    .answer(3, "a", vote(3, True, 7, 0)),
    "another term tells what is durable": lambda t: t.elect(1, 1)
    .answer(1, "a", appended(2, 99))
    .answer(2, "a", vote(3, True)),
    "a wiped disk": lambda t: t.elect(1, 1).event("process", state="wiped").answer(
        2, "a", vote(1, True)
    ),
    "a damaged disk": lambda t: t.elect(1, 1)
    .event("fault", damage=True, verb="begin", target="a c")
    .answer(2, "a", vote(1, True)),
    "a deleted timeline": lambda t: (
        t.elect(1, 1), t.deleted.append(("a", NAMED)), t.answer(2, "a", vote(1, True))
    ),
}  # fmt: skip

BAD: dict[str, Callable[[Talk], object]] = {
    r"a votes in term 1 for 1 and 2": lambda t: (
        t.elect(1, 1).ask(2, "a", VoteRequest(1, 2)).answer(2, "a", vote(1, True))
    ),
    "term 1 has two leaders: 1 and 2": lambda t: t.elect(1, 1).ask(2, "c", append(1)),
    "proposer 1 leads in term 1 with the votes of a; 2 are needed": lambda t: t.elect(1, 1, "a"),
    "leads in term 4 with the votes of nobody": lambda t: t.elect(1, 1).ask(1, "a", append(4)),
    "a is at term 3 after term 5": lambda t: t.answer(1, "a", AcceptorGreeting(1, 5)).answer(
        2, "a", AcceptorGreeting(1, 3)
    ),
    "a is at term 1 after term 5": lambda t: (
        t.elect(1, 1).answer(2, "a", AcceptorGreeting(1, 5)).answer(1, "a", appended(1, 9))
    ),
    r"has WAL up to 0/32 of term 1 in its vote, but said 0/63 of term 1": lambda t: (
        t.elect(1, 1).answer(1, "a", appended(1, 99)).answer(2, "a", vote(2, True, 50, 1))
    ),
    r"of term 0 in its vote, but said 0/63 of term 1": lambda t: (
        t.elect(1, 1).answer(1, "a", appended(1, 99)).answer(2, "a", vote(2, False, 500, 0))
    ),
    "for 1 and 2": lambda t: (
        t.elect(1, 1)
        .event("process", state="started")
        .ask(2, "a", VoteRequest(1, 2))
        .answer(2, "a", vote(1, True))
    ),
}


@pytest.mark.parametrize("name", GOOD)
def test_kept_promises(name: str) -> None:
    GOOD[name](Talk())


@pytest.mark.parametrize("says", BAD)
def test_broken_promises(says: str) -> None:
    with pytest.raises(CheckFailed, match=says) as failure:
        BAD[says](Talk())
    assert failure.value.checker == "consensus_messages"
    assert f"timeline {TENANT}/{TIMELINE}" in str(failure.value)


def test_a_connection_of_another_kind_is_left_alone() -> None:
    talk = Conversation(ConsensusMessages(2, lambda *_: False), SafekeeperLogs(2), "a")
    status = b"r" + bytes(33)
    assert talk.from_client(START_UP + b"d" + struct.pack(">I", 38) + status) == 0
    assert talk.from_safekeeper(frame(vote(1, True))) == 0
    reader = Conversation(ConsensusMessages(2, lambda *_: False), SafekeeperLogs(2), "a")
    assert reader.from_safekeeper(b"d" + struct.pack(">I", 29) + b"w" + bytes(24)) == 0
    assert reader.from_client(START_UP + frame(greeting(1)) + frame(append(1))) == 0
