"""What does not run everywhere is on a reviewed list: ``scenarios/skips.txt``.

A scenario that quietly left a world would be missed by nobody.
"""

from __future__ import annotations

import ast
import importlib
import inspect
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest

SCENARIOS = Path(__file__).resolve().parents[2] / "scenarios"
REVIEWED = SCENARIOS / "skips.txt"


def restrictions() -> Iterator[str]:
    """A line for each marker of a scenario, and for each ability that one asks for."""
    for path in [*SCENARIOS.glob("test_*.py"), *SCENARIOS.glob("faults/test_*.py")]:
        file = path.relative_to(SCENARIOS)
        module = importlib.import_module(".".join(["scenarios", *file.with_suffix("").parts]))
        for name, function in inspect.getmembers(module, inspect.isfunction):
            if name.startswith("test_"):
                marks = [*of_module(module), *getattr(function, "pytestmark", [])]
                for mark in marks:
                    if mark.name in ("worlds", "computes"):
                        only = ", ".join(mark.args)
                        yield f"{file}::{name} {mark.name} {only}: {mark.kwargs['reason']}"
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call) and ast.unparse(node.func).endswith(".needs"):
                yield f"{file} needs {ast.unparse(node.args[0])}"


def of_module(module: ModuleType) -> list[pytest.Mark]:
    """Marks that a module gives to all of its scenarios."""
    found = getattr(module, "pytestmark", [])
    return [each.mark for each in (found if isinstance(found, list) else [found])]


def test_every_restriction_is_reviewed_and_no_review_is_stale() -> None:
    found = sorted(set(restrictions()))
    reviewed = REVIEWED.read_text(encoding="utf-8").splitlines()

    assert found, "no restriction is found at all: this test looks in the wrong place"
    assert found == reviewed, f"review the difference, then bring {REVIEWED.name} up to date"
