"""The page of bugs and oracles says what hunts found, and needs nothing but itself."""

from __future__ import annotations

import re
from typing import Any

from reports.bug_page import Cell, render, write_bug_page


def hunt(runs: int, oracle: str = "O1", message: str = "gone") -> dict[str, Any]:
    catch = {"seed": 7, "error": "CheckFailed: ledger", "message": message, "oracle": oracle}
    return {"runs": runs, "catch": catch if oracle else None, "replay": "python -m harness run n"}


def bug(**changes: Any) -> dict[str, Any]:
    return {
        "id": "the-bug", "family": "a family", "difficulty": "easy", "source": "somewhere",
        "expected_oracles": ["O1", "O2"], "status": "caught", "surprise": False,
        "applies": "always", "reason": "", "calls": {"storage.x": 31}, "live_share": 0.5,
        "seeds": 4.0,
        "ended_by": {"O1": 2}, "oracles": {"O1": 2, "O3": 1}, "scenarios": {}, "hunts":
        [hunt(9), hunt(4)], **changes,
    }  # fmt: skip


def found(*bugs: dict[str, Any], red: tuple[dict[str, str], ...] = ()) -> dict[str, Any]:
    return {
        "closing_line": "caught=1/1 median_seeds=4 waiting=0 inexpressible=0",
        "oracles": {"O1": "durable", "O2": "single history", "O3": "positions"},
        "control": {"runs": 20, "wall_s": 3.0, "red": list(red)},
        "bugs": list(bugs),
    }


def row_of(page: str, bug_id: str) -> str:
    return re.search(rf"<summary>{bug_id}.*?</tr>", page, re.DOTALL).group()


def test_row_shows_who_ended_runs_who_saw_it_and_who_was_expected() -> None:
    row = row_of(render(found(bug())), "the-bug")

    cells = re.findall(r'<span class="cell ([^"]*)">(\d*)</span>', row)
    assert cells == [("ended expected", "2"), ("missing expected", ""), ("saw", "1")]
    assert "<b>4</b>" in row
    assert "4 … 9" in row
    assert "python -m harness run n" in row
    assert "(called 31 times)" in row
    assert "50 % live" in row


def test_bug_that_some_hunts_missed_is_not_caught() -> None:
    row = row_of(render(found(bug(status="not caught", seeds=None, hunts=[hunt(9), hunt(50, "")]))),
                 "the-bug")  # fmt: skip

    assert "in 1 of 2 hunts" in row
    assert "up to 50" in row


def test_waiting_bug_says_for_what() -> None:
    waiting = bug(status="waiting", reason="comes with leases", hunts=[], oracles={}, ended_by={},
                  calls={}, live_share=None, seeds=None)  # fmt: skip
    page = render(found(waiting))

    assert "comes with leases" in row_of(page, "the-bug")
    assert re.search(r"<b>1</b>waiting", page)


def test_red_runs_without_any_bug_are_told() -> None:
    page = render(found(bug(), red=({"replay": "python -m harness run red", "message": "bad"},)))

    assert "<b>19</b>of 20 of the same runs" in page
    assert "python -m harness run red" in page
    assert "Red without any bug" not in render(found(bug()))


def test_other_voices_get_a_column_only_when_they_spoke() -> None:
    assert ">other</th>" not in render(found(bug()))
    assert ">other</th>" in render(found(bug(oracles={"other": 1}, ended_by={"other": 1})))


def test_page_is_whole_and_escaped(tmp_path) -> None:
    target = tmp_path / "bugs.html"
    write_bug_page(found(bug(hunts=[hunt(1, message="<script>alert(1)</script>")])), target)
    page = target.read_text(encoding="utf-8")

    assert "<script>alert" not in page
    assert not re.search(r"""(?:src|href)=["'](?!#)""", page)
    assert "url(" not in page.replace("url(#hatch)", "")


def test_cell_says_in_words_what_its_number_is() -> None:
    assert Cell(2, 3, True).title == "ended 2 runs, saw it in 1 more, asked afterwards; expected"
    assert Cell(0, 0, False).title == "saw nothing; not expected"
