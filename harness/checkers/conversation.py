"""One connection to a safekeeper, as it is read between the two: who says what to whom.

A proposer's connection is judged by the oracles of consensus, any other by what it is sent of the
WAL: ordinary readers see what is committed.
"""

from __future__ import annotations

import re
import struct

from harness.checkers.consensus_messages import ConsensusMessages
from harness.checkers.consensus_wire import (
    Appended,
    Elected,
    Frames,
    Greeting,
    Led,
    Message,
    TermTold,
    VoteAsked,
    Voted,
    read_proposer,
    read_safekeeper,
)
from harness.checkers.safekeeper_logs import SafekeeperLogs, Timeline

_TENANT = re.compile(rb"tenant_id=([0-9a-f]{32})")
_TIMELINE = re.compile(rb"timeline_id=([0-9a-f]{32})")
_START = re.compile(rb"START_REPLICATION[^\0]*\0")
_XLOG_DATA = struct.Struct(">cQQ")
_ASKED_MAX = 4096
"""A reader says within so many bytes what it wants."""


class Conversation:
    """Each direction takes bytes and returns how many messages it judged, or ``CheckFailed``."""

    def __init__(self, oracle: ConsensusMessages, logs: SafekeeperLogs, safekeeper: str) -> None:
        self._oracle = oracle
        self._logs = logs
        self._safekeeper = safekeeper
        self._reader: Reader | None = None
        self._first = b""
        self._asked = Frames(from_client=True)
        self._answered = Frames(from_client=False)
        self._greeting: Greeting | None = None
        self._vote_of = 0
        self._term = 0
        self._elected: Elected | None = None

    def from_client(self, data: bytes) -> int:
        """Bytes to the safekeeper."""
        if self._reader is not None:
            return 0
        if self._greeting is None:
            self._first += data
            if reader := Reader.of(self._logs, self._safekeeper, self._first):
                self._reader = reader
                return 0
        count = 0
        for payload in self._asked.feed(data):
            message = read_proposer(payload)
            if message is None or (self._greeting is None) != isinstance(message, Greeting):
                self._reader = Reader.of_nothing(self._logs, self._safekeeper)
                break
            self._take_asked(message)
            count += 1
        return count

    def from_safekeeper(self, data: bytes) -> int:
        """Bytes from the safekeeper."""
        if self._reader is not None:
            return self._reader.take(data)
        count = 0
        for payload in self._answered.feed(data):
            message = read_safekeeper(payload)
            if message is None or self._greeting is None:
                self._reader = Reader.of_nothing(self._logs, self._safekeeper)
                break
            self._take_answer(message, (self._greeting.tenant, self._greeting.timeline))
            count += 1
        return count

    def _take_asked(self, message: Message) -> None:
        if isinstance(message, Greeting):
            self._greeting, self._first = message, b""
        elif isinstance(message, VoteAsked):
            self._vote_of = message.proposer
        elif isinstance(message, Led | Elected):
            assert self._greeting is not None, "a leader has greeted"
            self._take_led(message, (self._greeting.tenant, self._greeting.timeline))

    def _take_led(self, message: Led | Elected, timeline: Timeline) -> None:
        assert self._greeting is not None, "a leader has greeted"
        if message.term != self._term:
            self._term = message.term
            self._oracle.led(timeline, message.term, self._greeting.proposer)
        if isinstance(message, Elected):
            self._elected = message
            self._oracle.may_cut(self._safekeeper, timeline, message.term)
            self._logs.elected(self._safekeeper, timeline, message)
        elif self._elected is not None and self._elected.term == message.term:
            self._logs.sent(self._safekeeper, timeline, message, self._elected.history)

    def _take_answer(self, message: Message, timeline: Timeline) -> None:
        oracle, safekeeper = self._oracle, self._safekeeper
        if isinstance(message, Appended):
            if self._elected is not None:
                self._logs.answered(safekeeper, timeline, message, self._elected)
                if message.term == self._term == oracle.promises(safekeeper, timeline).led_by:
                    self._note_durable(message, timeline)
            oracle.term_told(safekeeper, timeline, message.term)
        elif isinstance(message, Voted):
            oracle.term_told(safekeeper, timeline, message.term)
            oracle.voted(safekeeper, timeline, message, self._vote_of)
            self._logs.voted(safekeeper, timeline, message)
        elif isinstance(message, TermTold):
            oracle.term_told(safekeeper, timeline, message.term)

    def _note_durable(self, message: Appended, timeline: Timeline) -> None:
        """A log that has not reached where a term begins is still one of the term before."""
        assert self._elected is not None, "a leader has told its history"
        reached = [term for term, lsn in self._elected.history if lsn <= message.flush_lsn]
        if reached:
            self._oracle.appended(self._safekeeper, timeline, max(reached), message.flush_lsn)


class Reader:
    """What follows START_REPLICATION; without a ``timeline`` nothing is judged."""

    def __init__(self, logs: SafekeeperLogs, safekeeper: str, timeline: Timeline | None) -> None:
        self._logs = logs
        self._safekeeper = safekeeper
        self._timeline = timeline
        self._frames = Frames(from_client=False)

    @classmethod
    def of(cls, logs: SafekeeperLogs, safekeeper: str, asked: bytes) -> Reader | None:
        """Who asks for committed WAL, or something else; ``None`` as long as that is open."""
        start = _START.search(asked)
        if start is None:
            return cls.of_nothing(logs, safekeeper) if len(asked) > _ASKED_MAX else None
        tenant, timeline = _TENANT.search(asked), _TIMELINE.search(asked)
        if tenant is None or timeline is None or b"term" in start.group():
            return cls.of_nothing(logs, safekeeper)
        return cls(logs, safekeeper, (tenant[1].decode(), timeline[1].decode()))

    @classmethod
    def of_nothing(cls, logs: SafekeeperLogs, safekeeper: str) -> Reader:
        """Somebody else, who is left alone."""
        return cls(logs, safekeeper, None)

    def take(self, data: bytes) -> int:
        """Bytes from the safekeeper."""
        if self._timeline is None:
            return 0
        count = 0
        for payload in self._frames.feed(data):
            if payload[:1] == b"w":
                count += 1
                _, _, end_lsn = _XLOG_DATA.unpack_from(payload)
                self._logs.read(self._safekeeper, self._timeline, end_lsn)
        return count
