"""Every promise of the system has a test that would fail without it, in both worlds."""

from __future__ import annotations

import re

import pytest

from harness.composition import bank
from harness.rows import PAGE, ROOT, Claimants, collect, draw, missing
from harness.system_rows import SYSTEM, claims

UNCLAIMED = ROOT / "harness" / "tests" / "unclaimed_rows.txt"


@pytest.fixture(scope="module")
def claimants() -> Claimants:
    return collect()


def test_the_table_has_every_row() -> None:
    ids = [row.id for section in SYSTEM for row in section.rows]

    pageserver = "A1 A2 A3 B1 B2 B3 C1 D1 D2 D3 D4 D5"
    assert " ".join(ids) == f"{pageserver} E1 E2 E3 E4 E5 F1 G1 G2 H1 P1 P2 P3 P4 P5 P6"
    assert all(row.claims for section in SYSTEM for row in section.rows)


def test_every_claim_is_made_in_its_worlds(claimants: Claimants) -> None:
    """What is still missing is on a list that may only shrink."""
    assert missing(claimants) == UNCLAIMED.read_text(encoding="utf-8").splitlines()


def test_no_claim_is_made_in_a_world_that_it_does_not_belong_to(claimants: Claimants) -> None:
    known = claims()

    assert [each for each in claimants if each[1] not in known[each[0]].worlds] == []


def test_the_page_is_up_to_date(claimants: Claimants) -> None:
    assert PAGE.read_text(encoding="utf-8") == draw(claimants), "python -m harness rows --write"


def test_bugs_that_take_a_promise_away_are_in_the_bank() -> None:
    named = {bug for claim in claims().values() for bug in claim.bugs}

    assert named
    assert named - {bug.id for bug in bank()} == set()


def test_one_promise_lost_is_missed(claimants: Claimants) -> None:
    """The check itself: without the tests of one claim, exactly that claim is missing."""
    some = next(iter(claimants))
    others = {each: tests for each, tests in claimants.items() if each != some}

    assert set(missing(others)) - set(missing(claimants)) == {" ".join(some)}
    assert re.search("nobody yet", draw(others))
