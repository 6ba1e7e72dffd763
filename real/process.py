"""Linux process facts: names, death signals, process trees. No policy.

Source: prctl(2), proc(5). Where prctl is missing (not Linux) names and death signals are no-ops;
the fork server's own watch on its owner still ends every process.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
from pathlib import Path

PR_SET_PDEATHSIG = 1
PR_SET_NAME = 15
PR_SET_CHILD_SUBREAPER = 36
IPC_RMID = 0


def _prctl(option: int, value: int | bytes) -> None:
    with contextlib.suppress(AttributeError, OSError):
        argument = ctypes.c_char_p(value) if isinstance(value, bytes) else ctypes.c_ulong(value)
        ctypes.CDLL(None, use_errno=True).prctl(option, argument, 0, 0, 0)


def name_thread(name: str) -> None:
    """Name the calling thread (of a main thread: the process), as ``top -H`` shows it; 15 bytes."""
    _prctl(PR_SET_NAME, name.encode()[:15])


def set_title(title: str) -> None:
    """Show ``title`` as this process's command line (``ps``), cut to the room there is.

    The kernel shows the memory between two addresses it tells (proc(5), ``arg_start``, field 48).
    """
    with contextlib.suppress(OSError, ValueError, IndexError):
        fields = Path("/proc/self/stat").read_text().rpartition(")")[2].split()
        start, end = int(fields[45]), int(fields[46])
        assert start < end, "a process has arguments"
        text = title.encode()[: end - start - 1]
        ctypes.memset(start, 0, end - start)
        ctypes.memmove(start, text, len(text))


def die_with_parent(parent_pid: int, with_signal: signal.Signals = signal.SIGKILL) -> None:
    """Have the kernel signal this process when its parent ends; ends now if it has already."""
    _prctl(PR_SET_PDEATHSIG, int(with_signal))
    if os.getppid() != parent_pid:
        os._exit(1)


def adopt_orphans() -> None:
    """Become the parent of descendants whose own parent ends, so that they can be reaped."""
    _prctl(PR_SET_CHILD_SUBREAPER, 1)


def parents() -> dict[int, int]:
    """The parent of every process of the machine."""
    found: dict[int, int] = {}
    for entry in os.listdir("/proc"):
        if entry.isdigit():
            with contextlib.suppress(OSError, ValueError):
                # The name in parentheses may itself contain anything; fields follow the last one.
                fields = Path(f"/proc/{entry}/stat").read_text().rpartition(")")[2].split()
                found[int(entry)] = int(fields[1])
    return found


def tree(pid: int) -> list[int]:
    """A process and everything below it, parents first."""
    below: dict[int, list[int]] = {}
    for child, parent in sorted(parents().items()):
        below.setdefault(parent, []).append(child)
    found = [pid]
    for one in found:
        found += below.get(one, [])
    return found


def signal_tree(pid: int, number: signal.Signals) -> list[int]:
    """Signal a process and all below it, again while new ones appear; returns their pids.

    Only sound for signals that end or freeze the receiver at once, or let it go on.
    """
    reached: list[int] = []
    while (pids := tree(pid)) != reached:
        for one in pids:
            if one not in reached:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(one, number)
        reached = pids
    return reached


def kill_tree(pid: int) -> list[int]:
    """SIGKILL a process and all below it as one crash: all are frozen before the first dies."""
    pids = signal_tree(pid, signal.SIGSTOP)
    for one in pids:
        with contextlib.suppress(ProcessLookupError):
            os.kill(one, signal.SIGKILL)
    return pids


def remove_shared_memory_of(pids: list[int]) -> None:
    """Remove System V segments that killed processes created (each PostgreSQL has one)."""
    try:
        rows = Path("/proc/sysvipc/shm").read_text().splitlines()[1:]
    except OSError:
        return
    for row in rows:
        fields = row.split()
        if int(fields[4]) in pids:
            ctypes.CDLL(None).shmctl(int(fields[1]), IPC_RMID, None)
