"""The proposer as a pure state machine: messages in, effects out; no I/O, clock or randomness.

One object is one campaign: it asks for one term and, if it wins, leads until a higher term shows
up. Rules after Neon's ``walproposer.c`` and its TLA+ module ProposerAcceptorStatic:

* term = highest term heard from a quorum + 1; a vote is counted once, and only if given;
* the voter with the highest (last log term, flush LSN) is the donor; its end is the epoch start;
* nobody is told of the victory before every byte of the tail up to the epoch start is held here;
* WAL counts as committed at the quorum-th flush LSN, and only once that reaches the epoch start.
"""

from __future__ import annotations

from collections.abc import Sequence

from storage.consensus.messages import (
    PROTOCOL_VERSION,
    AcceptorGreeting,
    AcceptorMessage,
    AppendRequest,
    AppendResponse,
    ProposerElected,
    ProposerGreeting,
    VoteRequest,
    VoteResponse,
)
from storage.consensus.term_history import TermHistory, highest_common_point
from storage.consensus.wal_run import WalRun
from storage.errors import ProtocolError
from storage.lsn import INVALID_LSN, Lsn
from storage.marks import Mark, reach
from storage.walproposer.campaign import (
    ANSWERS,
    CampaignOptions,
    Committed,
    Effect,
    Established,
    Lost,
    Peer,
    PeerPhase,
    Phase,
    Recover,
    Send,
    Superseded,
    Won,
)


class Campaign:
    """One campaign and, once won, the leadership that follows.

    ``progress`` grows with every vote and every flush, so that a standstill can be noticed.
    """

    def __init__(self, options: CampaignOptions) -> None:
        members = options.members
        if not members or len(set(members)) != len(members):
            raise ValueError(f"safekeepers {members!r} must be one or more different addresses")
        self.options = options
        self.phase = Phase.GATHERING
        self.term = 0
        self.peers = {name: Peer(name) for name in members}
        self.established = False
        self.progress = 0
        self.term_history: TermHistory | None = None
        self.start_lsn = INVALID_LSN
        self.commit_lsn = INVALID_LSN
        self.truncate_lsn = INVALID_LSN
        self.remote_consistent_lsn = INVALID_LSN
        self.log = WalRun(INVALID_LSN)
        self._quorum = len(members) // 2 + 1
        self._votes: dict[str, VoteResponse] = {}
        self._refusals: set[str] = set()

    @property
    def ended(self) -> bool:
        """Whether the campaign was lost or the leadership is over."""
        return self.phase in (Phase.LOST, Phase.DEPOSED)

    def connected(self, name: str) -> list[Effect]:
        """A fresh connection to an acceptor stands."""
        peer = self.peers[name]
        assert peer.phase is PeerPhase.OFFLINE, f"{name} is connected twice"
        peer.phase = PeerPhase.GREETING
        o = self.options
        return [
            Send(
                name,
                ProposerGreeting(
                    PROTOCOL_VERSION,
                    o.tenant_id,
                    o.timeline_id,
                    o.proposer_id,
                    o.system_id,
                    o.pg_version,
                    o.wal_segment_size,
                ),
            )
        ]

    def disconnected(self, name: str) -> None:
        """The connection is gone; votes given and flushes acknowledged stay true."""
        peer = self.peers[name]
        peer.phase = PeerPhase.OFFLINE
        peer.in_flight.clear()

    def step(self, name: str, message: AcceptorMessage) -> list[Effect]:
        """Take one message; ``ProtocolError`` if it may not arrive now."""
        peer = self.peers[name]
        if peer.phase is not ANSWERS[type(message)] or self.ended:
            raise ProtocolError(
                f"{type(message).__name__} from {name} while {peer.phase.value}/{self.phase.value}"
            )
        match message:
            case AppendResponse():
                return self._append_response(peer, message)
            case AcceptorGreeting():
                return self._greeting(peer, message)
            case VoteResponse():
                return self._vote_response(peer, message)

    def _greeting(self, peer: Peer, message: AcceptorGreeting) -> list[Effect]:
        peer.phase, peer.term = PeerPhase.GREETED, message.term
        if self.phase is Phase.GATHERING:
            return self._choose_term()
        if message.term > self.term:
            return self._higher_term(message.term)
        return [self._ask_vote(peer)]

    def _choose_term(self) -> list[Effect]:
        greeted = [p for p in self.peers.values() if p.phase is PeerPhase.GREETED]
        if not self._is_quorum(len(greeted)):
            return []
        self.term = max(self.options.term_floor, *(p.term for p in greeted)) + 1
        self.phase = Phase.VOTING
        return [self._ask_vote(peer) for peer in greeted]

    def _ask_vote(self, peer: Peer) -> Send:
        peer.phase = PeerPhase.VOTING
        return Send(peer.name, VoteRequest(self.term, self.options.proposer_id))

    def _vote_response(self, peer: Peer, vote: VoteResponse) -> list[Effect]:
        peer.phase, peer.vote, peer.term = PeerPhase.VOTED, vote, vote.term
        if vote.term > self.term:
            return self._higher_term(vote.term)
        if vote.term < self.term:
            raise ProtocolError(f"{peer.name} answers a vote for {self.term} with {vote.term}")
        if self.phase is Phase.LEADING:
            return [self._start_streaming(peer)]
        if self.phase is not Phase.VOTING:
            return []
        return self._count_vote(peer.name, vote)

    def _count_vote(self, name: str, vote: VoteResponse) -> list[Effect]:
        if vote.given:
            self.progress += 1
            self._votes[name] = vote
            return self._win() if self._is_quorum(len(self._votes)) else []
        if name not in self._votes:
            self._refusals.add(name)
        if self._is_quorum(len(self.peers) - len(self._refusals)):
            return []
        return self._lose(self.term, "too many safekeepers voted for another in this term")

    def _win(self) -> list[Effect]:
        votes = list(self._votes.values())
        starts = sorted({vote.timeline_start_lsn for vote in votes})
        if len(starts) > 1:
            raise ProtocolError(f"safekeepers disagree on the timeline's start: {starts}")
        donor = max(self._votes, key=lambda name: _log_position(self._votes[name]))
        best = self._votes[donor]
        self.start_lsn = best.flush_lsn
        self.term_history = best.term_history.up_to(best.flush_lsn).extended(
            self.term, self.start_lsn
        )
        self.truncate_lsn = max(vote.truncate_lsn for vote in votes)
        self.commit_lsn = max(vote.commit_lsn for vote in votes)
        if self.commit_lsn > self.start_lsn:
            raise ProtocolError(
                f"{self.commit_lsn} was committed, but no voter has WAL beyond {self.start_lsn}"
            )
        self.phase = Phase.RECOVERING
        begin = self._recovery_begin()
        self.log = WalRun(begin)
        if begin == self.start_lsn:
            return self.recovered([])
        return [Recover(donor, begin, self.start_lsn)]

    def _recovery_begin(self) -> Lsn:
        """From where voters need WAL, unless that is too long ago; always all uncommitted WAL."""
        assert self.term_history is not None
        needed = [
            highest_common_point(self.term_history, vote.term_history, vote.flush_lsn).lsn
            for vote in self._votes.values()
        ]
        oldest_lsn = self.start_lsn - self.options.wal_retained_bytes_max
        affordable = [lsn for lsn in needed if lsn >= oldest_lsn]
        return min([self.commit_lsn, *affordable])

    def recovered(self, pieces: Sequence[bytes]) -> list[Effect]:
        """The donor's tail, in pieces of whole records; ``ProtocolError`` if bytes are missing."""
        assert self.phase is Phase.RECOVERING, self.phase
        for piece in pieces:
            self.log.append(self.log.end_lsn, piece)
        self._check_recovery_complete()
        self.phase = Phase.LEADING
        effects: list[Effect] = [Won(self.term, self.start_lsn)]
        for peer in self.peers.values():
            if peer.phase is PeerPhase.VOTED:
                effects.append(self._start_streaming(peer))
        return effects

    def _check_recovery_complete(self) -> None:
        if self.log.end_lsn != self.start_lsn:
            raise ProtocolError(
                f"recovery ended at {self.log.end_lsn}, the epoch starts at {self.start_lsn}"
            )

    def _start_streaming(self, peer: Peer) -> Send:
        assert peer.vote is not None and self.term_history is not None
        vote = peer.vote
        start = highest_common_point(self.term_history, vote.term_history, vote.flush_lsn).lsn
        if start < vote.commit_lsn:
            raise ProtocolError(f"{peer.name} committed {vote.commit_lsn}, ours parts at {start}")
        if start < vote.flush_lsn:
            reach(Mark.PARTED_VOTER)
        peer.phase = PeerPhase.STREAMING
        peer.next_lsn, peer.flush_lsn, peer.announced_lsn = start, INVALID_LSN, INVALID_LSN
        peer.in_flight.clear()
        return Send(peer.name, ProposerElected(self.term, start, self.term_history))

    def _append_response(self, peer: Peer, response: AppendResponse) -> list[Effect]:
        if response.term > self.term:
            return self._higher_term(response.term)
        if response.flush_lsn > peer.next_lsn:
            raise ProtocolError(
                f"{peer.name} flushed up to {response.flush_lsn}, was sent up to {peer.next_lsn}"
            )
        self.progress += response.flush_lsn > peer.flush_lsn
        peer.flush_lsn = response.flush_lsn
        while peer.in_flight and peer.in_flight[0] <= response.flush_lsn:
            peer.in_flight.popleft()
        if response.remote_consistent_lsn > self.remote_consistent_lsn:
            self.remote_consistent_lsn = response.remote_consistent_lsn
        return self._advance_commit()

    def _advance_commit(self) -> list[Effect]:
        lsn = self._quorum_flush_lsn()
        if lsn < self.start_lsn:
            return []
        effects: list[Effect] = []
        if lsn > self.commit_lsn:
            self.commit_lsn = lsn
            effects.append(Committed(lsn))
        self._advance_truncate()
        if not self.established:
            self.established = True
            effects.append(Established())
        return effects

    def _quorum_flush_lsn(self) -> Lsn:
        """The highest LSN that a quorum of this member list has flushed."""
        flushed = sorted([peer.flush_lsn for peer in self.peers.values()], reverse=True)
        return flushed[self._quorum - 1]

    def _advance_truncate(self) -> None:
        everywhere = min(peer.flush_lsn for peer in self.peers.values())
        self.truncate_lsn = max(self.truncate_lsn, min(everywhere, self.commit_lsn))
        surplus_end = self.log.end_lsn - self.options.wal_retained_bytes_max
        self.log.forget(Lsn(min(self.commit_lsn, max(everywhere, surplus_end, 0))))

    def append(self, begin_lsn: Lsn, data: bytes) -> None:
        """New WAL of ours, whole records, right after the last."""
        assert self.phase is Phase.LEADING, f"WAL arrives while {self.phase.value}"
        self.log.append(begin_lsn, data)

    def next_append(self, name: str) -> AppendRequest | None:
        """The next WAL to send to an acceptor, as much as fits; ``None`` when it must wait.

        With several requests unanswered small pieces wait and travel together.
        """
        peer = self.peers[name]
        if peer.phase is not PeerPhase.STREAMING or peer.next_lsn >= self.log.end_lsn:
            return None
        assert not self.is_behind(name), f"{name} needs WAL from {peer.next_lsn}: read it back"
        room = len(peer.in_flight) < self.options.appends_in_flight_max
        if not room and self.log.end_lsn - peer.next_lsn < self.options.append_bytes_max:
            return None
        return self.forward(name, self.log.take(peer.next_lsn, self.options.append_bytes_max))

    def forward(self, name: str, data: bytes) -> AppendRequest:
        """A request with ``data``, whole records that begin at the acceptor's next LSN."""
        peer = self.peers[name]
        assert peer.phase is PeerPhase.STREAMING, f"{name} is {peer.phase.value}"
        begin = peer.next_lsn
        end = Lsn(begin + len(data))
        peer.next_lsn = end
        peer.in_flight.append(end)
        return self._request(peer, begin, data, reply_requested=False)

    def announcement(self, name: str, *, reply_requested: bool) -> AppendRequest | None:
        """A request without WAL: the acceptor was not told the commit LSN yet, or must answer."""
        peer = self.peers[name]
        if peer.phase is not PeerPhase.STREAMING:
            return None
        if not reply_requested and min(self.commit_lsn, peer.next_lsn) <= peer.announced_lsn:
            return None
        return self._request(peer, peer.next_lsn, b"", reply_requested=reply_requested)

    def _request(
        self, peer: Peer, begin_lsn: Lsn, data: bytes, *, reply_requested: bool
    ) -> AppendRequest:
        peer.announced_lsn = min(self.commit_lsn, peer.next_lsn)
        return AppendRequest(
            self.term, begin_lsn, peer.announced_lsn, self.truncate_lsn, reply_requested, data
        )

    def is_behind(self, name: str) -> bool:
        """Whether an acceptor needs WAL that memory does not hold any more."""
        peer = self.peers[name]
        return peer.phase is PeerPhase.STREAMING and peer.next_lsn < self.log.begin_lsn

    def donor_for(self, name: str) -> tuple[str, Lsn] | None:
        """Who can give an acceptor the WAL it lacks, and up to which LSN."""
        donor = self.holder_of(Lsn(self.peers[name].next_lsn + 1))
        return None if donor is None else (donor, self.peers[donor].flush_lsn)

    def holder_of(self, end_lsn: Lsn) -> str | None:
        """The acceptor online with most of our log, if it has all of it up to ``end_lsn``."""
        holders = [
            peer
            for peer in self.peers.values()
            if peer.phase is PeerPhase.STREAMING and peer.flush_lsn >= end_lsn
        ]
        return max(holders, key=lambda peer: peer.flush_lsn).name if holders else None

    def give_up(self, reason: str) -> list[Effect]:
        """Start over in a higher term: only before anybody was told that this one is settled."""
        assert not self.ended, self.phase
        return self._lose(self.term, reason)

    def _higher_term(self, term: int) -> list[Effect]:
        if self.phase in (Phase.RECOVERING, Phase.LEADING):
            self.phase = Phase.DEPOSED
            return [Superseded(term)]
        return self._lose(term, f"a safekeeper has seen term {term}")

    def _lose(self, term: int, reason: str) -> list[Effect]:
        self.phase = Phase.LOST
        return [Lost(max(term, self.term), reason)]

    def _is_quorum(self, count: int) -> bool:
        return count >= self._quorum


def _log_position(vote: VoteResponse) -> tuple[int, Lsn]:
    """What makes one log newer than another."""
    return vote.term_history.up_to(vote.flush_lsn).last_term, vote.flush_lsn
