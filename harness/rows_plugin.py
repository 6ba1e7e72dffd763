"""pytest plugin: the marker ``row``, and ``--rows FILE``, which notes who claims what.

A scenario claims in the worlds it runs in; another test says its own: ``worlds=("sim",)``.
"""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from harness.pytest_plugin import base_nodeid
from harness.system_rows import claims
from harness.verdict import RunSettings


def pytest_addoption(parser: pytest.Parser) -> None:
    """The option of the collector."""
    group = parser.getgroup("seawall")
    group.addoption("--rows", default="", help="write who claims which row to this file")


def pytest_configure(config: pytest.Config) -> None:
    """Declare the marker."""
    config.addinivalue_line(
        "markers",
        "row(*claims, worlds=()): claims of harness/system_rows.py that fail without this test; "
        "worlds only for what is no scenario",
    )


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Refuse claims that do not exist; note the others."""
    known = claims()
    found: dict[tuple[str, str, str], None] = {}
    for item in items:
        for mark in item.iter_markers("row"):
            for name in mark.args:
                if name not in known:
                    raise pytest.UsageError(f"{item.nodeid}: no claim {name!r} in any row")
                for world in _worlds(item, mark):
                    found[name, world, _test_of(item)] = None
    if path := config.getoption("--rows"):
        Path(path).write_text(json.dumps(list(found)), encoding="utf-8")


def _worlds(item: pytest.Item, mark: pytest.Mark) -> tuple[str, ...]:
    case = item.callspec.params.get("world") if hasattr(item, "callspec") else None
    if isinstance(case, RunSettings):
        return (case.world,)
    worlds = tuple(mark.kwargs.get("worlds", ()))
    if not worlds or not set(worlds) <= {"sim", "real"}:
        raise pytest.UsageError(f"{item.nodeid}: row {mark.args} needs worlds: sim, real or both")
    return worlds


def _test_of(item: pytest.Item) -> str:
    """A scenario with its own parameters; of any other test the function only."""
    assert isinstance(item, pytest.Function), f"{item.nodeid} cannot claim a row"
    case = item.callspec.params.get("world") if hasattr(item, "callspec") else None
    if isinstance(case, RunSettings):
        return base_nodeid(item)
    return item.nodeid.partition("[")[0]
