"""Histories of branches, and of primaries that were deposed without hearing of it."""

from __future__ import annotations

import pytest

from harness.checkers.acknowledged_commits import check_acknowledged_commits
from harness.checkers.commit_order import check_commit_order
from harness.checkers.linearizable import check_linearizable
from harness.checkers.reads_equal_model import check_reads
from harness.errors import CheckFailed
from harness.history import BranchPoint, Kind, Outcome, Source
from harness.tests.histories import Story
from storage.lsn import Lsn

CHILD = Source("child", "branch")
OLD, NEW = Source("old/load0", "tl"), Source("new", "tl")


def branched(lsn: int = 16) -> Story:
    """Key 1: a at 8, b at 24 in the parent; key 2: x at 16; branched at ``lsn``."""
    story = Story().put(1, "a", 0, 1, 8).put(2, "x", 2, 3, 16).put(1, "b", 4, 5, 24)
    story.history.branched("branch", BranchPoint("tl", Lsn(lsn), 6.0))
    return story


def read(story: Story, value: str | None, key: int = 1) -> Story:
    return story.step((Kind.GET, (key,)), (7, 8), (value, 40), source=CHILD)


def judge(story: Story) -> None:
    check_reads(story.history)
    check_linearizable(story.history)


@pytest.mark.parametrize(("lsn", "value"), [(8, "a"), (16, "a"), (23, "a"), (24, "b")])
def test_a_branch_begins_with_its_parents_state(lsn: int, value: str) -> None:
    judge(read(branched(lsn), value))


@pytest.mark.parametrize(("lsn", "value"), [(7, "a"), (16, "b"), (16, None), (24, "a"), (24, None)])
def test_a_branch_begins_with_no_other_state(lsn: int, value: str | None) -> None:
    with pytest.raises(CheckFailed):
        judge(read(branched(lsn), value))


def test_a_branch_of_a_branch() -> None:
    story = branched()
    story.step((Kind.PUT, (1, "c")), (7, 8), (None, 32), source=CHILD)
    story.history.branched("second", BranchPoint("branch", Lsn(31), 9.0))
    story.step((Kind.GET, (1,)), (10, 11), ("a", 40), source=Source("s", "second"))
    judge(story)
    story.step((Kind.GET, (1,)), (12, 13), ("c", 40), source=Source("s", "second"))
    with pytest.raises(CheckFailed, match="key 1"):
        judge(story)


def test_a_write_of_unknown_outcome_may_be_in_the_branch_unless_it_began_later() -> None:
    story = branched().step(
        (Kind.PUT, (1, "u")), (5, 6), outcome=Outcome.UNKNOWN, source=Source("c", "tl")
    )
    judge(read(story, "u"))
    story = branched().step(
        (Kind.PUT, (1, "u")), (6.5, 7), outcome=Outcome.UNKNOWN, source=Source("c", "tl")
    )
    with pytest.raises(CheckFailed, match="nobody wrote"):
        judge(read(story, "u"))


def test_the_ledger_of_a_branch_holds_what_it_inherited() -> None:
    story = branched()
    assert check_acknowledged_commits(story.history, "branch", {1: "a", 2: "x"}) == 0
    for final in ({1: "b", 2: "x"}, {1: "a"}, {1: "a", 2: "x", 3: "y"}):
        with pytest.raises(CheckFailed):
            check_acknowledged_commits(story.history, "branch", final)


def two_primaries(*, new_began_s: float = 10.0) -> Story:
    story = Story()
    old = story.history.compute_began("tl", "old", 0.0)
    old.serving_at_s = 1.0
    new = story.history.compute_began("tl", "new", new_began_s)
    new.serving_at_s = new_began_s + 1
    story.step((Kind.PUT, (1, "a")), (2, 3), (None, 8), source=OLD)
    return story.step((Kind.PUT, (1, "b")), (12, 13), (None, 16), source=NEW)


def judge_all(story: Story) -> None:
    judge(story)
    check_commit_order(story.history)


def test_a_deposed_primary_may_answer_from_its_own_state() -> None:
    judge_all(two_primaries().step((Kind.GET, (1,)), (14, 15), ("a", 8), source=OLD))


def test_a_deposed_primary_may_delete_what_is_absent_in_its_own_state() -> None:
    story = two_primaries().step((Kind.PUT, (2, "x")), (14, 15), (None, 24), source=NEW)
    story.step((Kind.DELETE, (2,)), (16, 17), (None, 8), source=OLD)
    judge_all(story.step((Kind.GET, (2,)), (18, 19), ("x", 24), source=NEW))


@pytest.mark.parametrize(
    ("value", "lsn", "source", "begin_s"),
    [("a", 8, NEW, 14), ("b", 8, OLD, 14), ("a", 16, OLD, 14), (None, 4, OLD, 4)],
    ids=["the successor", "against its LSN", "against its LSN too", "before there was another"],
)
def test_stale_reads_that_nothing_excuses(
    value: str | None, lsn: int, source: Source, begin_s: float
) -> None:
    story = two_primaries().step((Kind.GET, (1,)), (begin_s, begin_s + 1), (value, lsn),
                                 source=source)  # fmt: skip
    with pytest.raises(CheckFailed):
        judge_all(story)


def test_starts_that_overlap_excuse_both() -> None:
    story = two_primaries(new_began_s=0.5)
    judge_all(story.step((Kind.GET, (1,)), (14, 15), ("a", 8), source=NEW))
