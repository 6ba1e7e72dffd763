"""pytest plugin: run scenarios with a known bug put back (``--bug ID``), and note what caught it.

It only wraps what :mod:`harness.pytest_plugin` does; a run that spins for ever under a bug is ended
by the clock and counts as not live.
"""

from __future__ import annotations

import functools
import signal
from collections import Counter
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any

import pytest

from harness.bug_catch import bug_of, note_calls, note_catch
from harness.bug_witness import witnesses
from harness.errors import HarnessError, NotLive
from harness.verdict import RunSettings
from harness.world import World

CPU_S_MAX = 40.0
"""What one run may take; general campaigns take a second. Time on the processor, not on the wall:
a busy machine must not make a bug look caught."""


def pytest_addoption(parser: pytest.Parser) -> None:
    """Options of runs under a bug."""
    group = parser.getgroup("seawall")
    group.addoption("--bug", default="", help="put a bug of the bank back for every scenario")
    group.addoption(
        "--notes", default="", help="append JSON lines: calls of the bug, what caught it"
    )


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
    worlds = _keep_world(pyfuncitem)
    calls: Counter[str] = Counter()
    path = pyfuncitem.config.getoption("--notes")
    try:
        with bug_of(bug_id) as calls, cpu_limit(CPU_S_MAX):
            return (yield)
    except BaseException as error:
        if path:
            note_catch(Path(path), settings.seed, error, witnesses(worlds[-1]) if worlds else ())
        raise
    finally:
        if path:
            note_calls(Path(path), calls)


def _keep_world(pyfuncitem: pytest.Function) -> list[World]:
    """Every world that the scenario will be run in, for who wants to look at it afterwards."""
    worlds: list[World] = []
    scenario = pyfuncitem.obj

    @functools.wraps(scenario)
    async def kept(world: World, **arguments: Any) -> None:
        if isinstance(world, World):
            worlds.append(world)
        await scenario(world=world, **arguments)

    pyfuncitem.obj = kept
    return worlds


class _OutOfTime(KeyboardInterrupt):
    """Passes through every handler of the code under test, as nothing less does."""


@contextmanager
def cpu_limit(seconds: float) -> Iterator[None]:
    """``NotLive`` if the block takes more processor time than ``seconds``; main thread only."""

    def ring(number: int, frame: FrameType | None) -> None:
        raise _OutOfTime

    before = signal.signal(signal.SIGPROF, ring)
    signal.setitimer(signal.ITIMER_PROF, seconds)
    try:
        yield
    except _OutOfTime:
        raise NotLive(f"the run takes more than {seconds:g} s", checker="processor time") from None
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
        signal.signal(signal.SIGPROF, before)
