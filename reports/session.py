"""What one pytest session did, beyond its scenarios: written by a plugin, read by the page.

``pytest -p reports.session --session-file FILE`` writes JSON lines: one that describes the code and
the machine, one for each finished test, one for the end. A file without the last was interrupted.
"""

from __future__ import annotations

import json
import platform
import shutil
import subprocess
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

MESSAGE_CHARACTERS_MAX = 600


@dataclass(frozen=True, slots=True)
class Outcome:
    """A finished test; ``outcome`` is ``passed``, ``failed`` or ``skipped``."""

    test_id: str
    outcome: str
    message: str = ""


@dataclass(frozen=True, slots=True)
class Session:
    """A session read back; ``exit_status`` is ``None`` when it did not even say that it ended."""

    about: dict[str, str] = field(default_factory=dict)
    outcomes: list[Outcome] = field(default_factory=list)
    exit_status: int | None = None

    @property
    def whole(self) -> bool:
        """Whether every test was run: not after Ctrl-C, a crash or a usage error."""
        return self.exit_status in (pytest.ExitCode.OK, pytest.ExitCode.TESTS_FAILED)

    def count(self, outcome: str) -> int:
        """How many tests ended so."""
        return sum(one.outcome == outcome for one in self.outcomes)


def read_session(path: Path) -> Session | None:
    """The session of a file, or ``None`` without one; a line cut short ends it."""
    if not path.is_file():
        return None
    about: dict[str, str] = {}
    outcomes: list[Outcome] = []
    exit_status = None
    for line in path.read_text(encoding="utf-8").splitlines():
        try:
            row = json.loads(line)
        except json.JSONDecodeError:
            break
        if "about" in row:
            about = row["about"]
        elif "exit_status" in row:
            exit_status = row["exit_status"]
        else:
            outcomes.append(Outcome(**row))
    return Session(about, outcomes, exit_status)


def pytest_addoption(parser: pytest.Parser) -> None:
    """``--session-file``."""
    group = parser.getgroup("seawall")
    group.addoption("--session-file", default="", help="write what the session did to this file")


def pytest_configure(config: pytest.Config) -> None:
    """Write only where tests are reported: not in the workers of xdist."""
    path = config.getoption("--session-file")
    if path and not hasattr(config, "workerinput"):
        config.pluginmanager.register(Writer(Path(path), config))


class Writer:
    """Appends a line for each finished test."""

    def __init__(self, path: Path, config: pytest.Config) -> None:
        self._path = path
        self._write({"about": about_this_code(config.rootpath)})

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """A test's call, or the set-up or teardown that kept it from passing."""
        if report.when == "call" or report.outcome != "passed":
            message = _message(report)
            row = {"test_id": report.nodeid, "outcome": report.outcome, "message": message}
            self._write(row)

    def pytest_collectreport(self, report: pytest.CollectReport) -> None:
        """A file that could not be collected."""
        if report.failed:
            row = {"test_id": report.nodeid, "outcome": "failed", "message": _message(report)}
            self._write(row)

    def pytest_sessionfinish(self, exitstatus: int) -> None:
        """The session ended, green or not."""
        self._write({"exit_status": int(exitstatus)})

    def _write(self, row: dict[str, Any]) -> None:
        with self._path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(row) + "\n")


def _message(report: pytest.TestReport | pytest.CollectReport) -> str:
    if report.outcome == "passed" or report.longrepr is None:
        return ""
    crash = getattr(report.longrepr, "reprcrash", None)
    if crash is not None:
        text = str(crash.message)
    elif isinstance(report.longrepr, tuple):
        text = str(report.longrepr[2])
    else:
        text = str(report.longrepr).strip()
    return text[:MESSAGE_CHARACTERS_MAX]


def about_this_code(root: Path) -> dict[str, str]:
    """Commit, Python and machine: what a replay line needs beside itself."""
    about = {
        "python": platform.python_version(),
        "machine": f"{platform.system()} {platform.release()} {platform.machine()}",
    }
    git = shutil.which("git")
    if git is not None:
        command = [git, "-C", str(root), "describe", "--always", "--dirty", "--abbrev=12"]
        found = subprocess.run(command, capture_output=True, text=True, check=False)
        if found.returncode == 0:
            about = {"commit": found.stdout.strip(), **about}
    return about
