"""Running scenarios by node id through pytest, in this process: what run and sweep share."""

from __future__ import annotations

import contextlib
import io
import re
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from harness.errors import HarnessError
from harness.verdict import RunRecord, RunSettings

RECORDS = pytest.StashKey[Callable[[RunRecord], object]]()
"""Where a plugin says who is to be told of every record of the session."""

_WORLD_IN_ID = re.compile(r"\[(.*-)?(sim|real)-(walgen|postgres)(-seed\d+(\.[\w.]+)?)?(-.*)?\]$")
"""As pytest shows it in the ids of its tests."""


def run_once(
    nodeid: str, settings: RunSettings, *, artifacts: str = "", bug: str = ""
) -> RunRecord:
    """Run one scenario once, perhaps with a known bug put back.

    ``HarnessError`` when there is no such scenario in that world.
    """
    extra = [f"--artifacts={artifacts}"] if artifacts else []
    extra += ["--bug", bug] if bug else []
    records = run_seeds(nodeid, settings, runs=1, extra=extra)
    assert len(records) == 1
    return records[0]


def run_seeds(
    nodeid: str,
    settings: RunSettings,
    *,
    runs: int,
    extra: Sequence[str] = (),
    tell: Callable[[RunRecord], object] = lambda record: None,
) -> list[RunRecord]:
    """Run a scenario for ``runs`` seeds from ``settings.seed``; one record for each.

    ``tell`` is told of each as soon as its run has ended.
    """
    arguments = [nodeid.partition("[")[0], "-q", "-p", "no:cacheprovider", "--no-header"]
    arguments += ["--only-scenario", nodeid, *extra]
    arguments += ["--world", settings.world, "--compute", settings.compute]
    arguments += ["--seed", str(settings.seed), "--runs", str(runs)]
    arguments += ["--policy", settings.policy]
    # In one word: pytest looks for its root above every other word that is a path.
    arguments += [f"--plan={settings.plan}"]
    collector = _Collector(tell)
    output = io.StringIO()
    with contextlib.redirect_stdout(output), contextlib.redirect_stderr(output):
        code = pytest.main(arguments, plugins=[collector])
    if collector.interrupted:
        raise KeyboardInterrupt
    if not collector.records:
        raise HarnessError(_why_nothing_ran(nodeid, settings, int(code), output.getvalue()))
    return collector.records


class _Collector:
    """A pytest plugin that takes the records of a session, past every file."""

    def __init__(self, tell: Callable[[RunRecord], object]) -> None:
        self._tell = tell
        self.records: list[RunRecord] = []
        self.interrupted = False

    def pytest_configure(self, config: pytest.Config) -> None:
        """Have every record told."""
        config.stash[RECORDS] = self._take

    def _take(self, record: RunRecord) -> None:
        self.records.append(record)
        self._tell(record)

    def pytest_keyboard_interrupt(self, excinfo: pytest.ExceptionInfo[BaseException]) -> None:
        """Note a Ctrl-C, which pytest swallows; its subclasses are meant by who raised them."""
        self.interrupted = excinfo.type is KeyboardInterrupt


def _why_nothing_ran(nodeid: str, settings: RunSettings, code: int, output: str) -> str:
    where = f"world {settings.world!r} with compute {settings.compute!r}"
    if "::" not in nodeid:
        return f"{nodeid!r} names no scenario; write one as scenarios/file.py::test"
    if _WORLD_IN_ID.search(nodeid):
        return f"scenario {nodeid!r}: leave out world, compute and seed, which are options"
    if code == pytest.ExitCode.USAGE_ERROR or not Path(nodeid.partition("::")[0]).exists():
        return f"no scenario {nodeid!r}; list them with: pytest --collect-only -q scenarios"
    if code in (pytest.ExitCode.NO_TESTS_COLLECTED, pytest.ExitCode.OK):
        return f"scenario {nodeid!r} does not exist or does not run in {where}\n{output.strip()}"
    return f"scenario {nodeid!r} could not be run in {where}:\n{output.strip()}"
