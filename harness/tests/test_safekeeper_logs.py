"""What is said of safekeepers' logs: every broken promise is named, and none that was kept."""

from __future__ import annotations

import struct
from collections.abc import Callable

import pytest

from harness.backend import Event
from harness.checkers.consensus_messages import ConsensusMessages
from harness.checkers.consensus_wire import Appended, Elected, Led, Voted
from harness.checkers.conversation import Conversation
from harness.checkers.safekeeper_logs import SafekeeperLogs, up_to
from harness.errors import CheckFailed

TENANT, TIMELINE = "0a" * 16, "0b" * 16
NAMED = (TENANT, TIMELINE)
BASE = (1, 100)


class Story:
    """A timeline that begins at 100 in term 1, told from there on."""

    def __init__(self) -> None:
        self.logs = SafekeeperLogs(2)
        self._told: dict[tuple[str, int], Elected] = {}

    def vote(
        self, who: str, term: int, *, flush: int = 100, log_term: int = 0, commit: int = 0
    ) -> Story:
        self.logs.voted(who, NAMED, Voted(term, True, flush, log_term, commit))
        return self

    def elect(self, whom: str, term: int, start: int = 100, *before: tuple[int, int]) -> Story:
        """Each of ``whom`` is told to cut at ``start``, where the term starts too."""
        history = (*(before or (BASE,)), (term, start))
        for who in whom:
            self._told[who, term] = Elected(term, start, history)
            self.logs.elected(who, NAMED, self._told[who, term])
        return self

    def lead(self, whom: str, term: int, start: int = 100, *before: tuple[int, int]) -> Story:
        """They cut, and answer."""
        return self.elect(whom, term, start, *before).flushed(whom, term, start)

    def send(self, whom: str, term: int, end: int, commit: int = 0) -> Story:
        for who in whom:
            told = self._told[who, term]
            self.logs.sent(who, NAMED, Led(term, end, commit), told.history)
        return self

    def flushed(self, whom: str, term: int, lsn: int) -> Story:
        for who in whom:
            self.logs.answered(who, NAMED, Appended(term, lsn), self._told[who, term])
        return self

    def wrote(self, whom: str, term: int, end: int) -> Story:
        """WAL is sent and flushed."""
        return self.send(whom, term, end).flushed(whom, term, end)

    def lsn(self, who: str, name: str, value: int) -> Story:
        fields = {"tenant": TENANT, "timeline": TIMELINE, "name": name, "value": value}
        self.logs.observe(Event(0.0, who, "lsn", fields))
        return self

    def event(self, kind: str, who: str, **fields: object) -> Story:
        self.logs.observe(Event(0.0, who, kind, fields))  # type: ignore[arg-type]
        return self

    def restart(self, who: str) -> Story:
        return self.event("process", who, state="started")

    def read(self, who: str, end: int) -> Story:
        self.logs.read(who, NAMED, end)
        return self


def parted() -> Story:
    """Term 2 wrote 200 to ``a`` alone; term 3 begins at 100 on the others and commits 150."""
    story = Story().vote("a", 2).lead("abc", 2).wrote("a", 2, 200)
    return story.lead("bc", 3, 100, BASE).wrote("bc", 3, 150).send("bc", 3, 150, commit=150)


GOOD: dict[str, Callable[[], object]] = {
    "a quorum flushed it": lambda: (
        Story().lead("abc", 2).wrote("ab", 2, 150).send("abc", 2, 150, commit=150)
    ),
    "a voter told it": lambda: (
        Story().vote("a", 2, commit=90).elect("a", 2).send("a", 2, 100, commit=90)
    ),
    "one that lags is told less than the term's start": lambda: (
        Story().lead("ab", 2, 300).elect("c", 2, 300).send("c", 2, 200, commit=200)
    ),
    "the committed log is adopted": lambda: (
        parted().lead("a", 3, 100, BASE).wrote("a", 3, 150).lsn("a", "commit_lsn", 150)
    ),
    "it may have been adopted": lambda: (
        parted().elect("a", 3, 100, BASE).lsn("a", "commit_lsn", 150)
    ),
    "a copy from a peer may be any log": lambda: (
        parted()
        .event("catching_up", "a", tenant=TENANT, timeline=TIMELINE)
        .lsn("a", "flush_lsn", 900)
        .lsn("a", "commit_lsn", 150)
    ),
    "a wiped disk may be anything": lambda: (
        parted().event("process", "a", state="wiped").lsn("a", "commit_lsn", 150)
    ),
    "a damaged disk may be anything": lambda: (
        parted()
        .event("fault", "nemesis", damage=True, verb="begin", target="a")
        .lsn("a", "commit_lsn", 150)
        .read("a", 900)
    ),
    "a leader extends after a vote": lambda: (
        Story().vote("a", 2).elect("a", 2).send("a", 2, 150).lsn("a", "flush_lsn", 150)
    ),
    "a vote ends at a restart": lambda: (
        Story().vote("a", 2, flush=100).restart("a").lsn("a", "flush_lsn", 120)
    ),
    "a restart finds what was sent": lambda: (
        Story().lead("a", 2).send("a", 2, 150).restart("a").lsn("a", "flush_lsn", 150)
    ),
    "a restart finds a tail that was to be cut": lambda: (
        parted().elect("a", 3, 100, BASE).restart("a").lsn("a", "flush_lsn", 200)
    ),
    "a vote with all that a leader wrote": lambda: parted().vote("b", 4, flush=150, log_term=3),
    "a reader is sent what is committed": lambda: parted().read("b", 150),
}

BAD: dict[str, Callable[[], object]] = {
    r"leader of term 2.* calls 0/96 committed.*by 1 \(a\), 2 are needed": lambda: (
        Story().lead("ab", 2).wrote("a", 2, 150).send("b", 2, 150, commit=150)
    ),
    r"starts at 0/C8, calls 0/82 committed; .* by 1": lambda: (
        # Both have 130, one of them as its whole log: that is no commit of this term.
        Story().lead("a", 3, 200, BASE).elect("b", 3, 200, BASE).flushed("b", 3, 130)
        .send("a", 3, 200, commit=130)
    ),
    r"term 3 commits 0/C8 of a log of terms .*; up to 0/96 one of": lambda: (
        Story().lead("abc", 2).wrote("ab", 2, 150).send("c", 2, 150, commit=150)
        .lead("bc", 3, 120, BASE).wrote("bc", 3, 200).send("b", 3, 200, commit=200)
    ),
    r"a calls 0/96 committed, but its log is of terms .*\(2, 100\).*\(3, 100\)": lambda: (
        parted().lsn("a", "commit_lsn", 150)
    ),
    r"a ended at 0/64 when it gave its vote and grew to 0/78": lambda: (
        Story().vote("a", 2).lsn("a", "flush_lsn", 120)
    ),
    r"a finds 0/C8 after its restart; .* nothing beyond 0/64": lambda: (
        parted().lead("a", 3, 100, BASE).restart("a").lsn("a", "flush_lsn", 200)
    ),
    r"a votes with a log up to 0/C8 of term 3, whose leader wrote no further than 0/96": lambda: (
        parted().vote("a", 4, flush=200, log_term=3)
    ),
    r"b serves a reader WAL up to 0/97; nobody has called more than 0/96": lambda: (
        parted().read("b", 151)
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", GOOD)
def test_kept_promises(name: str) -> None:
    GOOD[name]()


@pytest.mark.parametrize("says", BAD)
def test_broken_promises(says: str) -> None:
    with pytest.raises(CheckFailed, match=says) as failure:
        BAD[says]()
    assert failure.value.checker == "safekeeper_logs"


def test_terms_that_wrote_nothing_are_left_out() -> None:
    history = ((1, 100), (2, 150), (3, 150), (4, 200))
    assert up_to(history, 200) == ((1, 100), (3, 150))
    assert up_to(history, 150) == ((1, 100),)
    assert up_to(history, 201) == ((1, 100), (3, 150), (4, 200))
    assert up_to(history, 100) == ()


def reader(story: Story, command: str, identity: str = "") -> Conversation:
    """A connection that asks for WAL."""
    who = identity or f"-c tenant_id={TENANT} -c timeline_id={TIMELINE}"
    options = b"options\0" + who.encode() + b"\0\0"
    start_up = struct.pack(">II", 8 + len(options), 196608) + options
    query = b"Q" + struct.pack(">I", 5 + len(command)) + command.encode() + b"\0"
    talk = Conversation(ConsensusMessages(2, lambda *_: False), story.logs, "b")
    for byte in start_up + query:
        assert talk.from_client(bytes((byte,))) == 0
    return talk


def wal(end: int) -> bytes:
    payload = b"w" + struct.pack(">QQQ", 100, end, 0) + b"bytes"
    return b"d" + struct.pack(">I", 4 + len(payload)) + payload


def test_readers_are_judged_by_what_they_are_sent() -> None:
    talk = reader(parted(), "START_REPLICATION PHYSICAL 0/64")
    assert talk.from_safekeeper(wal(150)) == 1
    with pytest.raises(CheckFailed, match="serves a reader"):
        talk.from_safekeeper(wal(151))


@pytest.mark.parametrize(
    ("command", "identity"),
    [
        ("START_REPLICATION PHYSICAL 0/64 TIMELINE 1 (term '2')", ""),
        ("START_REPLICATION PHYSICAL 0/64", "-c nothing=1"),
        ("IDENTIFY_SYSTEM" + " " * 5000, ""),
    ],
)
def test_proposers_and_strangers_are_left_alone(command: str, identity: str) -> None:
    assert reader(parted(), command, identity).from_safekeeper(wal(900)) == 0
