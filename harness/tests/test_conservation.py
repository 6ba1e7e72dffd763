"""The bank's total: every read of all accounts has it, wherever and whenever they were open."""

from __future__ import annotations

import pytest

from harness.checkers.conservation import check_conservation
from harness.errors import CheckFailed
from harness.history import ComputeLife, Conserved, Kind, Source
from harness.tests.histories import CLIENT, PINNED, Story
from storage.lsn import Lsn


def bank(lsn: int | None = 100) -> Story:
    story = Story()
    opened = Conserved(1, 4, 30, 10.0, None if lsn is None else Lsn(lsn))
    story.history.conserve("tl", opened)
    return story


def audit(
    story: Story, balances: dict[int, str], when: float, lsn: int | None, source: Source = CLIENT
) -> Story:
    asked = (Kind.SCAN, (0, 10))
    answer = (sorted(balances.items()), None if lsn is None else Lsn(lsn))
    return story.step(asked, (when, when + 1), answer, source=source)


GOOD = {1: "5", 2: "-5", 3: "30", 7: "word"}
SHORT = {1: "5", 2: "-5", 3: "29"}


def test_every_audit_has_the_total_and_is_counted() -> None:
    story = audit(audit(bank(), GOOD, 11, 100), GOOD, 20, 900)
    assert check_conservation(story.history) == 2


def test_money_made_or_lost_is_found_on_primary_and_replica() -> None:
    for source in (CLIENT, PINNED):
        story = audit(bank(), SHORT, 20, 900, source)
        with pytest.raises(CheckFailed, match=r"accounts 1 … 3 hold 29, but 30 .* at 0/64"):
            check_conservation(story.history)
    with pytest.raises(CheckFailed, match="hold 25"):
        check_conservation(audit(bank(), {1: "5", 2: "20"}, 20, 900).history)
    with pytest.raises(CheckFailed, match="no number"):
        check_conservation(audit(bank(), {1: "x"}, 20, 900).history)


def test_before_the_opening_nothing_is_owed() -> None:
    assert check_conservation(audit(bank(), {}, 20, 99).history) == 0
    assert check_conservation(audit(bank(None), {}, 9, None).history) == 0
    assert check_conservation(audit(bank(None), {}, 20, None, PINNED).history) == 0


def test_without_lsns_real_time_counts_unless_the_primary_may_be_deposed() -> None:
    story = audit(bank(None), SHORT, 20, None, Source("old/load.0", "tl"))
    with pytest.raises(CheckFailed):
        check_conservation(story.history)
    story.history.lives["tl"] = [ComputeLife("old", 0, 1), ComputeLife("new", 12, 13)]
    assert check_conservation(story.history) == 0


def test_a_scan_of_some_accounts_has_no_total() -> None:
    story = bank().step((Kind.SCAN, (1, 3)), (20, 21), ([(1, "5")], Lsn(900)))
    assert check_conservation(story.history) == 0
