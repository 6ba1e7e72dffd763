"""Marks: declared once, each reached by some code, counted the same in every run of a seed."""

from __future__ import annotations

import re
from collections import Counter
from pathlib import Path

from storage.events import current_sink
from storage.marks import Mark, reach

ROOT = Path(__file__).resolve().parents[2]


def test_every_mark_is_in_the_code_and_none_is_made_up() -> None:
    used = Counter(
        name
        for path in sorted((ROOT / "storage").rglob("*.py"))
        if "tests" not in path.parts
        for name in re.findall(r"reach\(Mark\.(\w+)\)", path.read_text(encoding="utf-8"))
    )

    assert set(used) == {mark.name for mark in Mark}


def test_meanings_tell_the_role_and_differ() -> None:
    meanings = [mark.value for mark in Mark]

    assert len(set(meanings)) == len(meanings) == len(Mark)
    for mark in Mark:
        role, colon, what = mark.value.partition(": ")
        assert role in ("safekeeper", "walproposer", "pageserver", "compute")
        assert colon and what


def test_a_mark_is_an_event_of_its_node_and_nothing_without_a_listener() -> None:
    heard: list[tuple[str, object]] = []
    reach(Mark.WAL_CUT)
    token = current_sink.set(lambda kind, fields: heard.append((kind, fields)))
    try:
        reach(Mark.WAL_CUT)
    finally:
        current_sink.reset(token)

    assert heard == [("mark", {"name": "wal_cut"})]
