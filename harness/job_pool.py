"""Processes that run seeds side by side and end with us, whatever they were at."""

from __future__ import annotations

import contextlib
import multiprocessing
import multiprocessing.pool
import os
import shutil
import signal
import tempfile
import threading
from collections.abc import Iterator

from harness.temporary import scratch_directory

TASKS_PER_PROCESS = 50


@contextlib.contextmanager
def job_pool(jobs: int) -> Iterator[multiprocessing.pool.Pool]:
    """A pool of ``jobs`` processes, 0: one a core; on exit they are killed and their files gone."""
    context = multiprocessing.get_context("spawn")
    with (
        scratch_directory("seawall-jobs-") as directory,
        context.Pool(
            jobs or os.cpu_count() or 1,
            initializer=begin,
            initargs=(str(directory),),
            maxtasksperchild=TASKS_PER_PROCESS,
        ) as pool,
    ):
        yield pool


def begin(directory: str) -> None:
    """In a new process: leave Ctrl-C to the owner, use its directory, end when it ends."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # A Ctrl-C of the terminal is for our owner.
    tempfile.tempdir = directory
    threading.Thread(target=_end_with_owner, args=(directory,), name="owner", daemon=True).start()


def _end_with_owner(directory: str) -> None:
    """An owner that was killed cannot tell its pool, which would work on for nobody."""
    owner = multiprocessing.parent_process()
    assert owner is not None, "this is a process of a pool"
    owner.join()
    shutil.rmtree(directory, ignore_errors=True)
    os._exit(1)
