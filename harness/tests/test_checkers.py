"""Every oracle that reads a history: it fires where it must and stays silent where it may not."""

from __future__ import annotations

import asyncio
import itertools
import random
from collections.abc import Sequence

import pytest

from harness.checkers import linearizable
from harness.checkers.acknowledged_commits import (
    check_acknowledged_commits,
    ranges_of,
    read_back,
)
from harness.checkers.commit_order import check_commit_order
from harness.checkers.linearizable import check_linearizable
from harness.checkers.linearization_search import Order, search
from harness.checkers.reads_equal_model import check_reads
from harness.checkers.registers import NEVER, KeyRead, KeyWrite, Register, registers_of
from harness.errors import CheckFailed
from harness.history import Kind, Outcome, Source
from harness.tests.histories import PINNED, Story

ALLOWED = {
    "the newest value": Story().put(1, "a", 0, 1).put(1, "b", 2, 3).get(1, "b", 4, 5),
    "initially absent": Story().get(1, None, 0, 1).put(1, "a", 2, 3),
    "deleted": Story().put(1, "a", 0, 1).delete(1, 2, 3).get(1, None, 4, 5),
    "old value while the write runs": Story().put(1, "a", 0, 1).put(1, "b", 2, 6).get(1, "a", 3, 4),
    "new value while the write runs": Story().put(1, "a", 0, 1).put(1, "b", 2, 6).get(1, "b", 3, 4),
    "unknown write that happened": Story().unknown_put(1, "u", 0, 1).get(1, "u", 2, 3),
    "unknown write that did not": Story().unknown_put(1, "u", 0, 1).get(1, None, 2, 3),
    "unknown write that happened late": (
        Story().unknown_put(1, "u", 0, 1).put(1, "b", 2, 3).get(1, "b", 4, 5).get(1, "u", 6, 7)
    ),
    "pending write": Story().put(1, "p", 0, None).get(1, "p", 2, 3),
    "equal instants are concurrent": Story().put(1, "a", 0, 1).put(1, "b", 1, 2).get(1, "a", 2, 3),
    "a scan": Story().put(1, "a", 0, 1).put(3, "c", 0, 1).scan((0, 3), [(1, "a")], 2, 3),
    "by LSN": (
        Story().put(1, "a", 0, 9, 16).put(1, "b", 0, 9, 8).get(1, "a", 10, 11, 24)
    ),
    "at an old LSN, pinned": (
        Story().put(1, "a", 0, 1, 8).put(1, "b", 2, 3, 16)
        .step((Kind.GET, (1,)), (4, 5), ("a", 15), source=PINNED)
    ),
    "sum": Story().put(1, "4", 0, 1, 8).put(2, "5", 2, 3, 16).step((Kind.SUM, ()), (4, 5), (4, 8)),
}  # fmt: skip

FORBIDDEN = {
    "overwritten value": Story().put(1, "a", 0, 1).put(1, "b", 2, 3).get(1, "a", 4, 5),
    "absent although written": Story().put(1, "a", 0, 1).get(1, None, 2, 3),
    "present although deleted": Story().put(1, "a", 0, 1).delete(1, 2, 3).get(1, "a", 4, 5),
    "a value nobody wrote": Story().put(1, "a", 0, 1).get(1, "z", 2, 3),
    "a failed write": Story().failed_put(1, "a", 0, 1).get(1, "a", 2, 3),
    "a value from the future": Story().get(1, "a", 0, 1).put(1, "a", 2, 3),
    "a row missing from a scan": Story().put(1, "a", 0, 1).scan((0, 3), [], 2, 3),
    "a row too many in a scan": Story().put(1, "a", 0, 1).scan((0, 3), [(1, "a"), (2, "x")], 2, 3),
    "not the newest by LSN": (
        Story().put(1, "a", 0, 9, 16).put(1, "b", 0, 9, 8).get(1, "b", 10, 11, 24)
    ),
    "beyond its LSN": (
        Story().put(1, "a", 0, 1, 8).put(1, "b", 2, 9, 16).get(1, "b", 4, 5, 15)
    ),
    "pinned at another LSN": (
        Story().put(1, "a", 0, 1, 8).put(1, "b", 2, 3, 16)
        .step((Kind.GET, (1,)), (4, 5), ("b", 15), source=PINNED)
    ),
    "half of a transaction": (
        Story().step((Kind.TXN, ({1: "a", 2: "a"},)), (0, 1), (None, 8))
        .step((Kind.TXN, ({1: "b", 2: "b"},)), (2, 9), (None, 16))
        .scan((0, 3), [(1, "a"), (2, "b")], 4, 5, 8)
    ),
    "sum": Story().put(1, "4", 0, 1, 8).put(2, "5", 2, 3, 16).step((Kind.SUM, ()), (4, 5), (9, 8)),
}  # fmt: skip


@pytest.mark.parametrize("name", ALLOWED)
def test_reads_that_are_allowed(name: str) -> None:
    check_reads(ALLOWED[name].history)
    check_linearizable(ALLOWED[name].history)


@pytest.mark.parametrize("name", FORBIDDEN)
def test_reads_that_are_forbidden(name: str) -> None:
    with pytest.raises(CheckFailed):
        check_reads(FORBIDDEN[name].history)


def test_timelines_do_not_explain_each_other() -> None:
    story = Story().put(1, "a", 0, 1)
    story.step((Kind.GET, (1,)), (2, 3), ("a", None), source=Source("c", "other"))
    with pytest.raises(CheckFailed, match="nobody wrote"):
        check_reads(story.history)


def test_order_of_reads_must_be_explained() -> None:
    """Each read alone may see either value; together they go back in time."""
    story = Story().put(1, "a", 0, 1).put(1, "b", 2, 9)
    story.get(1, "b", 3, 4).get(1, "a", 5, 6)
    check_reads(story.history)
    with pytest.raises(CheckFailed, match="current in between"):
        check_linearizable(story.history)


def test_two_values_cannot_alternate() -> None:
    story = Story().unknown_put(1, "u", 0, 1).put(1, "b", 0, 9)
    story.get(1, "u", 2, 3).get(1, "b", 4, 5).get(1, "u", 6, 7)
    with pytest.raises(CheckFailed, match="key 1"):
        check_linearizable(story.history)


def is_linearizable(register: Register) -> bool:
    """Ground truth: try every order of every subset of the writes of unknown outcome."""
    sure = [w for w in register.writes if w.completed_at_s != NEVER]
    unsure = [w for w in register.writes if w.completed_at_s == NEVER]
    for count in range(len(unsure) + 1):
        for chosen in itertools.combinations(unsure, count):
            operations: list[KeyWrite | KeyRead] = [*sure, *chosen, *register.reads]
            if any(map(explains, itertools.permutations(operations))):
                return True
    return False


def explains(order: Sequence[KeyWrite | KeyRead]) -> bool:
    value: str | None = None
    latest_begin_s = float("-inf")
    for operation in order:
        if operation.completed_at_s < latest_begin_s:
            return False
        latest_begin_s = max(latest_begin_s, operation.invoked_at_s)
        if isinstance(operation, KeyRead) and operation.value != value:
            return False
        value = operation.value
    return True


def random_register(
    entropy: random.Random, values: Sequence[str | None] = (None, "v0", "v1", "v2")
) -> Register:
    """Three writes and three reads; writes have values of their own, or any if ``None`` is last."""
    register = Register(1)
    for number in range(3):
        begin_s = entropy.randrange(10)
        end_s = begin_s + entropy.randrange(1, 6) if entropy.random() < 0.8 else NEVER
        value = f"v{number}" if values[-1] is not None else entropy.choice(values)
        register.writes.append(KeyWrite(value, begin_s, end_s, None, number))
    for number in range(3, 6):
        begin_s = entropy.randrange(14)
        read = KeyRead(
            entropy.choice(values), begin_s, begin_s + entropy.randrange(1, 4), None, number, False
        )
        register.reads.append(read)
    return register


def test_zones_decide_exactly_what_a_search_of_all_orders_decides() -> None:
    entropy = random.Random(2)
    verdicts = {True: 0, False: 0}
    for _ in range(250):
        register = random_register(entropy)
        expected = is_linearizable(register)
        verdicts[expected] += 1
        try:
            linearizable.check_register(register)
        except CheckFailed:
            assert not expected, register
        else:
            assert expected, register
    assert min(verdicts.values()) > 20, verdicts


def test_the_search_decides_repeated_values_exactly_as_trying_all_orders() -> None:
    entropy = random.Random(3)
    verdicts = {True: 0, False: 0}
    for _ in range(400):
        register = random_register(entropy, values=["v", "w", None])
        expected = is_linearizable(register)
        verdicts[expected] += 1
        found = search(register).order
        assert found is (Order.EXISTS if expected else Order.NONE), register
    assert min(verdicts.values()) > 40, verdicts


def test_the_search_agrees_with_zones_on_distinct_values() -> None:
    entropy = random.Random(4)
    for _ in range(300):
        register = random_register(entropy)
        try:
            linearizable.check_register(register)
        except CheckFailed:
            assert search(register).order is Order.NONE, register
        else:
            assert search(register).order is Order.EXISTS, register


def test_keys_with_repeated_values_are_searched() -> None:
    story = Story().put(1, "a", 0, 1).put(1, "b", 2, 3).put(1, "a", 4, 9).get(1, "a", 5, 6)
    assert check_linearizable(story.history) == (1, 0)
    story.get(1, "b", 7, 8)
    with pytest.raises(CheckFailed, match="explains operation #4"):
        check_linearizable(story.history)


def test_a_key_deleted_twice_is_searched() -> None:
    story = Story().put(1, "a", 0, 1).delete(1, 2, 9).get(1, None, 3, 4).get(1, "a", 5, 6)
    with pytest.raises(CheckFailed, match="explains operation #3"):
        check_linearizable(story.history)


def test_effort_is_bounded_and_an_undecided_key_is_no_failure() -> None:
    story = Story()
    for number in range(9):
        story.put(1, f"v{number % 5}", 0, 20).get(1, f"v{number % 4}", 0, 20)
    (register,) = registers_of(story.history, "tl")
    assert linearizable.check_key(register, effort_max=100) is False
    assert search(register, effort_max=100).order is Order.UNKNOWN
    assert linearizable.check_key(register) is True


def test_many_deletions_of_unknown_outcome_cost_little() -> None:
    story = Story()
    for number in range(40):
        story.step((Kind.DELETE, (1,)), (number, number + 0.5), outcome=Outcome.UNKNOWN)
        story.put(1, "a", number, number + 0.5)
        story.get(1, "a" if number % 2 else None, number + 0.6, number + 0.9)
    (register,) = registers_of(story.history, "tl")
    found = search(register)
    assert found.order is Order.EXISTS
    assert found.effort < 20_000


def test_long_histories_of_little_concurrency_are_cheap() -> None:
    story = Story()
    for step in range(2000):
        story.put(1, "ab"[step % 2], 2 * step, 2 * step + 1)
        story.get(1, "ab"[step % 2], 2 * step + 1.25, 2 * step + 1.75)
    (register,) = registers_of(story.history, "tl")
    assert search(register).effort < 10_000


def test_ledger_accepts_what_may_remain() -> None:
    story = Story().put(1, "a", 0, 1).put(1, "b", 2, 3).unknown_put(1, "u", 0, 1)
    story.put(2, "x", 0, 1).delete(2, 2, 3).put(3, "p", 0, 5).put(3, "q", 0, 5)
    for last in ("p", "q"):
        assert check_acknowledged_commits(story.history, "tl", {1: "b", 3: last}) == 6
    assert check_acknowledged_commits(story.history, "tl", {1: "u", 3: "p"}) == 6


@pytest.mark.parametrize(
    "final", [{1: "a"}, {}, {1: "b", 2: "x"}, {1: "b", 9: "z"}, {1: "f"}], ids=str
)
def test_ledger_refuses_lost_and_undone_writes(final: dict[int, str]) -> None:
    story = Story().put(1, "a", 0, 1).put(1, "b", 2, 3).failed_put(1, "f", 4, 5)
    story.put(2, "x", 0, 1).delete(2, 2, 3)
    check_acknowledged_commits(story.history, "tl", {1: "b"})
    with pytest.raises(CheckFailed):
        check_acknowledged_commits(story.history, "tl", final)


def test_ledger_uses_the_order_of_lsns_between_concurrent_writes() -> None:
    story = Story().put(1, "a", 0, 9, 16).put(1, "b", 0, 9, 8)
    check_acknowledged_commits(story.history, "tl", {1: "a"})
    with pytest.raises(CheckFailed, match="'a'"):
        check_acknowledged_commits(story.history, "tl", {1: "b"})


def test_read_back_covers_every_written_key() -> None:
    story = Story().put(1, "a", 0, 1).delete(5, 0, 1).put(1000, "z", 0, 1).get(7, None, 0, 1)
    ranges: list[tuple[int, int]] = []

    class Scanner:
        async def scan(self, first: int, end: int) -> list[tuple[int, str]]:
            ranges.append((first, end))
            return [(first, "v")]

    found = asyncio.run(read_back(Scanner(), story.history, "tl"))
    assert found == {1: "v", 1000: "v"}
    assert ranges == [(1, 6), (1000, 1001)]


def test_ranges_join_near_keys_only() -> None:
    assert ranges_of([]) == []
    assert ranges_of([1, 64]) == [(1, 65)]
    assert ranges_of([1, 66]) == [(1, 2), (66, 67)]


def test_commit_order_accepts_concurrent_disorder() -> None:
    story = Story().put(1, "a", 0, 5, 16).put(2, "b", 1, 6, 8).get(1, "a", 7, 8, 16)
    story.delete(9, 9, 10, 16).unknown_put(1, "u", 11, 12)
    story.step((Kind.GET, (1,)), (13, 14), ("a", 8), source=PINNED)
    assert check_commit_order(story.history) == 4


@pytest.mark.parametrize(
    "story",
    [
        Story().put(1, "a", 0, 1, 16).put(1, "b", 2, 3, 8),
        Story().put(1, "a", 0, 1, 16).get(1, "a", 2, 3, 8),
        Story().put(1, "a", 0, 5, 16).put(2, "b", 0, 5, 16),
        Story().put(1, "a", 0, 1, 24).put(1, "b", 0, 4, 8).get(2, None, 2, 3, 16),
    ],
    ids=["later write lower", "stale read", "one LSN twice", "stale read after disorder"],
)
def test_commit_order_refuses(story: Story) -> None:
    with pytest.raises(CheckFailed):
        check_commit_order(story.history)
