"""Lists: every anomaly is found and named, with operations and key; what is serial passes."""

from __future__ import annotations

import random
from typing import Any

import pytest

from harness.checkers.list_append import check_list_append
from harness.errors import CheckFailed
from harness.history import BranchPoint, ComputeLife, Kind, Outcome, Source
from harness.tests.histories import CLIENT, PINNED, Story
from storage.lsn import Lsn

OTHER = Source("other replica", "tl", pinned=True)

Steps = list[tuple[Any, ...]]


def transact(
    story: Story, steps: Steps, values: list[str | None], at: float, lsn: int | None = None
) -> Story:
    return story.step((Kind.TRANSACT, (tuple(steps),)), (at, at + 1), (values, lsn))


def append(story: Story, key: int, value: str, at: float, lsn: int | None = None) -> Story:
    """Append the last element of ``value``, to find the others there."""
    return transact(story, [("append", key, value.rpartition(",")[2])], [value], at, lsn)


def lose(story: Story, key: int, element: str, outcome: Outcome, at: float = 0) -> Story:
    asked = (Kind.TRANSACT, ((("append", key, element),),))
    return story.step(asked, (at, at + 1), outcome=outcome)


def look(story: Story, rows: dict[int, str], at: float, source: Source = CLIENT) -> Story:
    asked = (Kind.SCAN, (0, 10))
    return story.step(asked, (at, at + 1), (sorted(rows.items()), None), source=source)


def check(story: Story) -> int:
    return check_list_append(story.history)


def refused(story: Story, match: str) -> None:
    with pytest.raises(CheckFailed, match=match) as failure:
        check(story)
    assert failure.value.checker == "list_append"


def test_a_serial_story_passes_and_is_counted() -> None:
    story = append(append(Story(), 1, "a", 0, 8), 1, "a,b", 2, 16)
    transact(story, [("read", 1), ("append", 2, "c"), ("append", 2, "d")], ["a,b", "c", "c,d"], 4)
    look(look(story, {1: "a,b", 2: "c,d"}, 6), {1: "a"}, 6, PINNED)
    assert check(story) == 2 + 2 + 2 * 2


def test_concurrent_appends_may_come_in_either_order() -> None:
    story = Story()
    story.step((Kind.TRANSACT, ((("append", 1, "a"),),)), (0, 9), (["b,a"], None))
    append(story, 1, "b", 4)
    assert check(story) == 2


@pytest.mark.parametrize(
    ("outcome", "says"),
    [(Outcome.FAILED, r"'x', which was refused \(G1a\)"), (Outcome.UNKNOWN, "")],
)
def test_what_failed_is_never_seen_and_what_is_unknown_may_be(outcome: Outcome, says: str) -> None:
    story = look(lose(Story(), 1, "x", outcome), {1: "x"}, 4)
    if says:
        refused(story, says)
    else:
        assert check(story) == 1


def test_an_element_that_nobody_asked_for() -> None:
    refused(look(append(Story(), 1, "a", 0), {1: "a,z"}, 4), "holds 'z', which nobody asked for")


def test_an_element_twice() -> None:
    refused(look(append(Story(), 1, "a", 0), {1: "a,a"}, 4), "holds 'a' twice")


def test_lists_of_which_neither_begins_the_other() -> None:
    story = append(append(Story(), 1, "a", 0), 1, "b", 0)
    refused(story, r"list 1 has no order: .*'[ab]'")
    refused(look(append(Story(), 1, "aa", 0), {1: "a"}, 4), "list 1 has no order")


def test_a_lost_append_is_a_cycle_with_real_time() -> None:
    story = append(append(Story(), 1, "a", 0), 1, "a,b", 2)
    refused(look(story, {1: "a"}, 4), r"G-single by real time(.*\n)*    ended before")


def test_a_stale_read_is_excused_where_reads_are_old_on_purpose() -> None:
    story = append(append(Story(), 1, "a", 0), 1, "a,b", 2)
    check(look(story, {1: "a"}, 4, PINNED))
    lives = [ComputeLife("old", -2, -1), ComputeLife("new", 3, 3.5)]
    story.history.lives["tl"] = lives
    check(look(story, {1: "a"}, 4, Source("old/load.0", "tl")))
    refused(look(story, {1: "a"}, 4, Source("new/load.0", "tl")), "by real time")


def test_the_middle_of_a_transaction_is_g1b() -> None:
    story = transact(Story(), [("append", 1, "a"), ("append", 1, "b")], ["a", "a,b"], 0)
    refused(look(story, {1: "a"}, 0.5), r"list 1 as 'a', in the middle of #0 .* \(G1b\)")


def test_steps_that_do_not_see_each_other() -> None:
    story = transact(Story(), [("append", 1, "a"), ("read", 1)], ["a", None], 0)
    refused(story, "its steps do not see each other")
    refused(transact(Story(), [("append", 1, "a")], ["b"], 0), "does not end with 'a'")
    refused(transact(Story(), [("add", 1, 2)], ["x"], 0), "is no number")


def test_half_of_a_transaction_is_g_single() -> None:
    story = transact(Story(), [("append", 1, "a"), ("append", 2, "a")], ["a", "a"], 0)
    refused(look(story, {1: "a"}, 0.5), "G-single: no order explains these 2")


def test_write_skew_is_g2() -> None:
    story = transact(Story(), [("read", 1), ("append", 2, "a")], [None, "a"], 0)
    transact(story, [("read", 2), ("append", 1, "b")], [None, "b"], 0)
    refused(story, "^list_append: G2: |G2: no order")


def test_primary_and_pinned_reader_that_disagree_are_a_long_fork() -> None:
    """Either read alone is fine; together no order has both."""
    story = append(append(Story(), 1, "a", 0), 2, "b", 0)
    look(story, {1: "a"}, 0.5)
    assert check(story) == 4
    refused(look(story, {2: "b"}, 5, PINNED), r"long fork \(G2\)")


def test_lsns_order_elements() -> None:
    story = append(append(Story(), 1, "a", 0, 16), 1, "a,b", 2, 8)
    refused(story, "'b' was appended at 0/8, below")


def test_a_branch_begins_with_its_parents_lists() -> None:
    story = append(Story(), 1, "a", 0, 8)
    lose(story, 1, "u", Outcome.UNKNOWN, at=1)
    story.history.branched("child", BranchPoint("tl", Lsn(8), 3))
    append(story, 1, "a,late", 4, 16)
    child = Source("c", "child")
    look(story, {1: "a,u"}, 6, child)
    check(story)
    refused(look(story, {1: "a,late"}, 6, child), r"neither|no order|nobody asked")


def serial(entropy: random.Random, *, steps: int = 80) -> tuple[Story, list[dict[int, str]]]:
    """A serial history, with unknown outcomes; every state it went through."""
    story, state, states = Story(), dict[int, str](), [dict[int, str]()]
    for step in range(steps):
        at = 2.0 * step
        if entropy.random() < 0.3:
            look(story, state, at)
            continue
        keys = entropy.sample(range(5), 2)
        asked, values = [], []
        for key in keys:
            element = f"{step}k{key}"
            asked.append(("append", key, element))
            values.append(f"{state[key]},{element}" if key in state else element)
        if entropy.random() < 0.1:
            story.step((Kind.TRANSACT, (tuple(asked),)), (at, at + 1), outcome=Outcome.UNKNOWN)
            if entropy.random() < 0.5:
                continue
        else:
            transact(story, asked, list(values), at)
        state = state | dict(zip(keys, values, strict=True))
        states.append(state)
    return story, states


@pytest.mark.parametrize("seed", range(10))
def test_random_serial_histories_pass_and_any_mixture_of_two_states_fails(seed: int) -> None:
    entropy = random.Random(seed)
    story, states = serial(entropy)
    assert check(story) > 100
    old, new = states[-12], states[-1]
    torn = {**new, **{key: old[key] for key in list(old)[:2]}}
    assert torn != new
    refused(look(story, torn, 1000, PINNED), "G-single|G2|no order explains")
