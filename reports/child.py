"""A child process with all its descendants: started in its own group, never left behind."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

POLL_S = 0.05
PATIENCE_S = ((signal.SIGINT, 45.0), (signal.SIGTERM, 10.0), (signal.SIGKILL, 10.0))
"""Real clusters stop their processes on SIGINT; that takes its time, so it is given."""


@contextlib.contextmanager
def group_of(command: list[str], log: Path) -> Iterator[subprocess.Popen[bytes]]:
    """Run a command, output to ``log``; at the end of the block its whole group is gone.

    Left by an exception (Ctrl-C), the block interrupts the group, as a terminal would; a second
    Ctrl-C makes it use the next stronger signal at once.
    """
    with log.open("wb") as output:
        process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    try:
        yield process
    finally:
        stop_group(process)


def stop_group(process: subprocess.Popen[bytes]) -> None:
    """End every process of the group that is left, gently first."""
    for number, patience_s in PATIENCE_S:
        if process.poll() is None or not _gone(process):
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, number)
        with contextlib.suppress(KeyboardInterrupt):
            if _wait(process, patience_s):
                return


def _wait(process: subprocess.Popen[bytes], patience_s: float) -> bool:
    """Whether the whole group ended within the time."""
    until_s = time.monotonic() + patience_s
    while time.monotonic() < until_s:
        if process.poll() is not None and _gone(process):
            return True
        time.sleep(POLL_S)
    return False


def _gone(process: subprocess.Popen[bytes]) -> bool:
    """Whether no process of the group is left; the leader must have been waited for."""
    try:
        os.killpg(process.pid, 0)
    except ProcessLookupError:
        return True
    except PermissionError:
        return False
    return False
