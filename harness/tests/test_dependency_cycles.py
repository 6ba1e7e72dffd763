"""Dependency cycles: each kind is found and named, and what can be ordered passes."""

from __future__ import annotations

import random

import pytest

from harness.checkers.cycles import Edge, check_acyclic, knot, name_of, shortest_cycle
from harness.checkers.dependency_cycles import check_dependency_cycles, edges_of
from harness.checkers.registers import registers_of
from harness.errors import CheckFailed
from harness.history import Kind, Outcome, Source
from harness.tests.histories import PINNED, Story

OTHER = Source("other replica", "tl", pinned=True)


def txn(story: Story, changes: dict[int, str | None], at: float, lsn: int | None) -> Story:
    return story.step((Kind.TXN, (changes,)), (at, at + 1), (None, lsn))


def look(story: Story, rows: dict[int, str], at: float, lsn: int, source: Source = PINNED) -> Story:
    asked = (Kind.SCAN, (0, 10))
    return story.step(asked, (at, at + 1), (sorted(rows.items()), lsn), source=source)


def check(story: Story) -> int:
    return check_dependency_cycles(story.history)


def test_scans_of_whole_transactions_can_be_ordered() -> None:
    story = txn(txn(Story(), {1: "a", 2: "a"}, 0, 8), {1: "b", 2: "b"}, 2, 16)
    look(look(look(story, {}, 4, 7), {1: "a", 2: "a"}, 4, 8), {1: "b", 2: "b"}, 6, 16)
    edges = list(edges_of(registers_of(story.history, "tl")))
    assert {Edge(0, 1, "ww", 1), Edge(0, 3, "wr", 1), Edge(3, 1, "rw", 1)} <= set(edges)
    assert check(story) == len(edges) == 10


def test_half_of_a_transaction_is_g_single() -> None:
    story = txn(txn(Story(), {1: "a", 2: "a"}, 0, 8), {1: "b", 2: "b"}, 2, 16)
    with pytest.raises(CheckFailed, match=r"G-single: no order explains these 2 operations"):
        check(look(story, {1: "b", 2: "a"}, 4, 16))


def test_readers_that_disagree_are_a_long_fork() -> None:
    """Either reader alone is fine; they see two independent writes in opposite orders."""
    story = Story().put(1, "a", 0, 1, 8).put(2, "b", 0, 1, 16)
    look(story, {1: "a"}, 2, 24)
    check(story)
    with pytest.raises(CheckFailed, match="long fork"):
        check(look(story, {2: "b"}, 2, 24, OTHER))


def test_writes_in_opposite_orders_are_g0() -> None:
    """By LSN this cannot be; by what lists say it can."""
    edges = [Edge(1, 2, "ww", 7), Edge(2, 1, "ww", 8), Edge(0, 1, "ww", 7), Edge(2, 9, "ww", 8)]
    with pytest.raises(CheckFailed, match=r"G0: no order explains these 2 operations:\n  one") as e:
        check_acyclic(lambda: edges, ["none", "one", "two"].__getitem__, checker="here")
    assert "ww 7 →\n  two\n    ww 8 → the first of them" in str(e.value)


def test_a_shortest_cycle_is_told_and_what_hangs_on_it_is_not() -> None:
    tail, long = {0: [1], 3: [9], 9: [10]}, {1: [2], 2: [3], 3: [1, 9]}
    left = knot({**tail, **long, 20: [21], 21: [20]})
    assert sorted(left) == [1, 2, 3, 9, 20, 21]
    assert shortest_cycle(left) == [20, 21]
    assert knot({0: [1, 2], 1: [2], 2: [3]}) == {}


def test_reading_the_future_is_g1c() -> None:
    """A transaction that both follows and is seen by another, through different keys."""
    assert name_of(["ww", "wr"]) == "G1c"
    assert name_of(["rw", "ww", "rw"]) == "G2"
    assert name_of(["rw", "rt"]) == "G-single by real time"
    assert name_of(["rw", "wr", "rw", "wr"]) == "long fork (G2)"
    assert name_of(["rw", "wr", "rw"]) == name_of(["rw", "rw", "wr", "wr"]) == "G2"


def test_a_write_of_unknown_outcome_takes_its_place_from_a_read() -> None:
    story = Story().put(1, "a", 0, 1, 8).put(2, "a", 0, 1, 16).unknown_put(1, "u", 2, 3)
    story.put(1, "c", 4, 5, 40).put(2, "c", 4, 5, 48)
    look(story, {1: "u", 2: "a"}, 6, 24)
    check(story)
    with pytest.raises(CheckFailed, match=r"G2|G-single|long fork"):
        check(look(look(story, {1: "u"}, 6, 24), {1: "a", 2: "c"}, 6, 48, OTHER))


def test_absence_is_the_deletion_before() -> None:
    story = txn(Story(), {1: "a", 2: "a"}, 0, 8)
    txn(story, {1: None, 2: None}, 2, 16)
    story.delete(1, 4, 5, 16).delete(2, 4, 5, 24)
    txn(story, {1: "b", 2: "b"}, 6, 32)
    look(look(story, {}, 8, 16), {}, 8, 31)
    check(story)
    with pytest.raises(CheckFailed, match="G-single"):
        check(look(story, {1: "b"}, 8, 40))


def test_absence_after_a_deletion_of_unknown_outcome_says_nothing() -> None:
    story = txn(Story(), {1: "a", 2: "a"}, 0, 8)
    story.step((Kind.DELETE, (1,)), (2, 3), outcome=Outcome.UNKNOWN)
    check(look(story, {2: "a"}, 8, 40))


def test_absence_after_a_write_and_a_deletion_of_unknown_outcome_says_nothing() -> None:
    """A hunt found this: absence was taken for the state before the write."""
    story = Story().unknown_put(1, "u", 0, 1)
    look(story, {1: "u"}, 2, 24)
    story.put(2, "b", 4, 5, 32)
    story.step((Kind.DELETE, (1,)), (6, 7), outcome=Outcome.UNKNOWN)
    check(look(story, {2: "b"}, 8, 40))


def test_without_lsns_real_time_orders_versions() -> None:
    story = txn(txn(Story(), {1: "a", 2: "a"}, 0, None), {1: "b", 2: "b"}, 2, None)
    story.scan((0, 10), [(1, "a"), (2, "a")], 2, 4).scan((0, 10), [(1, "b"), (2, "b")], 2, 4)
    check(story)
    with pytest.raises(CheckFailed, match="G-single"):
        check(story.scan((0, 10), [(1, "b"), (2, "a")], 2, 4))


def test_without_lsns_concurrent_writes_have_no_order() -> None:
    story = Story()
    story.step((Kind.TXN, ({1: "a", 2: "a"},)), (0, 9)).step(
        (Kind.TXN, ({1: "b", 2: "b"},)), (0, 9)
    )
    check(story.scan((0, 10), [(1, "a"), (2, "a")], 2, 4).scan((0, 10), [(1, "b"), (2, "b")], 4, 6))


def test_random_serial_histories_pass_and_one_torn_scan_fails() -> None:
    entropy = random.Random(1)
    for _ in range(20):
        story, state = Story(), dict[int, str]()
        for step in range(60):
            if entropy.random() < 0.5:
                rows = {k: f"{step}" for k in entropy.sample(range(10), 3)}
                state |= rows
                txn(story, dict(rows), 2 * step, 8 * step + 8)
            else:
                look(story, state, 2 * step, 8 * step + 8)
        check(story)
        txn(story, {1: "x", 2: "x"}, 200, 800)
        txn(story, {1: "y", 2: "y"}, 202, 808)
        with pytest.raises(CheckFailed):
            check(look(story, state | {1: "x", 2: "y"}, 204, 900))
