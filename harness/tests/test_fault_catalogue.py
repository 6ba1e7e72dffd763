"""The page of faults is the vocabulary, and every word of it is complete."""

from __future__ import annotations

from harness.faulting.catalogue import ROOT, missing_in, page
from harness.faulting.vocabulary import FAULTS


def test_the_page_is_the_vocabulary() -> None:
    """After a change: python -m harness.faulting.catalogue > docs/faults.md"""
    assert (ROOT / "docs" / "faults.md").read_text(encoding="utf-8") == page()


def test_every_fault_says_what_it_does_and_how_that_is_measured() -> None:
    for fault in FAULTS.values():
        assert fault.what and fault.effects, fault.name
        assert all("." in counter for counter in fault.effects), fault.name


def test_what_the_real_world_lacks_is_said_on_the_page() -> None:
    rows = [line for line in page().splitlines() if "| no: cannot " in line]

    assert len(rows) == len(missing_in("real"))
    assert all(any(f"`{name}`" in row for row in rows) for name in missing_in("real"))
    assert missing_in("sim") == {}
