"""WAL, pages and operations: each pair is compared, and each kind of difference is seen."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence

import pytest

from harness.checkers.pages_equal_wal import Wanted, check_pages, choose
from harness.checkers.wal_explains_history import check_wal_explains
from harness.checkers.wal_model import PageState, WalModel, read_change, read_page
from harness.errors import CheckFailed
from harness.history import Kind, Outcome, Source
from harness.tests.histories import PINNED, Story
from harness.tests.wal_stories import Block, WalStory, change_bytes, page_bytes
from storage.lsn import Lsn


def test_pages_and_changes_are_taken_apart() -> None:
    assert read_page(page_bytes(0x1_0000_0010, 7, {3: "a", 1: "bc"})) == PageState(
        0x1_0000_0010, 7, {1: "bc", 3: "a"}
    )
    assert read_page(bytes(8192)) == PageState(0, 0, {})
    assert read_change(change_bytes(2, {1: "x", 2: None, 3: ""})) == (2, {1: "x", 2: None, 3: ""})
    with pytest.raises(CheckFailed, match="no page"):
        read_page(b"\1" * 8192)


def written() -> WalStory:
    story = WalStory().record(8, {1: "a", 2: "b"}).record(16, {1: "c", 40: "z"})
    return story.record(24, {2: None}).record(32, {1: "d"})


def test_the_model_knows_every_row_at_every_lsn() -> None:
    model = written().model
    assert [model.value(1, lsn) for lsn in (7, 8, 15, 16, 31, 32)] == [
        None, "a", "a", "c", "c", "d"
    ]  # fmt: skip
    assert model.rows(0, 64, 23) == {1: "c", 2: "b", 40: "z"}
    assert model.rows(0, 64, 24) == {1: "c", 40: "z"}
    assert model.page_state(0, 24) == PageState(24, 3, {1: "c"})
    assert model.page_state(1, 15) == PageState(0, 0, {})
    assert model.records[16] == {1: "c", 40: "z"}


def test_an_image_says_what_it_changed() -> None:
    model = written().model
    model.take(Lsn(40), [Block(0, image=page_bytes(0, 5, {1: "d", 3: "n"}))])
    assert model.records[40] == {3: "n"}
    model.take(Lsn(48), [Block(0, image=page_bytes(0, 6, {3: "n"}))])
    assert model.records[48] == {1: None}
    assert model.page_state(0, 48) == PageState(48, 6, {3: "n"})


@pytest.mark.parametrize("version", [4, 6])
def test_wal_whose_changes_do_not_follow_each_other_is_wrong(version: int) -> None:
    with pytest.raises(CheckFailed, match=f"version {version} of block 0, which is at version 4"):
        written().model.take(Lsn(40), [Block(0, change_bytes(version, {1: "e"}))])


def test_rows_in_a_strange_block_are_wrong() -> None:
    with pytest.raises(CheckFailed, match=r"puts keys \[64\] into block 0"):
        written().model.take(Lsn(40), [Block(0, change_bytes(5, {64: "e"}))])


def test_a_branch_sees_its_parent_up_to_the_branch_point() -> None:
    branch = WalModel(Lsn(16), written().model)
    branch.take(Lsn(24), [Block(0, change_bytes(3, {1: "child"}))])
    assert branch.rows(0, 64, 23) == {1: "c", 2: "b", 40: "z"}
    assert branch.rows(0, 64, 99) == {1: "child", 2: "b", 40: "z"}
    assert branch.page_state(0, 24) == PageState(24, 3, {1: "child", 2: "b"})
    assert branch.page(1, 99) == (16, 1)


def asked() -> Story:
    """The operations that wrote :func:`written`, and one of unknown outcome."""
    story = Story().step((Kind.TXN, ({1: "a", 2: "b"},)), (0, 1), (None, 8))
    story.step((Kind.TXN, ({1: "c", 40: "z"},)), (2, 3), (None, 16))
    return story.delete(2, 4, 5, 24).unknown_put(1, "d", 6, 7)


def explain(story: Story, wal: WalStory | None = None) -> int:
    return check_wal_explains(story.history, "tl", (wal or written()).model)


GOOD: dict[str, Callable[[Story], Story]] = {
    "a read": lambda s: s.get(1, "c", 8, 9, 24),
    "a read of what was of unknown outcome": lambda s: s.get(1, "d", 8, 9, 32),
    "a scan": lambda s: s.scan((0, 64), [(1, "c"), (40, "z")], 8, 9, 24),
    "a pinned read": lambda s: s.step((Kind.GET, (1,)), (8, 9), ("a", 15), source=PINNED),
    "deleting what is absent": lambda s: s.delete(2, 8, 9, 32).delete(5, 8, 9, 16),
    "beyond the model": lambda s: s.get(1, "?", 8, 9, 40),
    "without LSN": lambda s: s.put(1, "?", 8, 9),
}

BAD: dict[str, Callable[[Story], Story]] = {
    r"changes keys \[2\] as well": lambda s: s.put(1, "lost", 8, 9, 24),
    "another record ends there": lambda s: s.put(2, "lost", 8, 9, 24),
    "no record ends there": lambda s: s.put(9, "lost", 8, 9, 20),
    "key 9 is None": lambda s: s.step((Kind.TXN, ({1: "d", 9: "lost"},)), (8, 9), (None, 32)),
    r"changes keys \[40\] as well": lambda s: s.put(1, "c", 8, 9, 16),
    "key 1 is 'd'": lambda s: s.delete(1, 8, 9, 32),
    "by the WAL it is 'c'": lambda s: s.get(1, "d", 8, 9, 24),
    r"by the WAL it is \[\(1, 'c'\)": lambda s: s.scan((0, 64), [(40, "z")], 8, 9, 24),
    "by the WAL it is 'a'": lambda s: s.step((Kind.GET, (1,)), (8, 9), ("c", 15), source=PINNED),
}


@pytest.mark.parametrize("name", GOOD)
def test_operations_that_the_wal_explains(name: str) -> None:
    explain(GOOD[name](asked()))


@pytest.mark.parametrize("says", BAD)
def test_operations_that_the_wal_contradicts(says: str) -> None:
    with pytest.raises(CheckFailed, match=says):
        explain(BAD[says](asked()))


def test_records_that_no_operation_explains() -> None:
    assert explain(asked()) == 3
    with pytest.raises(CheckFailed, match="nobody wrote it"):
        explain(asked(), written().record(40, {7: "ghost"}))
    with pytest.raises(CheckFailed, match="is in the WAL twice"):
        explain(asked().unknown_put(1, "e", 8, 9), written().record(40, {1: "e"})
                .record(48, {1: "d"}))  # fmt: skip
    with pytest.raises(CheckFailed, match="nobody wrote it"):
        explain(Story().failed_put(1, "a", 0, 1), WalStory().record(8, {1: "a"}))


STEPS = (("append", 1, "y"), ("add", 2, -3))


def test_steps_are_redone_on_the_state_before_their_record() -> None:
    wal = WalStory().record(8, {1: "x", 2: "5"}).record(16, {1: "x,y", 2: "2"})
    start = Story().step((Kind.TXN, ({1: "x", 2: "5"},)), (0, 1), (None, 8))
    start.step((Kind.TRANSACT, (STEPS,)), (2, 3), (["x,y", "2"], 16))
    assert explain(start, wal) == 2
    with pytest.raises(CheckFailed, match=r"on the state before 0/18 its steps see \['x,y', '2'\]"):
        wal = WalStory().record(8, {1: "x", 2: "5"}).record(24, {1: "y", 2: "2"})
        story = Story().step((Kind.TXN, ({1: "x", 2: "5"},)), (0, 1), (None, 8))
        explain(story.step((Kind.TRANSACT, (STEPS,)), (2, 3), (["y", "2"], 24)), wal)


def test_steps_of_unknown_outcome_explain_what_they_would_set_and_only_once() -> None:
    wal = WalStory().record(8, {1: "x", 2: "5"}).record(16, {1: "x,y", 2: "2"})

    def story() -> Story:
        begun = Story().step((Kind.TXN, ({1: "x", 2: "5"},)), (0, 1), (None, 8))
        return begun.step((Kind.TRANSACT, (STEPS,)), (2, 3), outcome=Outcome.UNKNOWN)

    assert explain(story(), wal) == 1
    with pytest.raises(CheckFailed, match="is in the WAL twice"):
        explain(story(), wal.record(24, {1: "x,y,y", 2: "-1"}))
    with pytest.raises(CheckFailed, match="nobody wrote it"):
        explain(story(), WalStory().record(8, {1: "x", 2: "5"}).record(16, {1: "x,y"}))
    with pytest.raises(CheckFailed, match="nobody wrote it"):
        explain(Story().step((Kind.TRANSACT, (STEPS,)), (2, 3), outcome=Outcome.FAILED),
                WalStory().record(8, {1: "y", 2: "-3"}))  # fmt: skip


def test_sums_and_other_timelines() -> None:
    wal = WalStory().record(8, {1: "4", 2: "5"})
    story = Story().step((Kind.TXN, ({1: "4", 2: "5"},)), (0, 1), (None, 8))
    story.step((Kind.SUM, ()), (2, 3), (9, 8))
    story.step((Kind.GET, (1,)), (2, 3), ("other", 8), source=Source("c", "other"))
    assert explain(story, wal) == 2
    with pytest.raises(CheckFailed, match="by the WAL it is 9"):
        explain(story.step((Kind.SUM, ()), (4, 5), (10, 8)), wal)


class MemoryPages:
    """A pageserver that redoes as the model does, save for one thing."""

    name = "ps0"

    def __init__(self, model: WalModel, spoil: Callable[[Wanted, PageState], PageState]) -> None:
        self._model = model
        self._spoil = spoil

    async def read(self, wanted: Sequence[Wanted]) -> list[bytes]:
        states = [self._spoil(each, self._model.page_state(*each)) for each in wanted]
        return [page_bytes(*state) for state in states]


def compare(spoil: Callable[[Wanted, PageState], PageState], pages_max: int = 64) -> int:
    model = written().model
    span = (Lsn(0), Lsn(32))
    return asyncio.run(check_pages(MemoryPages(model, spoil), model, span, pages_max=pages_max))


def test_pages_that_equal_the_wal() -> None:
    assert compare(lambda wanted, state: state) == 12
    assert compare(lambda wanted, state: state, pages_max=3) == 3


@pytest.mark.parametrize(
    ("says", "spoil"),
    [
        ("key 1 'c'; by the WAL it is 'd'", lambda w, s: s._replace(rows={**s.rows, 1: "c"})),
        ("version 3; by the WAL", lambda w, s: s._replace(version=s.version - (s.lsn == 32))),
        ("block 0 at 0/17 as of 0/18", lambda w, s: s._replace(lsn=24 if w.lsn == 23 else s.lsn)),
        ("key 2 None; by the WAL it is 'b'", lambda w, s: s._replace(
            rows={} if w == (0, 8) else s.rows)),
    ],
)  # fmt: skip
def test_pages_that_differ(says: str, spoil: Callable[[Wanted, PageState], PageState]) -> None:
    with pytest.raises(CheckFailed, match="serves block") as failure:
        compare(spoil)
    if says.startswith("key 2"):
        assert "at 0/8 with key 1 None" in str(failure.value)
    else:
        assert says in str(failure.value)


def test_versions_are_chosen_inside_the_span_both_ends_of_each() -> None:
    model = written().model
    assert choose(model, 0, 32, 99)[:2] == [(0, 32), (1, 32)]
    assert (0, 15) in choose(model, 0, 32, 99) and (0, 16) in choose(model, 0, 32, 99)
    assert all(16 <= lsn <= 24 for _, lsn in choose(model, 16, 24, 99))
    assert choose(model, 33, 40, 99) == []
