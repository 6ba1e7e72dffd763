"""The directory of one run: made fresh or given, and what of it is removed at the end."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

from harness.errors import HarnessError
from harness.temporary import fresh_directory
from real.forkclient import ForkClient

TRAVERSABLE = 0o711
SOCKET_PATH_BYTES_MAX = 107
"""``sun_path`` of unix(7), less its terminating zero."""


class RunDirectory:
    """``path`` holds the nodes; ``short`` is always fresh, below the temporary directory, with a
    path short enough for Unix sockets and open to the unprivileged user PostgreSQL runs as."""

    def __init__(self, given: Path | None, forks: ForkClient) -> None:
        self.short = self._make_short(forks)
        self.path = self.short if given is None else self._prepare(given)
        self.name = self.short.name
        self._nodes: set[str] = set()

    def _make_short(self, forks: ForkClient) -> Path:
        path = fresh_directory("seawall-")
        try:
            path.chmod(TRAVERSABLE)
            forks.own(path)
        except BaseException:
            path.rmdir()
            raise
        return path

    def _prepare(self, given: Path) -> Path:
        try:
            given.mkdir(parents=True, exist_ok=True)
            probe = given / f".seawall-{os.getpid()}"
            probe.touch()
            probe.unlink()
        except OSError as error:
            shutil.rmtree(self.short, ignore_errors=True)
            raise HarnessError(
                f"cannot write to the run's directory {str(given)!r}: {error.strerror}; "
                "name another one, or give none for a fresh temporary one"
            ) from error
        return given.resolve()

    def of_node(self, name: str) -> Path:
        """A node's directory, made at the first call."""
        path = self.path / name
        if name not in self._nodes:
            path.mkdir(exist_ok=True)
            path.chmod(TRAVERSABLE)
            self._nodes.add(name)
        return path

    def remove(self) -> None:
        """Remove what was made fresh; a directory that was given stays, for its reader."""
        shutil.rmtree(self.short, ignore_errors=True)
