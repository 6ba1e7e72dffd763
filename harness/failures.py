"""How a red run is told: the command that replays it first, then where and why.

A tool that cannot run, or was used wrongly, gets one sentence; all else keeps its traceback.
"""

from __future__ import annotations

import traceback
from pathlib import Path
from typing import Any

import pytest

from harness.errors import HarnessError


def describe(item: pytest.Item, error: BaseException) -> str:
    """The error on one line or more, behind the line of the test that it came from, if any."""
    text = f"{type(error).__name__}: {error}"
    lines = [
        frame.lineno
        for frame in traceback.extract_tb(error.__traceback__)
        if Path(frame.filename) == item.path
    ]
    file = item.nodeid.partition("::")[0]
    return f"{file}:{lines[-1]}: {text}" if lines else text


def present(
    report: pytest.TestReport, item: pytest.Item, error: BaseException, replay: str | None
) -> None:
    """Change how a failed report is printed; ``replay`` is ``None`` for what is no scenario."""
    told = isinstance(error, HarnessError) and (replay is not None or report.when == "setup")
    if told:
        report.longrepr = describe(item, error)
    if replay is not None:
        _prepend(report, f"replay: {replay}")


def _prepend(report: pytest.TestReport, line: str) -> None:
    chain = getattr(report.longrepr, "chain", None)
    if not chain:
        report.longrepr = f"{line}\n{report.longrepr}"
        return
    first: Any = chain[0][0].reprentries[0]
    first.lines.insert(0, line)
    first.reprfuncargs = None  # They would stand above it, and the test's id shows them.
    crash = getattr(report.longrepr, "reprcrash", None)
    if crash is not None:
        crash.message = f"{crash.message}  [{line}]"
