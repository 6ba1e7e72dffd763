"""The acceptor's rules, one by one."""

from __future__ import annotations

from dataclasses import replace

import pytest

from storage.consensus import messages as m
from storage.consensus.term_history import TermHistory, TermSwitch
from storage.errors import CorruptData, ProtocolError
from storage.ids import TenantId, TimelineId
from storage.lsn import Lsn
from storage.safekeeper.control_state import ControlState, TimelineIdentity
from storage.safekeeper.state import Acceptor, PersistControl, Reply, TruncateWal

START = Lsn(100)
IDENTITY = TimelineIdentity(
    TenantId("a" * 32), TimelineId("b" * 32), START, 7, 16, 1 << 20, ("sk0:5454",)
)
GREETING = m.ProposerGreeting(
    m.PROTOCOL_VERSION, IDENTITY.tenant_id, IDENTITY.timeline_id, 1, 7, 16, 1 << 20
)


def acceptor(flush: int = 100, **control) -> Acceptor:
    return Acceptor(3, replace(ControlState.created(IDENTITY), **control), Lsn(flush))


def elected(term: int, epoch: int, start: int | None = None, *earlier: tuple[int, int]):
    switches = ((0, 100), *earlier, (term, epoch))
    history = TermHistory(tuple(TermSwitch(t, Lsn(lsn)) for t, lsn in switches))
    return m.ProposerElected(term, Lsn(epoch if start is None else start), history)


def append(term: int, begin: int, data: bytes = b"", commit: int = 100, **more):
    request = m.AppendRequest(term, Lsn(begin), Lsn(commit), Lsn(100), False, data)
    return request._replace(**more)


def lead(core: Acceptor, term: int = 1) -> Acceptor:
    core.step(m.VoteRequest(term, 1))
    core.step(elected(term, core.flush_lsn))
    return core


def flush(core: Acceptor) -> None:
    batch = core.take_batch()
    assert batch is not None
    core.flushed(batch)


def replies(effects) -> list:
    return [effect.message for effect in effects if isinstance(effect, Reply)]


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("protocol_version", 2),
        ("tenant_id", TenantId("c" * 32)),
        ("timeline_id", TimelineId("c" * 32)),
        ("system_id", 8),
        ("pg_version", 15),
        ("wal_segment_size", 1 << 21),
    ],
)
def test_a_greeting_for_something_else_is_refused_by_name(field, value):
    assert replies(acceptor().step(GREETING)) == [m.AcceptorGreeting(3, 0)]
    with pytest.raises(ProtocolError, match=field):
        acceptor().step(GREETING._replace(**{field: value}))


def test_one_vote_a_term_and_durable_before_it_is_told():
    core = acceptor()
    persist, reply = core.step(m.VoteRequest(5, 1))
    assert isinstance(persist, PersistControl)
    assert persist.control.term == 5
    assert reply.message.given
    for term in (5, 4):
        (again,) = core.step(m.VoteRequest(term, 2))
        assert not again.message.given
        assert again.message.term == 5
    assert core.step(m.VoteRequest(6, 2))[-1].message.given


def test_a_vote_survives_a_restart():
    core = acceptor()
    control = core.step(m.VoteRequest(5, 1))[0].control
    reborn = Acceptor(3, control, Lsn(100))
    assert not replies(reborn.step(m.VoteRequest(5, 2)))[0].given


def test_what_was_received_before_a_vote_is_flushed_before_it():
    core = lead(acceptor())
    assert not core.must_flush_before(m.VoteRequest(2, 2))
    core.step(append(1, 100, b"12345678"))
    assert core.must_flush_before(m.VoteRequest(2, 2))
    assert core.must_flush_before(elected(2, 100))
    assert not core.must_flush_before(append(1, 108, b"x"))
    flush(core)
    (response,) = replies(core.step(m.VoteRequest(2, 2)))
    assert response.flush_lsn == 108


def test_a_vote_tells_the_newest_horizon_not_the_saved_one():
    core = lead(acceptor())
    core.step(append(1, 100, b"12345678", truncate_lsn=Lsn(104)))
    core.step(append(1, 108, truncate_lsn=Lsn(101)))
    flush(core)
    assert replies(core.step(m.VoteRequest(2, 2)))[0].truncate_lsn == 104
    assert ControlState.created(IDENTITY).peer_horizon_lsn == START


def test_the_log_is_cut_durably_before_the_history_is_adopted():
    core = lead(acceptor())
    core.step(append(1, 100, b"12345678"))
    flush(core)
    core.step(m.VoteRequest(2, 2))
    truncate, persist, reply = core.step(elected(2, 104, 104, (1, 100)))
    assert truncate == TruncateWal(Lsn(104))
    assert persist.control.term_history.last_term == 2
    assert reply.message.flush_lsn == 104
    assert (core.flush_lsn, core.write_lsn) == (104, 104)


def test_a_cut_that_failed_claims_nothing_for_the_winner():
    """The control file is saved once in a while, also between a failed cut and the next try: it
    made uncommitted bytes of an old term the winner's, and their owner the best of all donors."""
    core = lead(acceptor())
    core.step(append(1, 100, b"12345678"))
    flush(core)
    core.step(m.VoteRequest(2, 2))
    before = core.control()
    core.step(elected(2, 104, 104, (1, 100)))
    core.election_failed(before)
    assert core.control().term_history == before.term_history
    assert core.last_log_term == 1
    assert (core.flush_lsn, core.write_lsn) == (104, 104), "nobody may rely on the rest"
    with pytest.raises(ProtocolError, match="before its election is known"):
        core.step(append(2, 104))
    assert core.step(elected(2, 104, 104, (1, 100)))[0] == TruncateWal(Lsn(104))
    assert core.control().term_history.last_term == 2


def test_a_vote_that_failed_is_told_to_nobody():
    """A greeting told the term, and after a restart the safekeeper was back in the one before."""
    core = lead(acceptor())
    before = core.control()
    core.step(m.VoteRequest(2, 2))
    core.election_failed(before)
    assert core.append_response().term == 1
    (_, reply) = core.step(m.VoteRequest(2, 3))
    assert (reply.message.given, reply.message.term) == (True, 2), "nobody had its vote"


def test_the_first_cut_after_a_boot_always_runs_and_later_ones_only_if_needed():
    core = acceptor()
    core.step(m.VoteRequest(1, 1))
    assert core.step(elected(1, 100))[0] == TruncateWal(START)
    core.step(m.VoteRequest(2, 1))
    assert isinstance(core.step(elected(2, 100, 100, (1, 100)))[0], PersistControl)
    core.write_failed()
    core.step(m.VoteRequest(3, 1))
    assert core.step(elected(3, 100, 100, (1, 100), (2, 100)))[0] == TruncateWal(START)


def test_a_cut_below_the_commit_or_elsewhere_than_the_parting_is_refused():
    core = lead(acceptor())
    core.step(append(1, 100, b"12345678", commit=108))
    flush(core)
    assert core.commit_lsn == 108
    with pytest.raises(ProtocolError, match="the logs part at 0/6C"):
        core.step(elected(1, 100))
    core.step(m.VoteRequest(2, 2))
    with pytest.raises(ProtocolError, match="below the commit"):
        core.step(elected(2, 104, 104, (1, 100)))
    assert core.flush_lsn == 108


def test_election_in_a_term_that_was_not_voted_for():
    core = acceptor()
    with pytest.raises(ProtocolError, match="elected in 1"):
        core.step(elected(1, 100))
    core.step(m.VoteRequest(5, 1))
    (response,) = replies(core.step(elected(4, 100)))
    assert response.term == 5


@pytest.mark.parametrize(
    ("request_", "complaint"),
    [
        (append(2, 100, b"x"), "before its election"),
        (append(1, 101, b"x"), "the log ends at 0/64"),
        (append(1, 99, b"x"), "the log ends at 0/64"),
        (append(1, 100, b"x", commit=102), "commit 0/66 lies beyond"),
    ],
)
def test_an_append_that_does_not_fit_changes_nothing(request_, complaint):
    core = lead(acceptor())
    before = core.control()
    with pytest.raises(ProtocolError, match=complaint):
        core.step(request_)
    assert core.control() == before
    assert core.take_batch() is None


def test_an_append_between_the_vote_and_the_election_is_refused():
    core = lead(acceptor())
    core.step(m.VoteRequest(2, 2))
    with pytest.raises(ProtocolError, match="before its election"):
        core.step(append(2, 100, b"x"))


def test_an_old_leader_learns_the_new_term():
    core = lead(acceptor())
    core.step(m.VoteRequest(2, 2))
    (response,) = replies(core.step(append(1, 100, b"x")))
    assert response.term == 2
    assert core.take_batch() is None


def test_wal_counts_and_commits_only_when_flushed():
    core = lead(acceptor())
    assert core.step(append(1, 100, b"12345678", commit=104)) == []
    assert (core.flush_lsn, core.commit_lsn) == (100, 100)
    core.step(append(1, 108, b"1234", commit=112))
    batch = core.take_batch()
    assert (batch.begin_lsn, batch.end_lsn, batch.commit_lsn) == (100, 112, 112)
    core.step(append(1, 112, b"12", commit=114))
    core.flushed(batch)
    assert (core.flush_lsn, core.commit_lsn, core.write_lsn) == (112, 112, 114)


def test_a_slow_disk_still_learns_commits_under_load():
    """The newest commit is always beyond what one flush covers; the flush's own must count."""
    core = lead(acceptor())
    core.step(append(1, 100, b"12345678", commit=108))
    first = core.take_batch()
    core.step(append(1, 108, b"12345678", commit=116))
    core.flushed(first)
    assert core.commit_lsn == 108


def test_an_answer_is_given_at_once_only_where_asked_for():
    core = lead(acceptor())
    assert core.step(append(1, 100)) == []
    assert len(replies(core.step(append(1, 100, reply_requested=True)))) == 1


def test_after_a_failed_write_the_log_is_what_was_flushed_and_must_be_cut_first():
    core = lead(acceptor())
    core.step(append(1, 100, b"12345678", commit=108))
    core.write_failed()
    assert (core.write_lsn, core.take_batch()) == (100, None)
    with pytest.raises(ProtocolError, match="failed write"):
        core.step(append(1, 100, b"12345678"))
    core.step(elected(1, 100))
    core.step(append(1, 100, b"12345678"))
    flush(core)
    assert (core.flush_lsn, core.commit_lsn) == (108, 100)


def test_a_peers_commit_counts_only_in_the_same_history_and_as_far_as_flushed():
    core = lead(acceptor())
    core.step(append(1, 100, b"12345678"))
    flush(core)
    assert not core.hear_peer(2, Lsn(108))
    assert not core.hear_peer(1, Lsn(100))
    assert core.hear_peer(1, Lsn(104))
    assert core.commit_lsn == 104
    assert core.hear_peer(1, Lsn(500))
    assert core.commit_lsn == 108
    assert not core.hear_peer(1, Lsn(101))
    assert core.commit_lsn == 108


def test_remote_consistency_is_monotone_and_never_beyond_the_commit():
    core = lead(acceptor())
    core.step(append(1, 100, b"12345678", commit=108))
    flush(core)
    assert core.hear_remote_consistent(Lsn(104))
    assert not core.hear_remote_consistent(Lsn(103))
    assert core.hear_remote_consistent(Lsn(400))
    assert core.remote_consistent_lsn == 108


def test_a_term_is_a_logs_term_once_the_log_reaches_its_start():
    core = acceptor(flush=104, term=2, term_history=elected(2, 108, None, (1, 100)).term_history)
    assert core.last_log_term == 1
    core.step(elected(2, 108, 104, (1, 100)))
    core.step(append(2, 104, b"1234"))
    flush(core)
    assert core.last_log_term == 2


def test_wal_that_ends_before_the_commit_is_corruption():
    with pytest.raises(CorruptData, match="before the commit"):
        acceptor(flush=107, commit_lsn=Lsn(108))
    assert acceptor(flush=108, commit_lsn=Lsn(108)).flush_lsn == 108


def history(*switches: tuple[int, int]) -> TermHistory:
    return TermHistory(tuple(TermSwitch(term, Lsn(lsn)) for term, lsn in switches))


def test_catching_up_cuts_a_tail_that_is_not_committed_and_takes_what_is():
    """Term 1 left a tail from 108 on; term 2 began at 108 and committed up to 124."""
    core = acceptor(flush=120, term=1, term_history=history((0, 100), (1, 100)))
    peer = history((0, 100), (1, 100), (2, 108), (3, 132))
    effects = core.begin_catching_up(peer, Lsn(124))
    assert effects == [TruncateWal(Lsn(108)), PersistControl(core.control())]
    assert (core.flush_lsn, core.term, core.last_log_term) == (108, 2, 2)
    with pytest.raises(ProtocolError, match="the log ends at"):
        core.catch_up(Lsn(100), b"12345678")
    core.catch_up(Lsn(108), b"1234567812345678")
    flush(core)
    assert core.flush_lsn == core.commit_lsn == 124


def test_catching_up_ends_with_the_next_vote():
    """A position told in a vote must not grow by itself."""
    core = acceptor(flush=104)
    assert core.begin_catching_up(history((0, 100), (1, 104)), Lsn(120))
    core.step(m.VoteRequest(5, 1))
    with pytest.raises(ProtocolError, match="a proposer takes care"):
        core.catch_up(Lsn(104), b"1234567812345678")


def test_who_has_everything_learns_of_the_commit_and_nothing_else():
    core = acceptor(flush=120, term=1, term_history=history((0, 100), (1, 100)))
    assert core.begin_catching_up(history((0, 100), (1, 100)), Lsn(116)) == []
    assert (core.flush_lsn, core.commit_lsn) == (120, 116)


def test_catching_up_refuses_a_log_that_denies_our_commit():
    core = acceptor(
        flush=120, term=1, term_history=history((0, 100), (1, 100)), commit_lsn=Lsn(112)
    )
    with pytest.raises(ProtocolError, match="below our commit"):
        core.begin_catching_up(history((0, 100), (1, 100), (2, 108)), Lsn(124))
    assert core.flush_lsn == 120


@pytest.mark.parametrize(
    ("commit", "backup", "due"),
    [((2 << 20) - 1, 1 << 20, False), (2 << 20, 1 << 20, True), (2 << 20, 2 << 20, False)],
)
def test_only_a_whole_committed_segment_is_due(commit: int, backup: int, due: bool):
    core = acceptor(flush=commit, commit_lsn=Lsn(commit), backup_lsn=Lsn(backup))
    assert core.backup_due() is due


def test_a_newcomer_without_the_beginning_may_not_offload():
    assert acceptor(flush=200, local_start_lsn=Lsn(150), backup_lsn=Lsn(150)).may_back_up()
    assert not acceptor(flush=200, local_start_lsn=Lsn(151), backup_lsn=Lsn(150)).may_back_up()


def test_wal_goes_only_as_far_as_all_three_consumers_have_it():
    lsns = {"remote_consistent_lsn": 5 << 20, "peer_horizon_lsn": 4 << 20, "backup_lsn": 3 << 20}
    for lowest in lsns:
        values = {name: Lsn(lsn) for name, lsn in {**lsns, lowest: (2 << 20) + 7}.items()}
        control = replace(ControlState.created(IDENTITY), **values)
        assert control.removal_horizon_lsn() == (2 << 20) + 7, lowest
        assert control.oldest_lsn() == 2 << 20, lowest
