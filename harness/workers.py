"""Processes that work on jobs side by side, tell what they find as they find it, and may die.

A job's process can be ended by what it runs: memory, a signal, a crash of the interpreter. Then the
owner hears of it, with all that was told before, and the other jobs go on.
"""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import shutil
import signal
import tempfile
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from typing import Any, Generic, TypeVar

from harness.errors import HarnessError
from harness.temporary import scratch_directory

Job = TypeVar("Job")
Found = TypeVar("Found")

Work = Callable[[Job, Callable[[Found], object]], None]
"""Does one job in a process of its own; tells what it finds. Must be importable by name."""

JOBS_PER_PROCESS = 50
SILENCE_S_MAX = 600.0
"""A process that tells nothing for so long is killed; a run takes a second on an idle machine."""


@dataclass(frozen=True)
class Told(Generic[Job, Found]):
    """A job found something, and goes on."""

    job: Job
    found: Found


@dataclass(frozen=True)
class Done(Generic[Job]):
    """A job has ended; ``refusal``: the ``HarnessError`` that ended it, or empty."""

    job: Job
    refusal: str = ""


@dataclass(frozen=True)
class Died(Generic[Job]):
    """The process of a job ended in the middle of it; ``how`` says how."""

    job: Job
    how: str


News = Told[Job, Found] | Done[Job] | Died[Job]


@dataclass
class _Process(Generic[Job]):
    process: multiprocessing.process.BaseProcess
    connection: Connection
    job: Job
    jobs_left: int
    heard_at_s: float
    was_killed: bool = False


class Workers(Generic[Job, Found]):
    """Up to ``jobs`` processes for one kind of work. Submit, then iterate until nothing is left."""

    def __init__(
        self, work: Work[Job, Found], *, jobs: int, directory: str, hash_seed: int
    ) -> None:
        assert jobs >= 1, f"{jobs} processes"
        self._work = work
        self._jobs = jobs
        self._directory = directory
        self._hash_seed = hash_seed
        self._context = multiprocessing.get_context("spawn")
        self._waiting: deque[Job] = deque()
        self._working: list[_Process[Job]] = []
        self._idle: list[_Process[Job]] = []

    def submit(self, job: Job) -> None:
        """Queue a job; it starts when :meth:`news` is asked and a process is free."""
        self._waiting.append(job)

    def news(self) -> Iterator[News[Job, Found]]:
        """What jobs tell, as they tell it, until all submitted ones have ended."""
        while self._waiting or self._working:
            self._start_what_fits()
            ready = wait([one.connection for one in self._working], timeout=1.0)
            for one in list(self._working):
                if one.connection in ready:
                    yield self._hear(one)
                elif time.monotonic() - one.heard_at_s > SILENCE_S_MAX:
                    one.was_killed = True
                    one.process.kill()

    def _hear(self, one: _Process[Job]) -> News[Job, Found]:
        one.heard_at_s = time.monotonic()
        try:
            kind, what = one.connection.recv()
        except (EOFError, ConnectionResetError):
            self._working.remove(one)
            one.process.join()
            one.connection.close()
            silent = f"it told nothing for {SILENCE_S_MAX:g} s and was killed"
            return Died(one.job, silent if one.was_killed else _exit(one.process.exitcode))
        if kind == "told":
            return Told(one.job, what)
        self._working.remove(one)
        one.jobs_left -= 1
        if one.jobs_left:
            self._idle.append(one)
        else:
            _dismiss(one)
        return Done(one.job, what)

    def _start_what_fits(self) -> None:
        while self._waiting and len(self._working) < self._jobs:
            job = self._waiting.popleft()
            one = self._idle.pop() if self._idle else self._start(job)
            one.job, one.heard_at_s = job, time.monotonic()
            try:
                one.connection.send(job)
            except OSError:  # It died while it had nothing to do, so no job is to blame.
                self._waiting.appendleft(job)
                _dismiss(one)
            else:
                self._working.append(one)

    def _start(self, job: Job) -> _Process[Job]:
        ours, theirs = self._context.Pipe()
        process = self._context.Process(
            target=_live, args=(theirs, self._directory, self._work), daemon=True
        )
        with _environment(PYTHONHASHSEED=str(self._hash_seed)):
            process.start()
        theirs.close()
        return _Process(process, ours, job, JOBS_PER_PROCESS, time.monotonic())

    def close(self) -> None:
        """Kill what works; nothing of these processes is left."""
        for one in (*self._idle, *self._working):
            one.process.kill()
            one.process.join()
            one.connection.close()
        self._idle, self._working = [], []


@contextlib.contextmanager
def workers(
    work: Work[Job, Found], *, jobs: int, hash_seed: int = 0
) -> Iterator[Workers[Job, Found]]:
    """Processes (``jobs`` 0: one a core) that are gone, with their files, when the block ends.

    They share ``hash_seed``, so that what they find can be found again.
    """
    with scratch_directory("seawall-jobs-") as directory:
        found = Workers(
            work, jobs=jobs or os.cpu_count() or 1, directory=str(directory), hash_seed=hash_seed
        )
        try:
            yield found
        finally:
            found.close()


@dataclass(frozen=True)
class _Once(Generic[Job, Found]):
    function: Callable[[Job], Found]

    def __call__(self, job: Job, tell: Callable[[Found], object]) -> None:
        tell(self.function(job))


def results(function: Callable[[Job], Found], work: Iterable[Job], *, jobs: int) -> Iterator[Found]:
    """What an importable function returns for each job, in the order they end.

    ``HarnessError`` if it raised that, or if a process ended in the middle of it.
    """
    with workers(_Once(function), jobs=jobs) as pool:
        for job in work:
            pool.submit(job)
        for news in pool.news():
            match news:
                case Told(_, found):
                    yield found
                case Done(_, refusal) if refusal:
                    raise HarnessError(refusal)
                case Died(job, how):
                    raise HarnessError(f"the process of {job} ended: {how}")


def _exit(code: int | None) -> str:
    by_signal = code is not None and code < 0
    return f"signal {-code} ended it" if by_signal and code else f"it exited with code {code}"


def _dismiss(one: _Process[Any]) -> None:
    """Let a process end whose memory has grown; waiting for it costs nothing, it is idle."""
    one.connection.close()
    one.process.join()


def _live(connection: Connection, directory: str, work: Work[Any, Any]) -> None:
    _begin(directory)
    while True:
        try:
            job = connection.recv()
        except EOFError:
            return
        refusal = ""
        try:
            work(job, lambda found: connection.send(("told", found)))
        except HarnessError as error:
            refusal = str(error) or type(error).__name__
        connection.send(("done", refusal))


@contextlib.contextmanager
def _environment(**variables: str) -> Iterator[None]:
    before = {name: os.environ.get(name) for name in variables}
    os.environ.update(variables)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


def _begin(directory: str) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # A Ctrl-C of the terminal is for our owner.
    tempfile.tempdir = directory
    threading.Thread(target=_end_with_owner, args=(directory,), name="owner", daemon=True).start()


def _end_with_owner(directory: str) -> None:
    """An owner that was killed cannot tell its processes, which would work on for nobody."""
    owner = multiprocessing.parent_process()
    assert owner is not None, "this is a process of ours"
    owner.join()
    shutil.rmtree(directory, ignore_errors=True)
    os._exit(1)
