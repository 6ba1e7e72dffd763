"""Which safekeeper to stream from, and when to leave it: the pure decision."""

from __future__ import annotations

import random

from storage.lsn import INVALID_LSN, Lsn
from storage.pageserver.candidates import Candidates
from storage.pageserver.options import PageserverOptions


def made() -> Candidates:
    return Candidates(PageserverOptions(node_id=1), random.Random(1))


def test_the_most_advanced_candidate_is_chosen() -> None:
    candidates = made()
    assert candidates.choose(Lsn(10), 0.0) is None
    candidates.announce("a", Lsn(20))
    candidates.announce("b", Lsn(30))
    candidates.announce("c", Lsn(25))
    assert candidates.choose(Lsn(10), 0.0) == "b"
    candidates.withdraw("b")
    assert candidates.choose(Lsn(10), 0.0) == "c"


def test_a_failed_candidate_is_tried_again_after_a_while_however_often_it_failed() -> None:
    candidates = made()
    candidates.announce("a", Lsn(20))
    now_s = 0.0
    for _ in range(50):
        assert candidates.choose(Lsn(10), now_s) == "a"
        candidates.failed("a", now_s)
        assert candidates.choose(Lsn(10), now_s) is None
        retry_at_s = candidates.next_retry_s(now_s)
        assert retry_at_s is not None
        assert 0 < retry_at_s - now_s <= 5.0
        now_s = retry_at_s
    candidates.connected("a", Lsn(10), now_s)
    candidates.heard(Lsn(20), now_s)
    candidates.disconnected(now_s)
    assert (candidates.next_retry_s(now_s) or 0) - now_s <= 0.1, "progress resets the backoff"


def test_a_stream_that_works_is_kept_though_another_is_ahead() -> None:
    candidates = made()
    candidates.announce("a", Lsn(100))
    candidates.announce("b", Lsn(90))
    candidates.connected("a", Lsn(10), 0.0)
    for second in range(1, 60):
        candidates.announce("b", Lsn(100 + 10 * second))
        candidates.announce("a", Lsn(95 + 10 * second))
        candidates.heard(Lsn(90 + 10 * second), float(second))
        assert candidates.reason_to_leave(float(second)) is None


def test_a_stream_is_left_when_silent_stuck_or_far_behind() -> None:
    candidates = made()
    candidates.announce("a", Lsn(10))
    candidates.connected("a", Lsn(10), 0.0)
    candidates.heard(Lsn(10), 1.0)
    assert candidates.reason_to_leave(10.9) is None
    assert "silent" in (candidates.reason_to_leave(11.0) or "")

    candidates.heard(Lsn(10), 11.0)
    candidates.announce("b", Lsn(20))
    assert candidates.reason_to_leave(11.0) is None
    candidates.heard(Lsn(10), 13.0)
    assert candidates.reason_to_leave(13.9) is None
    assert "no WAL for" in (candidates.reason_to_leave(14.0) or "")

    candidates.announce("b", Lsn(10_000_000))
    for second in (14, 15, 16):
        candidates.heard(Lsn(second), float(second))
    assert "behind for" in (candidates.reason_to_leave(16.0) or "")


def test_nothing_is_held_against_a_stream_that_was_not_read() -> None:
    candidates = made()
    candidates.announce("a", Lsn(10))
    candidates.announce("b", Lsn(10_000_000))
    candidates.connected("a", Lsn(10), 0.0)
    assert candidates.reason_to_leave(1.0) is None
    candidates.not_read_until(60.0)
    assert candidates.reason_to_leave(60.0) is None
    assert candidates.reason_to_leave(62.9) is None
    assert "no WAL for" in (candidates.reason_to_leave(63.0) or "")


def test_who_ended_the_stream_is_asked_again_only_for_something_new() -> None:
    candidates = made()
    candidates.announce("a", Lsn(20))
    candidates.connected("a", Lsn(10), 0.0)
    candidates.heard(Lsn(20), 0.0)
    candidates.disconnected(0.0, by_peer=True)
    assert candidates.choose(Lsn(20), 1000.0) is None
    candidates.announce("a", Lsn(28))
    assert candidates.choose(Lsn(20), 1000.0) == "a"


def test_a_call_is_an_offer_for_a_while() -> None:
    candidates = made()
    candidates.announce("a", INVALID_LSN, expires_at_s=10.0)
    assert candidates.choose(Lsn(10), 9.9) == "a"
    assert candidates.choose(Lsn(10), 10.0) is None
    candidates.announce("a", INVALID_LSN, expires_at_s=30.0)
    candidates.connected("a", Lsn(10), 20.0)
    assert candidates.reason_to_leave(29.0) is None
    candidates.announce("b", INVALID_LSN, expires_at_s=30.0)
    assert "another safekeeper calls" in (candidates.reason_to_leave(29.0) or "")
