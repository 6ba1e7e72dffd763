"""The page on consensus shows what the cores do now."""

from __future__ import annotations

from storage.tests.draw_consensus import PAGE, draw, page


def test_the_page_is_drawn_from_the_cores():
    text = PAGE.read_text(encoding="utf-8")
    assert page(text, draw()) == text, "run python -m storage.tests.draw_consensus"
