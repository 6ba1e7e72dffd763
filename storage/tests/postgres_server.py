"""Real PostgreSQL servers for tests: finds installations, runs one in a directory of its own.

PostgreSQL refuses to run as root, so a root test run drops to ``postgres`` or ``nobody``. Servers
listen on a Unix socket inside their directory only.
"""

from __future__ import annotations

import atexit
import dataclasses
import functools
import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from real.postgres.binaries import Binaries, find_all, server_user

ALL_IMAGES = ("wal_consistency_checking=all", "full_page_writes=on", "wal_level=replica")
"""Settings under which every block reference of a record carries a page image."""


@dataclass(frozen=True)
class Installation:
    """A set of server binaries; ``extensions`` are the contrib modules it can create."""

    version: int
    binaries: Path
    extensions: frozenset[str]

    def tool(self, name: str) -> str:
        return str(self.binaries / name)


def installations() -> dict[int, Installation]:
    """By major version, found as the real world finds them."""
    return {found.major: _describe(found.major, found.directory) for found in find_all()}


def runnable(installation: Installation) -> Installation:
    """One that the server's user can run: a copy if a directory above it is closed to others."""
    binaries = Binaries(installation.binaries, str(installation.version), installation.version)
    directory = binaries.for_server_user(_copies()).directory
    return dataclasses.replace(installation, binaries=directory)


@functools.cache
def _copies() -> Path:
    path = Path(tempfile.mkdtemp(prefix="seawall-pg-copies-"))
    path.chmod(0o711)
    atexit.register(shutil.rmtree, path)
    return path


def _describe(version: int, place: Path) -> Installation:
    share = subprocess.check_output([place / "pg_config", "--sharedir"], text=True).strip()
    controls = Path(share, "extension").glob("*.control")
    return Installation(version, place, frozenset(control.stem for control in controls))


def _unprivileged() -> dict[str, Any]:
    """Arguments that make ``subprocess`` leave root; none when we are not root."""
    user = server_user()
    return {} if user is None else {"user": user.pw_uid, "group": user.pw_gid, "extra_groups": []}


@contextmanager
def scratch_directory() -> Iterator[Path]:
    """A directory that the server's user owns, removed afterwards."""
    path = Path(tempfile.mkdtemp(prefix="seawall-pg-"))
    own(path)
    try:
        yield path
    finally:
        shutil.rmtree(path)


def own(path: Path) -> None:
    """Give a directory and what is in it to the server's user."""
    identity = _unprivileged()
    if identity:
        for parent, _, files in os.walk(path):
            for name in ["", *files]:
                os.chown(os.path.join(parent, name), identity["user"], identity["group"])


class Server:
    """One data directory under ``home/name`` and the server that runs on it."""

    def __init__(self, installation: Installation, home: Path, name: str) -> None:
        self.installation = runnable(installation)
        self.home = home
        self.data = home / name
        self.log = home / f"{name}.log"

    def run(self, tool: str, *arguments: str, check: bool = True, stdin: str = "") -> str:
        """Run one of the installation's tools as the server's user; returns its output."""
        done = subprocess.run(
            [self.installation.tool(tool), *arguments],
            input=stdin, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, check=False,
            timeout=300, cwd=self.home, env={"PATH": os.environ["PATH"], "LC_ALL": "C"},
            **_unprivileged(),
        )  # fmt: skip
        if check and done.returncode != 0:
            raise AssertionError(f"{tool} {' '.join(arguments)} failed:\n{done.stdout}")
        return str(done.stdout)

    def initdb(self, *options: str) -> None:
        self.run(
            "initdb", "-D", str(self.data), "-U", "postgres", "-A", "trust", "--no-locale",
            "-E", "UTF8", "--no-sync", *options,
        )  # fmt: skip

    def start(self, settings: Sequence[str] = ()) -> None:
        options = ["-c listen_addresses=''", f"-c unix_socket_directories={self.home}"]
        options += [f"-c {setting}" for setting in ("fsync=off", *settings)]
        try:
            with open(self.home / f"{self.data.name}.ctl", "w") as output:
                subprocess.run(
                    [self.installation.tool("pg_ctl"), "-D", str(self.data), "-l", str(self.log),
                     "-w", "-t", "60", "-o", " ".join(options), "start"],
                    stdout=output, stderr=output, stdin=subprocess.DEVNULL, check=True, timeout=90,
                    cwd=self.home, **_unprivileged(),
                )  # fmt: skip
        except subprocess.CalledProcessError:
            raise AssertionError(f"no start:\n{self.log.read_text()[-3000:]}") from None

    def stop(self, mode: str = "fast") -> None:
        self.run("pg_ctl", "-D", str(self.data), "-w", "-m", mode, "stop")

    @contextmanager
    def running(self, *settings: str) -> Iterator[Server]:
        """Started on entry; stopped fast on exit, immediately after an error."""
        self.start(settings)
        try:
            yield self
        except BaseException:
            self.stop("immediate")
            raise
        self.stop()

    def sql(self, statements: str, database: str = "postgres") -> list[str]:
        """Run statements by psql; output lines, columns joined by ``|``."""
        output = self.run(
            "psql", "-h", str(self.home), "-U", "postgres", "-d", database, "-X", "-q", "-A", "-t",
            "-v", "ON_ERROR_STOP=1", stdin=statements,
        )  # fmt: skip
        return output.splitlines()

    def pgbench(self, *arguments: str) -> str:
        return self.run("pgbench", "-h", str(self.home), "-U", "postgres", *arguments, "postgres")
