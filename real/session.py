"""What the runs of one test session share: the fork server, S3 and etcd, started side by side."""

from __future__ import annotations

import asyncio
import atexit
import functools
import os
import shutil
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from harness.errors import HarnessError
from harness.temporary import fresh_directory
from real.forkclient import ForkClient
from real.object_store import S3ObjectStore, S3Options
from real.postgres import binaries
from real.servers import EtcdServer, S3Server
from storage.errors import ObjectStoreError

PRELOAD = ("storage.roles", "real.node_ports:preload", "real.postgres.node")
POSTGRES_ROLES = "real.postgres.node:ROLES"


@dataclass(frozen=True)
class Services:
    """Shared services: S3 as clients reach it, etcd as ``host:port``."""

    s3: S3Options
    etcd: str


class RealSession:
    """Starts everything at once and early; :meth:`close` it in the end, or let the process end.

    ``preload`` is what the fork server imports or calls (``"module:function"``); ``with_services``
    false leaves S3 and etcd out, for nodes that need neither. Objects in an S3 of our own outlive
    the session in ``keep_objects``.
    """

    def __init__(
        self,
        preload: Sequence[str] = PRELOAD,
        *,
        with_services: bool = True,
        keep_objects: Path | None = None,
    ) -> None:
        self._keep_objects = keep_objects
        self.directory = _session_directory()
        self._forks = ForkClient(preload, own=[self.directory])
        self._etcd: EtcdServer | None = None
        self._s3: S3Server | None = None
        self._external_s3: S3Options | None = None
        self._services: Services | None = None
        self._closed = False
        atexit.register(self.close)
        try:
            if with_services:
                self._start_services()
        except BaseException:
            self.close()
            raise

    def _start_services(self) -> None:
        self._etcd = EtcdServer(self.directory / "etcd")
        self._etcd.start()
        self._external_s3 = _external_s3(os.environ)
        if self._external_s3 is None:
            self._s3 = S3Server(self.directory / "s3", keep=self._keep_objects)
            self._s3.start()

    @property
    def forks(self) -> ForkClient:
        """The fork server, ready."""
        self._forks.wait_started()
        return self._forks

    @property
    def services(self) -> Services | None:
        """The shared services, ready; ``None`` for a session without."""
        if self._services is None and self._etcd is not None:
            self._etcd.wait_ready()
            options = self._external_s3
            if options is None:
                assert self._s3 is not None, "moto serves S3 unless the environment names another"
                self._s3.wait_ready()
                options = self._s3.options
            else:
                _check_reachable(options)
            self._services = Services(options, self._etcd.endpoint)
        return self._services

    @functools.cached_property
    def has_postgres(self) -> bool:
        """Whether PostgreSQL can be run on this machine."""
        try:
            binaries.find()
        except HarnessError:
            return False
        return True

    def roles_of(self, role: str, default: str) -> str:
        """Which mapping of roles (``"module:NAME"``) a role is found in."""
        return POSTGRES_ROLES if role == "postgres" else default

    def close(self) -> None:
        """End every process of the session and remove its directory; twice is harmless."""
        if self._closed:
            return
        self._closed = True
        atexit.unregister(self.close)
        self._forks.close()
        for server in (self._etcd, self._s3):
            if server is not None:
                server.stop()
        shutil.rmtree(self.directory, ignore_errors=True)


def _session_directory() -> Path:
    directory = fresh_directory("seawall-session-")
    directory.chmod(0o711)
    return directory


def _check_reachable(options: S3Options) -> None:
    """Ask a server that is not ours for a listing; ``HarnessError`` says what is wrong with it."""

    async def ask() -> None:
        store = S3ObjectStore(options)
        try:
            await store.list("seawall-probe/")
        finally:
            await store.close()

    try:
        # The caller's loop may be running; this question gets a loop and a thread of its own.
        with ThreadPoolExecutor(1, "s3-probe") as pool:
            pool.submit(asyncio.run, ask()).result()
    except ObjectStoreError as error:
        raise HarnessError(f"S3 cannot be used: {error}") from error


def _external_s3(environment: Mapping[str, str]) -> S3Options | None:
    try:
        return S3Options.from_environment(environment)
    except ValueError as error:
        raise HarnessError(str(error)) from error
