"""Refusals with and without an excuse."""

from __future__ import annotations

import pytest

from harness.checkers.logs import Allowance
from harness.checkers.refusals import check_refusals
from harness.errors import CheckFailed
from harness.history import History, Kind, Outcome, Source
from harness.tests.histories import CLIENT, PINNED
from harness.tests.reports import Reports

DAMAGE = Reports().add("harness", "fault", verb="rot", target="ps0", damage="it lies").events


def refused(why: str, source: Source = CLIENT) -> History:
    history = History()
    history.fail(history.invoke(source, Kind.GET, (1,), 0), 1, Outcome.FAILED, why)
    return history


@pytest.mark.parametrize("why", [": nobody listens", "57P03: not ready", "40003: lost", "08006: x"])
def test_not_now_is_an_excuse(why: str) -> None:
    assert check_refusals(refused(why)) == 1


@pytest.mark.parametrize(
    "why", ["42704: no such timeline", "22003: gone", "25006: no", "XX000: bug", "22023: what?"]
)
def test_other_reasons_are_none(why: str) -> None:
    with pytest.raises(CheckFailed, match="nothing excuses"):
        check_refusals(refused(why))


@pytest.mark.parametrize("why", ["25006: cannot write", "22003: before the cutoff"])
def test_a_replica_may_refuse_more(why: str) -> None:
    assert check_refusals(refused(why, PINNED)) == 1
    with pytest.raises(CheckFailed):
        check_refusals(refused("42704: no such timeline", PINNED))


def test_corruption_is_told_only_when_a_disk_lies() -> None:
    assert check_refusals(refused("XX001: bad checksum"), DAMAGE) == 1
    with pytest.raises(CheckFailed):
        check_refusals(refused("42704: no such timeline"), DAMAGE)


def test_a_scenario_may_ask_for_a_refusal() -> None:
    allowance = Allowance("key -1", "the scenario asks for it")
    assert check_refusals(refused("22023: key -1 is none"), (), [allowance]) == 1
    with pytest.raises(CheckFailed):
        check_refusals(refused("22023: key -2 is none"), (), [allowance])
