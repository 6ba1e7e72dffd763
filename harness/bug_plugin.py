"""pytest plugin: run scenarios with a known bug put back (``--bug ID``), and note what caught it.

It only wraps what :mod:`harness.pytest_plugin` does; a run that spins for ever under a bug is ended
by the wall clock and counts as not live.
"""

from __future__ import annotations

import signal
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType

import pytest

from harness.bug_catch import bug_of, note_catch
from harness.errors import HarnessError, NotLive
from harness.verdict import RunSettings

WALL_S_MAX = 60.0
"""What one run may take; general campaigns take a second."""


def pytest_addoption(parser: pytest.Parser) -> None:
    """Options of runs under a bug."""
    group = parser.getgroup("seawall")
    group.addoption("--bug", default="", help="put a bug of the bank back for every scenario")
    group.addoption("--catches", default="", help="append a JSON line for each run that caught it")


def pytest_configure(config: pytest.Config) -> None:
    """Refuse a bug that is not in the bank, or cannot be put back."""
    if wanted := config.getoption("--bug"):
        try:
            with bug_of(wanted):
                pass
        except HarnessError as error:
            raise pytest.UsageError(str(error)) from error


@pytest.hookimpl(wrapper=True)
def pytest_pyfunc_call(pyfuncitem: pytest.Function) -> Generator[None, object, object]:
    """Put the bug back for one run, and note how it ended."""
    bug_id = pyfuncitem.config.getoption("--bug")
    settings = pyfuncitem.funcargs.get("world")
    if not bug_id or not isinstance(settings, RunSettings):
        return (yield)
    try:
        with bug_of(bug_id), wall_limit(WALL_S_MAX):
            return (yield)
    except BaseException as error:
        if path := pyfuncitem.config.getoption("--catches"):
            note_catch(Path(path), settings.seed, error)
        raise


class _OutOfTime(KeyboardInterrupt):
    """Passes through every handler of the code under test, as nothing less does."""


@contextmanager
def wall_limit(seconds: float) -> Iterator[None]:
    """``NotLive`` if the block takes longer than ``seconds`` of real time; main thread only."""

    def ring(number: int, frame: FrameType | None) -> None:
        raise _OutOfTime

    before = signal.signal(signal.SIGALRM, ring)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    except _OutOfTime:
        raise NotLive(f"the run takes more than {seconds:g} s", checker="wall clock") from None
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
