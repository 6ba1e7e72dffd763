"""The registry covers the bank, every target exists, and nothing of a bug is left afterwards."""

import re
from pathlib import Path

import pytest

from conftest import bank
from harness.bug import OWN_FAMILY, Bug, Replacement, Standing

ROOT = Path(__file__).resolve().parents[3]
ALL = bank()
BANK = [bug for bug in ALL if bug.family != OWN_FAMILY]
EXPRESSED = [bug for bug in ALL if bug.standing is Standing.EXPRESSED]


def documented():
    """Id → (family, source, difficulty, oracles) of every entry of the document, in order."""
    found = {}
    family = ""
    for line in (ROOT / "docs" / "bug-bank.md").read_text(encoding="utf-8").splitlines():
        if line.startswith("## "):
            family = line[3:]
        elif line.startswith("### "):
            bug_id = line[4:]
            assert bug_id not in found, f"{bug_id} is in the document twice"
        elif line.startswith("- source: "):
            source, difficulty, oracles = re.fullmatch(
                r"- source: (.*) · difficulty: (\w+) · oracles: (.*)", line
            ).groups()
            found[bug_id] = (family, source, difficulty, tuple(oracles.split()))
    return found


def namespaces(replacement):
    return {str(place): vars(place)[replacement.name] for place in replacement.places()}


def test_ids_are_of_one_bug_and_tell_which_are_ours():
    assert len({bug.id for bug in ALL}) == len(ALL)
    assert all(bug.id.startswith("own-") == (bug.family == OWN_FAMILY) for bug in ALL)


def test_registry_covers_every_entry_of_the_document_once():
    told = documented()

    assert len(told) == 43
    assert [bug.id for bug in BANK] == list(told)


@pytest.mark.parametrize("bug", BANK, ids=lambda bug: bug.id)
def test_record_says_what_the_document_says(bug):
    recorded = (bug.family, bug.source, bug.difficulty, bug.oracles)

    assert recorded == documented()[bug.id]


@pytest.mark.parametrize("bug", EXPRESSED, ids=lambda bug: bug.id)
def test_bug_is_put_back_and_taken_out_again(bug):
    before = [namespaces(replacement) for replacement in bug.replacements]

    with pytest.raises(RuntimeError, match="in the middle"), bug.put_back():
        for replacement, originals in zip(bug.replacements, before, strict=True):
            for place in originals:
                assert originals[place] is not replacement.body
            counted = vars(replacement.owner)[replacement.name]
            assert counted.__wrapped__ is replacement.body
        raise RuntimeError("in the middle")

    assert [namespaces(replacement) for replacement in bug.replacements] == before


@pytest.mark.parametrize("bug", EXPRESSED, ids=lambda bug: bug.id)
def test_bug_says_where_it_applies(bug):
    assert bug.applies


def test_nothing_but_the_code_under_test_is_replaced():
    for bug in EXPRESSED:
        for replacement in bug.replacements:
            assert str(replacement).startswith("storage."), replacement


def test_function_is_replaced_wherever_it_was_imported():
    from storage.consensus import term_history
    from storage.safekeeper import state as safekeeper
    from storage.walproposer import state as walproposer

    (bug,) = (bug for bug in BANK if bug.id == "sk-no-divergence-truncation")
    original = term_history.highest_common_point

    with bug.put_back():
        assert safekeeper.highest_common_point is not original
        assert safekeeper.highest_common_point is walproposer.highest_common_point

    assert safekeeper.highest_common_point is original


def test_record_is_of_one_piece():
    from harness.errors import HarnessError

    replacement = Replacement(Bug, "put_back", None)
    with pytest.raises(HarnessError, match="with replacements or without"):
        Bug("a", "f", "easy", ("O1",), "s")
    with pytest.raises(HarnessError, match="with replacements or without"):
        Bug("a", "f", "easy", ("O1",), "s", Standing.WAITING, (replacement,), reason="later")
    with pytest.raises(HarnessError, match="reason"):
        Bug("a", "f", "easy", ("O1",), "s", Standing.WAITING)
    with pytest.raises(HarnessError, match="itself has no"):
        Replacement(Bug, "renamed", None)
    waiting = Bug("a", "f", "easy", ("O1",), "s", Standing.WAITING, reason="no such thing yet")
    with pytest.raises(HarnessError, match="no such thing yet"), waiting.put_back():
        pass
