"""Whether processes end: they do a moment after they were killed."""

import signal
import time
from pathlib import Path


def gone(pid, within_s=5.0):
    """Whether a process ends, as a zombie or altogether."""
    deadline = time.monotonic() + within_s
    while time.monotonic() < deadline:
        try:
            state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
        except (FileNotFoundError, ProcessLookupError):
            return True
        if state == "Z":
            return True
        breathe(0.01)
    return False


def breathe(seconds):
    """Give another process a moment."""
    signal.sigtimedwait([], seconds)
