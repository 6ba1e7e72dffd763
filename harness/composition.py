"""The composition root as the harness finds it: ``conftest.py`` of the current directory.

The harness knows no world. A root module offers ``WORLDS`` (name → factory of a
:class:`harness.runner.WorldRunner`), ``BENCHES`` (name → function returning one JSON object),
``bank`` (returns the known bugs), ``HUNTING_GROUNDS`` (node ids of the scenarios they are hunted
with) and ``write_bug_page`` (draws what was found).
"""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

from harness.bug import Bug
from harness.errors import HarnessError
from harness.runner import WorldRunner


def root_module() -> ModuleType:
    """Import ``conftest.py``; ``HarnessError`` if there is none here."""
    if not Path("conftest.py").exists():
        raise HarnessError(f"no conftest.py in {Path.cwd()}; run from the top of the repository")
    if str(Path.cwd()) not in sys.path:
        sys.path.insert(0, str(Path.cwd()))
    return importlib.import_module("conftest")


def worlds() -> Mapping[str, Callable[[], WorldRunner]]:
    """Every world on offer, by name."""
    found: Mapping[str, Callable[[], WorldRunner]] = root_module().WORLDS
    return found


def benches() -> Mapping[str, Callable[[], Mapping[str, Any]]]:
    """Every benchmark on offer, by name."""
    found: Mapping[str, Callable[[], Mapping[str, Any]]] = root_module().BENCHES
    return found


def bank() -> Sequence[Bug]:
    """Every known bug, once all of the code that has it is imported."""
    found: Sequence[Bug] = root_module().bank()
    return found


def hunting_grounds() -> Sequence[str]:
    """Node ids of the general scenarios that bugs are hunted with."""
    found: Sequence[str] = root_module().HUNTING_GROUNDS
    return found


def bug_page() -> Callable[[Mapping[str, Any], Path], None]:
    """Draws the page of bugs and oracles from ``harness.bug_table.to_json`` into a file."""
    found: Callable[[Mapping[str, Any], Path], None] = root_module().write_bug_page
    return found
