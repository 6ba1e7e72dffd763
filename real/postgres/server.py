"""A postmaster: its settings, its log as records of ours, its start and its end.

It listens on a Unix socket alone; the hub leads the cluster to it, so no port is ever taken.
A local data directory is never used twice: what it holds may be ahead of the quorum, so every
start is from a fresh one, nothing in it needs fsync, and a crashed backend ends the server.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import re
import signal
import subprocess
from collections.abc import Mapping
from pathlib import Path

from harness.errors import HarnessError
from real import process
from real.postgres.binaries import Binaries, as_user

STANDBY = "walproposer"
"""Name of the synchronous standby and of its replication slot."""

SETTINGS: Mapping[str, str] = {
    "listen_addresses": "",
    "wal_level": "replica",
    "wal_consistency_checking": "all",
    "full_page_writes": "on",
    "synchronous_standby_names": STANDBY,
    "synchronous_commit": "on",
    "max_wal_senders": "10",
    "max_replication_slots": "10",
    "hot_standby": "on",
    "wal_keep_size": "256MB",
    "max_prepared_transactions": "10",
    "fsync": "off",
    "restart_after_crash": "off",
    "shared_buffers": "32MB",
    # The default leaves a file in /dev/shm behind when the server is killed.
    "dynamic_shared_memory_type": "mmap",
    "logging_collector": "off",
    "log_destination": "stderr",
    "log_line_prefix": "%e ",
    "lc_messages": "C",
}
AUTHENTICATION = "local all all trust\nlocal replication all trust\n"

_LINE = re.compile(r"([0-9A-Z]{5}) ([A-Z0-9]+):  (.*)\Z", re.DOTALL)
_LEVELS = {"WARNING": logging.WARNING, "ERROR": logging.ERROR, "FATAL": logging.ERROR}
_OWN_DOING = ("08006", "22", "23", "25", "40001", "40P01", "42", "57P01", "57014", "57P03")
"""SQLSTATEs of what clients are refused and of what an administrator did: life, not failures."""

logger = logging.getLogger("postgres")


def log_level(severity: str, sqlstate: str) -> int:
    """Level of a server message: INFO for what is somebody's wish, like our own refusals."""
    if severity == "PANIC":
        return logging.CRITICAL
    if severity in _LEVELS and not sqlstate.startswith(_OWN_DOING):
        return _LEVELS[severity]
    return logging.INFO


class _LogProtocol(asyncio.Protocol):
    """Turns the server's stderr into log records; its end means that no process of it lives."""

    def __init__(self, ended: asyncio.Event) -> None:
        self._ended = ended
        self._rest = b""

    def data_received(self, data: bytes) -> None:
        *lines, self._rest = (self._rest + data).split(b"\n")
        for line in lines:
            self._log(line.decode("utf-8", "replace"))

    def _log(self, line: str) -> None:
        match = _LINE.match(line)
        if match is None:
            logger.info("%s", line)
        else:
            level = log_level(match[2], match[1])
            logger.log(level, "%s: %s [%s]", match[2], match[3], match[1])

    def connection_lost(self, exc: Exception | None) -> None:
        if self._rest:
            self._log(self._rest.decode("utf-8", "replace"))
        self._ended.set()


class Server:
    """One run of a postmaster on a data directory."""

    def __init__(self, binaries: Binaries, data: Path, socket_directory: Path) -> None:
        self.ended = asyncio.Event()
        self._binaries = binaries
        self._data = data
        self._socket_directory = socket_directory
        self._process: subprocess.Popen[bytes] | None = None

    def configure(self, extra: Mapping[str, str]) -> None:
        """Write the configuration files; ``extra`` settings win."""
        settings = {
            **SETTINGS,
            "wal_compression": self._binaries.wal_compression,
            "unix_socket_directories": str(self._socket_directory),
            **extra,
        }
        text = "".join(f"{name} = '{value}'\n" for name, value in settings.items())
        (self._data / "postgresql.conf").write_text(text)
        (self._data / "pg_hba.conf").write_text(AUTHENTICATION)
        (self._data / "pg_ident.conf").write_text("")

    async def start(self) -> None:
        """Start the postmaster; :meth:`wait_ready` tells when it serves."""
        assert self._process is None, "a server runs once"
        parent = os.getpid()
        command = [self._binaries.program("postgres"), "-D", str(self._data)]
        loop = asyncio.get_running_loop()
        self._process = subprocess.Popen(  # noqa: ASYNC220 - a fork; nothing waits for its end
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            preexec_fn=lambda: process.die_with_parent(parent),  # After the user has changed.
            **as_user(),
        )
        await loop.connect_read_pipe(lambda: _LogProtocol(self.ended), self._process.stderr)

    async def wait_ready(self) -> None:
        """Return once connections are served; ``HarnessError`` if the server ended instead.

        Reads what ``pg_ctl`` reads, the eighth line of ``postmaster.pid``: a probe by connecting
        would fill the log with refusals.
        """
        path = self._data / "postmaster.pid"
        while not self.ended.is_set():
            with contextlib.suppress(OSError, IndexError):
                if path.read_text().splitlines()[7].strip() == "ready":
                    return
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self.ended.wait(), 0.005)
        raise HarnessError(f"PostgreSQL ended while starting (exit code {self._code()}); see above")

    def _code(self) -> int | None:
        return None if self._process is None else self._process.wait()

    async def stop(self, *, fast_s: float) -> int:
        """End the server and return its exit code: in order if ``fast_s`` seconds suffice.

        An orderly end waits for the synchronous standby; without a quorum it never comes. Cutting
        it short is sound because the directory is not used again.
        """
        assert self._process is not None, "not started"
        for number in (signal.SIGINT, signal.SIGQUIT, signal.SIGKILL):
            self._process.send_signal(number)
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self.ended.wait(), fast_s)
                break
            logger.info("still running %g s after %s", fast_s, number.name)
        code = self._process.wait()
        logger.info("ended with exit code %d", code)
        return code
