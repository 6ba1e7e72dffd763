"""The proposer's rules, one by one."""

from __future__ import annotations

import pytest

from storage.consensus import messages as m
from storage.consensus.term_history import TermHistory, TermSwitch
from storage.errors import ProtocolError
from storage.ids import TenantId, TimelineId
from storage.lsn import Lsn
from storage.walproposer.campaign import (
    CampaignOptions,
    Committed,
    Established,
    Lost,
    Phase,
    Recover,
    Send,
    Superseded,
    Won,
)
from storage.walproposer.state import Campaign

THREE = ("a:1", "b:1", "c:1")


def campaign(members=THREE, **options) -> Campaign:
    ids = TenantId("1" * 32), TimelineId("2" * 32)
    return Campaign(CampaignOptions(members, *ids, 9, 7, 16, 1 << 20, **options))


def history(*switches: tuple[int, int]) -> TermHistory:
    return TermHistory(tuple(TermSwitch(t, Lsn(lsn)) for t, lsn in ((0, 100), *switches)))


def vote(term: int, flush: int = 100, *switches, given=True, commit=100, start=100):
    return m.VoteResponse(
        term, given, Lsn(flush), Lsn(commit), Lsn(100), Lsn(start), history(*switches)
    )


def greet(core: Campaign, terms: dict[str, int]) -> list:
    effects = []
    for name, term in terms.items():
        core.connected(name)
        effects += core.step(name, m.AcceptorGreeting(1, term))
    return effects


def lead(core: Campaign, *, term: int = 1) -> Campaign:
    """A leader that all its voters follow, at LSN 100."""
    names = list(core.peers)
    greet(core, dict.fromkeys(names, 0))
    for name in names:
        core.step(name, vote(term))
    for name in names:
        core.step(name, ack(100, term))
    return core


def ack(flush: int, term: int = 1, remote: int = 0):
    return m.AppendResponse(term, Lsn(flush), Lsn(100), Lsn(remote))


@pytest.mark.parametrize("members", [(), ("a:1", "a:1")])
def test_members_must_be_some_and_different(members):
    with pytest.raises(ValueError, match="must be one or more different"):
        campaign(members)


@pytest.mark.parametrize(("count", "quorum"), [(1, 1), (2, 2), (3, 2), (4, 3), (5, 3)])
def test_the_term_is_chosen_when_a_quorum_of_exactly_these_members_has_greeted(count, quorum):
    names = tuple(f"s{i}:1" for i in range(count))
    core = campaign(names)
    for index, name in enumerate(names, start=1):
        core.connected(name)
        effects = core.step(name, m.AcceptorGreeting(1, 10 * index))
        assert bool(effects) == (index >= quorum), index
        if index == quorum:
            assert core.term == 10 * quorum + 1
            assert len(effects) == quorum
            return


def test_the_term_is_above_what_earlier_campaigns_heard():
    core = campaign(term_floor=50)
    greet(core, {"a:1": 3, "b:1": 4})
    assert core.term == 51


def test_a_higher_term_before_the_victory_loses_the_campaign():
    core = campaign()
    greet(core, {"a:1": 3, "b:1": 4})
    core.connected("c:1")
    (lost,) = core.step("c:1", m.AcceptorGreeting(1, 9))
    assert lost == Lost(9, lost.reason)
    assert core.ended


def test_refusals_that_make_a_quorum_impossible_lose_the_campaign():
    core = campaign()
    greet(core, {"a:1": 3, "b:1": 4, "c:1": 0})
    assert core.step("a:1", vote(5, given=False)) == []
    (lost,) = core.step("b:1", vote(5, given=False))
    assert isinstance(lost, Lost)


def test_a_vote_that_was_not_given_does_not_count():
    core = campaign()
    greet(core, {"a:1": 0, "b:1": 0, "c:1": 0})
    core.step("a:1", vote(1, given=False))
    core.step("b:1", vote(1))
    assert core.phase is Phase.VOTING
    assert isinstance(core.step("c:1", vote(1))[0], Won)


def test_the_donor_is_the_newest_log_not_the_longest():
    core = campaign()
    greet(core, {"a:1": 3, "b:1": 3})
    core.step("a:1", vote(4, 180, (1, 100)))
    (recover,) = core.step("b:1", vote(4, 140, (1, 100), (2, 120)))
    assert recover == Recover("b:1", Lsn(100), Lsn(140))
    won, *sends = core.recovered([bytes(40)])
    assert won == Won(4, Lsn(140))
    cuts = {send.peer: send.message.start_lsn for send in sends}
    assert cuts == {"a:1": 120, "b:1": 140}
    assert core.term_history == history((1, 100), (2, 120), (4, 140))


@pytest.mark.parametrize("missing", [1, 40])
def test_a_short_recovery_is_no_recovery(missing):
    core = campaign()
    greet(core, {"a:1": 0, "b:1": 0})
    core.step("a:1", vote(1, 140))
    core.step("b:1", vote(1, 100))
    with pytest.raises(ProtocolError, match="recovery ended at"):
        core.recovered([bytes(40 - missing)] if missing < 40 else [])
    assert core.phase is Phase.RECOVERING


def test_members_that_disagree_about_the_timelines_start_are_refused():
    core = campaign()
    greet(core, {"a:1": 0, "b:1": 0})
    core.step("a:1", vote(1))
    with pytest.raises(ProtocolError, match="disagree"):
        core.step("b:1", vote(1, start=99))


def test_a_commit_that_no_voter_has_is_noticed():
    core = campaign()
    greet(core, {"a:1": 0, "b:1": 0})
    core.step("a:1", vote(1, 140))
    with pytest.raises(ProtocolError, match="was committed"):
        core.step("b:1", vote(1, 120, commit=160))


def test_nothing_is_committed_below_the_epoch_start():
    """Raft's figure 8: a quorum that has old WAL proves nothing until it reaches our term."""
    core = campaign()
    greet(core, {"a:1": 1, "b:1": 1, "c:1": 1})
    core.step("a:1", vote(2, 140, (1, 100)))
    core.step("b:1", vote(2, 100))
    core.recovered([bytes(20), bytes(20)])
    core.step("c:1", vote(2, 100))
    assert core.step("a:1", ack(140, 2)) == []
    core.next_append("b:1")
    assert core.step("b:1", ack(120, 2)) == []
    assert core.commit_lsn == 100
    assert core.step("b:1", ack(140, 2)) == [Committed(Lsn(140)), Established()]


def test_the_quorumth_flush_is_committed():
    core = lead(campaign(tuple(f"s{i}:1" for i in range(5))))
    core.append(Lsn(100), bytes(50))
    for name in core.peers:
        core.next_append(name)
    assert core.step("s0:1", ack(150)) == []
    assert core.step("s1:1", ack(110)) == []
    assert core.step("s2:1", ack(120)) == [Committed(Lsn(110))]
    assert core.step("s3:1", ack(150)) == [Committed(Lsn(120))]
    assert core.step("s1:1", ack(150)) == [Committed(Lsn(150))]
    assert core.step("s4:1", ack(150)) == []


def test_being_superseded_after_the_victory_is_final():
    core = lead(campaign())
    assert core.step("a:1", ack(100, 2)) == [Superseded(2)]
    assert core.phase is Phase.DEPOSED
    with pytest.raises(ProtocolError):
        core.step("b:1", ack(100))


def test_messages_out_of_place_are_refused():
    core = campaign()
    core.connected("a:1")
    with pytest.raises(ProtocolError, match="VoteResponse from a:1 while greeting"):
        core.step("a:1", vote(1))


def test_an_acknowledgement_of_what_was_never_sent_is_refused():
    core = lead(campaign())
    core.append(Lsn(100), bytes(8))
    with pytest.raises(ProtocolError, match="was sent up to 0/64"):
        core.step("a:1", ack(108))


def test_small_pieces_travel_together_while_requests_are_unanswered():
    core = lead(campaign(appends_in_flight_max=2, append_bytes_max=100))
    for index in range(2):
        core.append(Lsn(100 + 10 * index), bytes(10))
        assert len(core.next_append("a:1").data) == 10
    core.append(Lsn(120), bytes(10))
    core.append(Lsn(130), bytes(10))
    assert core.next_append("a:1") is None
    core.step("a:1", ack(110))
    assert len(core.next_append("a:1").data) == 20


def test_enough_for_a_full_request_does_not_wait():
    core = lead(campaign(appends_in_flight_max=1, append_bytes_max=100))
    core.append(Lsn(100), bytes(10))
    assert core.next_append("a:1") is not None
    core.append(Lsn(110), bytes(60))
    assert core.next_append("a:1") is None
    core.append(Lsn(170), bytes(60))
    assert len(core.next_append("a:1").data) == 60


def test_a_request_never_tells_a_commit_beyond_its_end():
    core = lead(campaign())
    core.append(Lsn(100), bytes(10))
    core.append(Lsn(110), bytes(10))
    for name in ("a:1", "b:1"):
        core.next_append(name)
        core.step(name, ack(120))
    assert core.commit_lsn == 120
    late = core.forward("c:1", bytes(10))
    assert late.commit_lsn == 110
    assert core.announcement("c:1", reply_requested=False) is None
    core.forward("c:1", bytes(10))
    assert core.announcement("c:1", reply_requested=False) is None
    assert core.announcement("a:1", reply_requested=False).commit_lsn == 120
    assert core.announcement("a:1", reply_requested=False) is None
    assert core.announcement("a:1", reply_requested=True).reply_requested


def test_wal_is_kept_for_who_lags_but_not_without_end():
    core = lead(campaign(wal_retained_bytes_max=30))
    for index in range(10):
        core.append(Lsn(100 + 10 * index), bytes(10))
        for name in ("a:1", "b:1"):
            core.next_append(name)
            core.step(name, ack(110 + 10 * index))
    assert core.truncate_lsn == 100
    assert len(core.log) == 30
    assert core.is_behind("c:1")
    assert not core.is_behind("a:1")
    assert core.donor_for("c:1") == ("a:1", Lsn(200))
    core.disconnected("a:1")
    assert core.donor_for("c:1") == ("b:1", Lsn(200))
    core.disconnected("b:1")
    assert core.donor_for("c:1") is None


def test_uncommitted_wal_is_kept_whatever_the_limit():
    core = lead(campaign(wal_retained_bytes_max=10))
    for index in range(10):
        core.append(Lsn(100 + 10 * index), bytes(10))
    core.next_append("a:1")
    core.step("a:1", ack(200))
    assert len(core.log) == 100


def test_a_reconnected_acceptor_continues_where_its_log_ends():
    core = lead(campaign())
    core.append(Lsn(100), bytes(10))
    core.append(Lsn(110), bytes(10))
    core.next_append("a:1")
    core.disconnected("a:1")
    (send,) = greet(core, {"a:1": 1})
    assert isinstance(send, Send)
    (send,) = core.step("a:1", vote(1, 110, (1, 100), given=False))
    assert send.message.start_lsn == 110
    assert core.next_append("a:1").begin_lsn == 110


def test_remote_consistency_is_the_highest_heard():
    core = lead(campaign())
    core.step("a:1", ack(100, remote=60))
    core.step("b:1", ack(100, remote=50))
    assert core.remote_consistent_lsn == 60


def test_long_ago_wal_is_not_recovered_into_memory_but_uncommitted_wal_is():
    core = campaign(wal_retained_bytes_max=50)
    greet(core, {"a:1": 1, "b:1": 1})
    core.step("a:1", vote(2, 300, (1, 100), commit=280))
    (recover,) = core.step("b:1", vote(2, 120, (1, 100), commit=120))
    assert recover == Recover("a:1", Lsn(280), Lsn(300))
    _, *sends = core.recovered([bytes(20)])
    assert {send.peer: send.message.start_lsn for send in sends} == {"a:1": 300, "b:1": 120}
    assert core.is_behind("b:1")
