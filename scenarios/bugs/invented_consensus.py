"""Slips of our own making in safekeeper and walproposer: ways to break them that history lacks."""

from __future__ import annotations

from collections.abc import Sequence

from harness.bug import Bug
from scenarios.bugs.slip import slip
from storage.consensus.messages import (
    AppendRequest,
    AppendResponse,
    ProposerElected,
    ProposerMessage,
    VoteRequest,
    VoteResponse,
)
from storage.errors import ProtocolError
from storage.lsn import Lsn
from storage.safekeeper.control_state import ControlState
from storage.safekeeper.segments import WalSegments
from storage.safekeeper.sender import WalSender
from storage.safekeeper.state import Acceptor, Effect, PersistControl, Reply, TruncateWal
from storage.safekeeper.timeline import Timeline
from storage.walproposer import state as proposer_state
from storage.walproposer.campaign import Committed, Established, Peer
from storage.walproposer.campaign import Effect as CampaignEffect
from storage.walproposer.state import Campaign

_sender_limit = WalSender._limit_lsn
_vote = Acceptor._vote


def _one_too_few(self: Campaign, count: int) -> bool:
    return count >= self._quorum - 1


def _flushed_by_one_less(self: Campaign) -> Lsn:
    flushed = sorted([peer.flush_lsn for peer in self.peers.values()], reverse=True)
    return flushed[self._quorum - 2]


def _longest_log(vote: VoteResponse) -> tuple[int, Lsn]:
    return 0, vote.flush_lsn


def _commit_before_the_epoch(self: Campaign) -> list[CampaignEffect]:
    lsn = self._quorum_flush_lsn()
    effects: list[CampaignEffect] = []
    if lsn > self.commit_lsn:
        self.commit_lsn = lsn
        self._advance_truncate()
        effects.append(Committed(lsn))
    if lsn >= self.start_lsn and not self.established:
        self.established = True
        effects.append(Established())
    return effects


def _deaf_to_higher_terms(
    self: Campaign, peer: Peer, response: AppendResponse
) -> list[CampaignEffect]:
    if response.flush_lsn > peer.next_lsn:
        raise ProtocolError("more than was sent")
    self.progress += response.flush_lsn > peer.flush_lsn
    peer.flush_lsn = response.flush_lsn
    while peer.in_flight and peer.in_flight[0] <= response.flush_lsn:
        peer.in_flight.popleft()
    return self._advance_commit()


def _vote_again(self: Acceptor, request: VoteRequest) -> bool:
    return request.term >= self.term


def _vote_in_memory(self: Acceptor, request: VoteRequest) -> list[Effect]:
    return [each for each in _vote(self, request) if not isinstance(each, PersistControl)]


def _keep_the_term(self: Acceptor, before: ControlState) -> None:
    self.term_history = before.term_history
    self.write_failed()


def _tell_what_is_written(self: Acceptor) -> AppendResponse:
    return AppendResponse(self.term, self.write_lsn, self.commit_lsn, self.remote_consistent_lsn)


def _append_of_any_term(self: Acceptor, request: AppendRequest) -> list[Effect]:
    """Whoever writes on from the end is let, also a leader whose successor has our vote."""
    if request.begin_lsn != self.write_lsn:
        raise ProtocolError(f"append at {request.begin_lsn}, the log ends at {self.write_lsn}")
    if request.data:
        self._pending.append(request.data)
        self.write_lsn = Lsn(request.begin_lsn + len(request.data))
    self._pending_commit_lsn = max(self._pending_commit_lsn, request.commit_lsn)
    if self._pending_commit_lsn <= self.flush_lsn:
        self.adopt_commit(self._pending_commit_lsn)
    return [Reply(self.append_response())] if request.reply_requested else []


def _history_first(self: Acceptor, elected: ProposerElected) -> list[Effect]:
    """The winner's history is adopted before the log is cut."""
    if elected.term < self.term:
        return [Reply(self.append_response())]
    if elected.term > self.term:
        raise ProtocolError(f"elected in {elected.term}, but the vote here was {self.term}")
    self._check_cut(elected)
    must = self._must_truncate(elected.start_lsn)
    self.write_lsn = self.flush_lsn = elected.start_lsn
    self._tail_known = True
    self.term_history = elected.term_history
    effects: list[Effect] = [PersistControl(self.control())]
    if must:
        effects.append(TruncateWal(elected.start_lsn))
    return [*effects, Reply(self.append_response())]


def _commit_of_any_log(self: Acceptor, last_log_term: int, commit_lsn: Lsn) -> bool:
    reachable = min(commit_lsn, self.flush_lsn)
    if reachable <= self.commit_lsn:
        return False
    self.adopt_commit(reachable)
    return True


def _believe_any_remote(self: Acceptor, lsn: Lsn) -> bool:
    moved = lsn != self.remote_consistent_lsn
    self.remote_consistent_lsn = lsn
    return moved


def _flush_only_before_elected(self: Acceptor, message: ProposerMessage) -> bool:
    return isinstance(message, ProposerElected) and self.write_lsn > self.flush_lsn


async def _no_fdatasync(self: WalSegments) -> None:
    return


async def _close_unsynced(self: WalSegments) -> None:
    file, self._file = self._file, None
    if file is not None:
        await file.close()


async def _create_without_directory(self: WalSegments, segment: int) -> None:
    path = self._path(segment)
    file = await self._disk.open(f"{path}.tmp", create=True)
    try:
        await self._fill(file, 0)
        await file.fsync()
    finally:
        await file.close()
    await self._disk.rename(f"{path}.tmp", path)
    self._existing.add(segment)


async def _cut_whole_segments(self: WalSegments, end_lsn: Lsn) -> None:
    """Later segments go; the rest of the segment itself stays as it was."""
    await self.close()
    segment = end_lsn // self.segment_size
    for later in sorted((s for s in self._existing if s > segment), reverse=True):
        await self._disk.unlink(self._path(later))
        self._existing.discard(later)
    await self._disk.sync_dir(self._directory)


async def _cut_one_segment(self: WalSegments, end_lsn: Lsn) -> None:
    """The rest of the segment becomes zeros; later segments stay."""
    await self.close()
    segment, offset = divmod(int(end_lsn), self.segment_size)
    if segment in self._existing:
        file = await self._disk.open(self._path(segment))
        try:
            await self._fill(file, offset)
            await file.fsync()
        finally:
            await file.close()


async def _keep_recent(self: Timeline, end_lsn: Lsn) -> None:
    """What memory holds of the log's end survives the cut, as if it were still the log."""
    await self.segments.truncate(end_lsn)
    if self.reading._recent.begin_lsn > end_lsn:
        self.reading.cut(end_lsn)


def _everything_for_everybody(self: WalSender) -> Lsn:
    _sender_limit(self)
    return self._timeline.acceptor.flush_lsn


def _recover_for_any_term(self: Acceptor, term: int) -> bool:
    return True


BUGS: Sequence[Bug] = (
    slip("own-minority-elects", "O5", "elections", (Campaign, "_is_quorum", _one_too_few)),
    slip("own-minority-commits", "O1", "every run",
          (Campaign, "_quorum_flush_lsn", _flushed_by_one_less)),
    slip("own-donor-by-length", "O1 O2", "elections after a minority wrote on",
          (proposer_state, "_log_position", _longest_log)),
    slip("own-commit-before-epoch", "O1 O2", "elections with an uncommitted tail",
          (Campaign, "_advance_commit", _commit_before_the_epoch)),
    slip("own-deaf-leader", "O1 O10", "a leader that was replaced lives on",
          (Campaign, "_append_response", _deaf_to_higher_terms)),
    slip("own-votes-again", "O5", "two candidates", (Acceptor, "_may_vote", _vote_again)),
    slip("own-vote-in-memory", "O5", "a safekeeper crashes after its vote",
          (Acceptor, "_vote", _vote_in_memory)),
    slip("own-failed-vote-told", "O3", "the disk refuses to save a vote, and then a restart",
         (Acceptor, "election_failed", _keep_the_term)),
    slip("own-acks-what-is-written", "O1", "every run",
          (Acceptor, "append_response", _tell_what_is_written)),
    slip("own-appends-of-any-term", "O1 O2", "a leader that was replaced lives on",
          (Acceptor, "_append", _append_of_any_term)),
    slip("own-history-before-cut", "O1 O2", "a host dies in the middle of an election",
          (Acceptor, "_elected", _history_first)),
    slip("own-commit-of-any-log", "O2", "a safekeeper with a minority's tail hears of commits",
          (Acceptor, "hear_peer", _commit_of_any_log)),
    slip("own-remote-regress", "O3 O4", "several safekeepers hear of uploads",
          (Acceptor, "hear_remote_consistent", _believe_any_remote)),
    slip("own-vote-flushes-late", "O1 O3", "elections while WAL is being flushed",
          (Acceptor, "must_flush_before", _flush_only_before_elected)),
    slip("own-no-fdatasync", "O1", "a host dies", (WalSegments, "flush", _no_fdatasync)),
    slip("own-segment-closed-unsynced", "O1", "WAL crosses into another segment, a host dies",
          (WalSegments, "close", _close_unsynced)),
    slip("own-segment-name-lost", "O1", "a host dies after a new segment",
          (WalSegments, "_create", _create_without_directory)),
    slip("own-cut-whole-segments", "O2 O12", "an election cuts, then a host dies",
          (WalSegments, "truncate", _cut_whole_segments)),
    slip("own-cut-one-segment", "O2 O12", "an election cuts across segments",
          (WalSegments, "truncate", _cut_one_segment)),
    slip("own-recent-kept", "O2", "an election cuts", (Timeline, "_truncate", _keep_recent)),
    slip("own-uncommitted-to-readers", "O1 O2", "every run",
          (WalSender, "_limit_lsn", _everything_for_everybody)),
    slip("own-recovery-after-vote", "O2", "two candidates, one recovers",
          (Acceptor, "is_term", _recover_for_any_term)),
)  # fmt: skip
