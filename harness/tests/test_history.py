"""The recorded history: columns, outcomes, saving and loading."""

from __future__ import annotations

from pathlib import Path

import pytest

from harness.errors import HarnessError
from harness.history import History, Kind, Outcome, Source
from harness.history_file import read_history, write_history
from harness.tests.histories import PINNED, Story
from storage.lsn import Lsn


def test_an_operation_goes_from_pending_to_its_outcome() -> None:
    history = History()
    number = history.invoke(Source("c", "tl"), Kind.PUT, (1, "a"), 0.5)
    assert history[number].outcome is Outcome.PENDING
    assert history[number].completed_at_s is None
    assert history.commits() == 0
    history.succeed(number, 0.75, None, Lsn(8))
    operation = history[number]
    assert (operation.outcome, operation.completed_at_s, operation.lsn) == (Outcome.OK, 0.75, 8)
    assert history.commits() == 1
    with pytest.raises(AssertionError, match="twice"):
        history.succeed(number, 1.0, None, None)


def test_only_acknowledged_writes_count_as_commits() -> None:
    story = Story().put(1, "a", 0, 1).get(1, "a", 1, 2).unknown_put(1, "b", 2, 3)
    story.failed_put(1, "c", 3, 4).put(1, "d", 4, None)
    assert story.history.commits() == 1
    assert len(story.history) == 5


def test_changes_of_each_kind_of_write() -> None:
    story = Story().put(1, "a", 0, 1).delete(2, 1, 2)
    story.step((Kind.TXN, ({3: "x", 4: None},)), (2, 3)).get(1, "a", 3, 4)
    changes = [dict(operation.changes()) for operation in story.history]
    assert changes == [{1: "a"}, {2: None}, {3: "x", 4: None}, {}]


def test_timelines_are_separate() -> None:
    story = Story().put(1, "a", 0, 1)
    story.history.invoke(Source("c", "other"), Kind.GET, (1,), 2)
    assert story.history.timelines() == ["other", "tl"]
    assert [operation.kind for operation in story.history.of("other")] == [Kind.GET]


def test_saved_and_loaded_history_is_the_same(tmp_path: Path) -> None:
    story = Story().put(1, "ä'\n", 0, 1, 0x1_0000_0008).unknown_put(1, "b", 2, 3)
    story.step((Kind.TXN, ({3: "x", 4: None},)), (2, 3), (None, 8)).put(5, "p", 4, None)
    story.scan((0, 9), [(1, "a"), (3, "x")], 5, 6, 16).get(4, None, 6, 7)
    story.step((Kind.SUM, ()), (7, 8), (12, 24), source=PINNED).failed_put(1, "f", 8, 9)
    path = tmp_path / "history.jsonl"
    write_history(story.history, path)
    loaded = read_history(path)
    assert list(loaded) == list(story.history)
    assert loaded.commits() == story.history.commits()


def test_a_damaged_line_is_named(tmp_path: Path) -> None:
    path = tmp_path / "history.jsonl"
    write_history(Story().put(1, "a", 0, 1).history, path)
    path.write_text(path.read_text() + '{"kind": "get"}\n')
    with pytest.raises(HarnessError, match="line 2"):
        read_history(path)
