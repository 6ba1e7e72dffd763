"""The acceptor as a pure state machine: messages in, effects out; no I/O, clock or randomness.

Rules after Neon's ``safekeeper.rs`` and its TLA+ module ProposerAcceptorStatic:

* a vote is durable before its answer, and given at most once per term;
* what was received before a vote is flushed before it, so a told position cannot grow by itself;
* on election the log is cut where it parts from the winner's, durably, *before* the winner's
  history is adopted: history must never claim bytes of another term;
* WAL is acknowledged once flushed; commit_lsn never passes flush_lsn and nothing falls below it;
* without a proposer, only committed WAL may be taken over from peers or S3 (``catch_up``), until
  the next vote: from then on the log is that proposer's to extend.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from storage.consensus.messages import (
    PROTOCOL_VERSION,
    AcceptorGreeting,
    AcceptorMessage,
    AppendRequest,
    AppendResponse,
    ProposerElected,
    ProposerGreeting,
    ProposerMessage,
    VoteRequest,
    VoteResponse,
)
from storage.consensus.term_history import TermHistory, TermSwitch, highest_common_point
from storage.errors import CorruptData, ProtocolError
from storage.lsn import Lsn
from storage.marks import Mark, reach
from storage.safekeeper.control_state import ControlState


@dataclass(frozen=True, slots=True)
class PersistControl:
    """Make this control state durable before anything that follows."""

    control: ControlState


@dataclass(frozen=True, slots=True)
class TruncateWal:
    """Durably remove every byte of WAL from ``end_lsn`` on."""

    end_lsn: Lsn


@dataclass(frozen=True, slots=True)
class Reply:
    """Send ``message`` to the proposer."""

    message: AcceptorMessage


Effect = PersistControl | TruncateWal | Reply


@dataclass(frozen=True, slots=True)
class WriteBatch:
    """WAL to write and flush as one; ``commit_lsn`` may be adopted once it is durable."""

    begin_lsn: Lsn
    pieces: Sequence[bytes]
    end_lsn: Lsn
    commit_lsn: Lsn


class Acceptor:
    """The consensus state of one timeline on one safekeeper.

    ``flush_lsn`` ends the durable log; ``write_lsn`` ends what was accepted to be written.
    """

    def __init__(self, node_id: int, control: ControlState, flush_lsn: Lsn) -> None:
        if flush_lsn < control.commit_lsn:
            raise CorruptData(f"WAL ends at {flush_lsn}, before the commit at {control.commit_lsn}")
        self.identity = control.identity
        self.term = control.term
        self.term_history = control.term_history
        self.commit_lsn = control.commit_lsn
        self.peer_horizon_lsn = control.peer_horizon_lsn
        self.backup_lsn = control.backup_lsn
        self.remote_consistent_lsn = control.remote_consistent_lsn
        self.flush_lsn = flush_lsn
        self.write_lsn = flush_lsn
        self._node_id = node_id
        self._local_start_lsn = control.local_start_lsn
        self._tail_known = False
        self._pending: list[bytes] = []
        self._pending_commit_lsn = control.commit_lsn
        self._catching_up = False

    @property
    def local_start_lsn(self) -> Lsn:
        """Where this member's own WAL begins; what came before was never here."""
        return self._local_start_lsn

    @property
    def last_log_term(self) -> int:
        """The term of the newest entry of the durable log."""
        return self.durable_history().last_term

    def durable_history(self) -> TermHistory:
        """The adopted history, as far as there is durable WAL for it."""
        return self.term_history.up_to(self.flush_lsn)

    def control(self) -> ControlState:
        """The state to persist now."""
        return ControlState(
            identity=self.identity,
            term=self.term,
            term_history=self.term_history,
            commit_lsn=self.commit_lsn,
            peer_horizon_lsn=self.peer_horizon_lsn,
            backup_lsn=self.backup_lsn,
            remote_consistent_lsn=self.remote_consistent_lsn,
            local_start_lsn=self._local_start_lsn,
        )

    def must_flush_before(self, message: ProposerMessage) -> bool:
        """Whether all that was accepted must be flushed before :meth:`step` takes ``message``."""
        return isinstance(message, VoteRequest | ProposerElected) and (
            self.write_lsn > self.flush_lsn
        )

    def step(self, message: ProposerMessage) -> list[Effect]:
        """Take one message. ``ProtocolError``: nothing changed, and the sender must start over."""
        match message:
            case AppendRequest():
                return self._append(message)
            case ProposerGreeting():
                return self._greet(message)
            case VoteRequest():
                return self._vote(message)
            case ProposerElected():
                return self._elected(message)

    def _greet(self, greeting: ProposerGreeting) -> list[Effect]:
        ours = self.identity
        expected = {
            "protocol_version": PROTOCOL_VERSION,
            "tenant_id": ours.tenant_id,
            "timeline_id": ours.timeline_id,
            "system_id": ours.system_id,
            "pg_version": ours.pg_version,
            "wal_segment_size": ours.wal_segment_size,
        }
        for name, value in expected.items():
            if getattr(greeting, name) != value:
                raise ProtocolError(
                    f"the proposer's {name} is {getattr(greeting, name)}, the timeline's is {value}"
                )
        return [Reply(AcceptorGreeting(self._node_id, self.term))]

    def _vote(self, request: VoteRequest) -> list[Effect]:
        effects: list[Effect] = []
        self._catching_up = False
        given = self._may_vote(request)
        if given:
            self.term = request.term
            effects.append(PersistControl(self.control()))
        response = VoteResponse(
            term=self.term,
            given=given,
            flush_lsn=self.flush_lsn,
            commit_lsn=self.commit_lsn,
            truncate_lsn=self.peer_horizon_lsn,
            timeline_start_lsn=self.identity.start_lsn,
            term_history=self.durable_history(),
        )
        effects.append(Reply(response))
        return effects

    def _may_vote(self, request: VoteRequest) -> bool:
        return request.term > self.term

    def _elected(self, elected: ProposerElected) -> list[Effect]:
        if elected.term < self.term:
            reach(Mark.STALE_ELECTION)
            return [Reply(self.append_response())]
        if elected.term > self.term:
            raise ProtocolError(f"elected in {elected.term}, but the vote here was {self.term}")
        self._check_cut(elected)
        effects: list[Effect] = []
        if self._must_truncate(elected.start_lsn):
            effects.append(TruncateWal(elected.start_lsn))
        self.write_lsn = self.flush_lsn = elected.start_lsn
        self._tail_known, self._catching_up = True, False
        self.term_history = elected.term_history
        effects.append(PersistControl(self.control()))
        effects.append(Reply(self.append_response()))
        return effects

    def _check_cut(self, elected: ProposerElected) -> None:
        """Refuse a cut that is not where the logs part: the message is late or wrong."""
        point = self._divergence(elected).lsn
        if elected.start_lsn != point:
            reach(Mark.CUT_REFUSED)
            raise ProtocolError(f"told to cut at {elected.start_lsn}, the logs part at {point}")
        if point < self.commit_lsn:
            raise ProtocolError(f"told to cut at {point}, below the commit at {self.commit_lsn}")

    def _divergence(self, elected: ProposerElected) -> TermSwitch:
        return highest_common_point(elected.term_history, self.term_history, self.flush_lsn)

    def _must_truncate(self, start_lsn: Lsn) -> bool:
        """The first time after a boot or a failed write, what lies beyond the end is unknown."""
        return start_lsn < self.flush_lsn or not self._tail_known

    def _append(self, request: AppendRequest) -> list[Effect]:
        if request.term < self.term:
            reach(Mark.STALE_APPEND)
            return [Reply(self.append_response())]
        if request.term > self.term or self.term_history.last_term != request.term:
            raise ProtocolError(f"append in term {request.term} before its election is known here")
        if request.begin_lsn != self.write_lsn:
            raise ProtocolError(f"append at {request.begin_lsn}, the log ends at {self.write_lsn}")
        if not self._tail_known:
            raise ProtocolError("append after a failed write; get the log cut first")
        end_lsn = Lsn(request.begin_lsn + len(request.data))
        if request.commit_lsn > end_lsn:
            raise ProtocolError(f"commit {request.commit_lsn} lies beyond the append at {end_lsn}")
        self._adopt_horizon(request.truncate_lsn)
        if request.data:
            self._pending.append(request.data)
            self.write_lsn = end_lsn
        if request.commit_lsn > self._pending_commit_lsn:
            self._pending_commit_lsn = request.commit_lsn
        if self._pending_commit_lsn <= self.flush_lsn:
            self.adopt_commit(self._pending_commit_lsn)
        return [Reply(self.append_response())] if request.reply_requested else []

    def _adopt_horizon(self, truncate_lsn: Lsn) -> None:
        """A proposer may know an older value than we do; ours never goes back."""
        self.peer_horizon_lsn = max(self.peer_horizon_lsn, truncate_lsn)

    def hear_horizon(self, lsn: Lsn) -> None:
        """Every other member has flushed all that is committed before ``lsn``."""
        self._adopt_horizon(min(lsn, self.commit_lsn))

    def adopt_commit(self, commit_lsn: Lsn) -> None:
        """Everything before ``commit_lsn`` of our own history is committed; never goes back."""
        assert commit_lsn <= self.flush_lsn, f"commit {commit_lsn}, flushed {self.flush_lsn}"
        self.commit_lsn = max(self.commit_lsn, commit_lsn)

    def append_response(self) -> AppendResponse:
        """What is durable here now."""
        return AppendResponse(
            self.term, self.flush_lsn, self.commit_lsn, self.remote_consistent_lsn
        )

    def take_batch(self) -> WriteBatch | None:
        """All WAL accepted since the last batch, to be written and flushed; ``None`` if none."""
        if not self._pending:
            return None
        pieces, self._pending = self._pending, []
        begin = Lsn(self.write_lsn - sum(map(len, pieces)))
        assert begin == self.flush_lsn, "one batch is flushed before the next is taken"
        return WriteBatch(begin, pieces, self.write_lsn, self._pending_commit_lsn)

    def flushed(self, batch: WriteBatch) -> None:
        """``batch`` is durable."""
        assert batch.begin_lsn == self.flush_lsn, f"{batch.begin_lsn} does not follow the log"
        self.flush_lsn = batch.end_lsn
        self.adopt_commit(max(self.commit_lsn, batch.commit_lsn))

    def write_failed(self) -> None:
        """Writing or flushing failed: what lies beyond flush_lsn on the disk is unknown."""
        self._pending = []
        self.write_lsn = self.flush_lsn
        self._pending_commit_lsn = self.commit_lsn
        self._tail_known = self._catching_up = False

    def begin_catching_up(self, history: TermHistory, commit_lsn: Lsn) -> list[Effect]:
        """Get ready to take committed WAL up to ``commit_lsn`` from a peer or S3.

        ``history`` is the term history of that WAL. Ours is cut where the two part: what we have
        beyond is not committed, for a committed entry is in every log of a later term. Call only
        with nothing unflushed. ``ProtocolError`` if the other log denies our own commit.
        """
        assert self.write_lsn == self.flush_lsn, "what was accepted is flushed first"
        theirs = history.up_to(commit_lsn)
        point = min(self._common_point(theirs), commit_lsn)
        if point == commit_lsn:
            self.adopt_commit(commit_lsn)
            return []
        if point < self.commit_lsn:
            raise ProtocolError(
                f"a peer's log parts at {point}, below our commit {self.commit_lsn}"
            )
        effects: list[Effect] = []
        if self._must_truncate(point):
            effects.append(TruncateWal(point))
        self.write_lsn = self.flush_lsn = point
        self._tail_known = self._catching_up = True
        self.term_history = theirs
        self.term = max(self.term, theirs.last_term)
        effects.append(PersistControl(self.control()))
        return effects

    def _common_point(self, theirs: TermHistory) -> Lsn:
        return highest_common_point(theirs, self.term_history, self.flush_lsn).lsn

    def catch_up(self, begin_lsn: Lsn, data: bytes) -> None:
        """Committed WAL of a peer, whole records, to be flushed with the next batch.

        ``ProtocolError`` once a proposer has come, or if it does not follow our log.
        """
        if not self._catching_up:
            raise ProtocolError("a proposer takes care of this log now")
        if begin_lsn != self.write_lsn:
            raise ProtocolError(f"WAL at {begin_lsn}, the log ends at {self.write_lsn}")
        self._pending.append(data)
        self.write_lsn = self._pending_commit_lsn = Lsn(begin_lsn + len(data))

    def backup_due(self) -> bool:
        """Whether a whole segment is committed that is not in S3."""
        size = self.identity.wal_segment_size
        return self.commit_lsn // size > self.backup_lsn // size

    def may_back_up(self) -> bool:
        """Whether all WAL that is not in S3 is here; a newcomer may lack the beginning."""
        return self._local_start_lsn <= self.backup_lsn

    def hear_backup(self, lsn: Lsn) -> bool:
        """Everything before ``lsn`` is in S3; whether that was news."""
        believable = min(lsn, self.commit_lsn)
        if believable <= self.backup_lsn:
            return False
        self.backup_lsn = believable
        return True

    def election_failed(self, before: ControlState) -> None:
        """The effects of a vote or a cut failed half way; ``before`` is the state until then.

        A term that may not be durable must not be told: a restart could fall behind it. The log may
        not be cut, or only in part: what is left of it is of the old history, and whatever saves
        the control file next must not claim it for the winner.
        """
        self.term, self.term_history = before.term, before.term_history
        self.write_failed()

    def hear_peer(self, last_log_term: int, commit_lsn: Lsn) -> bool:
        """A peer with a log of ``last_log_term`` knows a commit; whether ours advanced by it.

        Two logs of one last term have the same history, so what is committed there is here too.
        """
        if last_log_term != self.last_log_term:
            return False
        reachable = min(commit_lsn, self.flush_lsn)
        if reachable <= self.commit_lsn:
            return False
        self.adopt_commit(reachable)
        return True

    def hear_remote_consistent(self, lsn: Lsn) -> bool:
        """A pageserver has everything before ``lsn`` in remote storage; whether that was news."""
        believable = min(lsn, self.commit_lsn)
        if believable <= self.remote_consistent_lsn:
            return False
        self.remote_consistent_lsn = believable
        return True

    def is_term(self, term: int) -> bool:
        """Whether a reader bound to ``term`` may still be served."""
        return self.term == term
