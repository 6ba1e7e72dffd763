"""Term histories: order, truth up to the end of a log, and the point where two logs part."""

from __future__ import annotations

import pytest

from storage.consensus.term_history import TermHistory, TermSwitch, highest_common_point
from storage.errors import ProtocolError
from storage.lsn import Lsn


def history(*switches: tuple[int, int]) -> TermHistory:
    return TermHistory(tuple(TermSwitch(term, Lsn(lsn)) for term, lsn in switches))


@pytest.mark.parametrize(
    "switches", [(), ((1, 10), (1, 20)), ((2, 10), (1, 20)), ((1, 20), (2, 10))]
)
def test_a_history_that_goes_back_is_refused(switches):
    with pytest.raises(ProtocolError):
        history(*switches)


def test_terms_may_begin_where_the_one_before_began():
    both = history((1, 10)).extended(2, Lsn(10))
    assert (both.last_term, both.last_lsn) == (2, 10)


@pytest.mark.parametrize(
    ("flush", "last_term"), [(10, 1), (19, 1), (20, 2), (39, 2), (40, 4), (99, 4)]
)
def test_a_switch_counts_once_the_log_reaches_it(flush, last_term):
    assert history((1, 10), (2, 20), (4, 40)).up_to(Lsn(flush)).last_term == last_term


def test_a_log_that_ends_before_its_start_is_a_defect():
    with pytest.raises(AssertionError):
        history((1, 10)).up_to(Lsn(9))


@pytest.mark.parametrize(
    ("proposer", "acceptor", "flush", "expected"),
    [
        (((0, 1), (2, 20)), ((0, 1),), 15, (0, 15)),
        (((0, 1), (2, 20)), ((0, 1),), 25, (0, 20)),
        (((0, 1), (1, 10), (2, 20), (4, 40)), ((0, 1), (1, 10), (2, 20), (3, 30)), 40, (2, 30)),
        (((0, 1), (1, 10), (2, 20), (4, 40)), ((0, 1), (1, 10), (2, 20)), 32, (2, 32)),
        (((0, 1), (1, 10), (3, 15)), ((0, 1), (1, 10), (2, 12)), 50, (1, 12)),
        (((0, 1), (1, 10), (3, 15)), ((0, 1), (1, 10), (2, 18)), 50, (1, 15)),
        (((0, 1), (5, 9)), ((0, 1), (5, 9)), 70, (5, 70)),
        # A term that the acceptor adopted but has no WAL of does not count.
        (((0, 1), (2, 20), (3, 22)), ((0, 1), (2, 20)), 12, (0, 12)),
        # Equal at one LSN, different after it.
        (((0, 1), (2, 1)), ((0, 1), (1, 1)), 8, (0, 1)),
    ],
)
def test_the_highest_common_point(proposer, acceptor, flush, expected):
    assert highest_common_point(history(*proposer), history(*acceptor), Lsn(flush)) == expected


def test_logs_of_different_birth_have_no_common_point():
    with pytest.raises(ProtocolError, match="begins at 0/1 here, 0/2 there"):
        highest_common_point(history((0, 2)), history((0, 1)), Lsn(5))
    with pytest.raises(ProtocolError, match="no common term"):
        highest_common_point(history((1, 1)), history((0, 1)), Lsn(5))
