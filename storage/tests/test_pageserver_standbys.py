"""What a pageserver remembers of hot standbys: the lowest word of a while, and its own deafness."""

from __future__ import annotations

from storage.lsn import INVALID_LSN, Lsn
from storage.pageserver.standbys import Standbys


def words(*said: tuple[int, float], memory_s: float = 10.0) -> Standbys:
    standbys = Standbys(memory_s)
    for horizon, at_s in said:
        standbys.heard(Lsn(horizon), at_s)
    return standbys


def test_the_lowest_word_of_the_last_while_counts() -> None:
    standbys = words((100, 0.0), (300, 1.0), (200, 2.0))
    assert standbys.horizon(9.9) == 100
    assert standbys.horizon(10.0) == 200
    assert standbys.horizon(11.9) == 200
    assert standbys.horizon(12.0) is None


def test_a_repeated_word_counts_on() -> None:
    standbys = words((100, 0.0), (100, 9.0))
    assert standbys.horizon(18.9) == 100
    assert standbys.horizon(19.0) is None


def test_no_standby_does_not_take_the_word_of_another_back() -> None:
    """A safekeeper that restarted knows of none, and another one never had any."""
    standbys = words((100, 0.0), (INVALID_LSN, 1.0), (INVALID_LSN, 2.0))
    assert standbys.horizon(9.9) == 100
    assert standbys.horizon(10.0) is None


def test_who_has_listened_for_a_while_knows() -> None:
    standbys = words()
    assert standbys.is_known(0.0), "a timeline that was just created has no standby"
    standbys.listening(1.0)
    assert standbys.is_known(1.0)
    standbys.deaf()
    assert not standbys.is_known(100.0)
    standbys.listening(100.0)
    assert not standbys.is_known(109.9)
    standbys.listening(105.0)
    assert standbys.is_known(110.0)
