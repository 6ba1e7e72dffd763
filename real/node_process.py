"""The backend's view of one incarnation of a node: its channel, its state, how it ended."""

from __future__ import annotations

import asyncio
import contextlib
import json
import socket
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from signal import Signals

from harness.errors import HarnessError
from real.forkclient import ForkClient
from real.node_main import NodePlan

STOPPED_S_MAX = 5.0


def _is_stopped(pid: int) -> bool:
    """Whether the kernel says of every thread that it is stopped; proc(5)."""
    states = []
    for thread in Path(f"/proc/{pid}/task").iterdir():
        with contextlib.suppress(OSError):
            states.append((thread / "stat").read_text().rpartition(")")[2].split()[0])
    return all(state == "T" for state in states)


class NodeProcess:
    """A node process from fork to exit; ``on_state`` hears ``ready`` and ``ended`` once each."""

    def __init__(
        self, forks: ForkClient, plan: NodePlan, on_state: Callable[[NodeProcess, str], None]
    ) -> None:
        self.plan = plan
        self.ready = asyncio.Event()
        self.ended = asyncio.Event()
        self.death_expected = False
        self.exit_code: int | None = None
        self.reason = ""
        self._forks = forks
        self._on_state = on_state
        self._loop = asyncio.get_running_loop()
        self._buffer = b""
        self._is_paused = False
        self._channel, remote = socket.socketpair()
        try:
            with remote:
                self.pid = forks.node(plan, remote)
        except BaseException:
            self._channel.close()
            raise
        self._channel.setblocking(False)
        self._loop.add_reader(self._channel, self.poll)

    @property
    def running(self) -> bool:
        """Whether the process still exists (paused counts)."""
        self.poll()
        return not self.ended.is_set()

    def poll(self) -> None:
        """Take in what the process said, and its death."""
        while not self.ended.is_set():
            try:
                data = self._channel.recv(65536)
            except BlockingIOError:
                return
            except OSError:
                data = b""
            if not data:
                self._mark_ended(self._forks.status)
                return
            self._buffer += data
            *lines, self._buffer = self._buffer.split(b"\n")
            for line in lines:
                self._take(json.loads(line))

    def _take(self, message: dict[str, object]) -> None:
        if "died" in message:
            self.reason = str(message["died"])
        elif message.get("ready"):
            self.ready.set()
            self._on_state(self, "ready")

    def _mark_ended(self, ask: Callable[[int], int | None]) -> None:
        try:
            self.exit_code = ask(self.pid)
        except HarnessError as error:  # The kernel kills the children of a dead fork server.
            self.reason = self.reason or str(error)
        self._loop.remove_reader(self._channel)
        self._channel.close()
        self.ended.set()
        self._on_state(self, "ended")

    def kill(self) -> None:
        """Crash the process and all below it, now."""
        if self.running:
            self.death_expected = True
            self._mark_ended(self._forks.kill)

    def signal(self, number: Signals) -> None:
        """Send a signal to the process alone."""
        if self.running:
            self._forks.signal(self.pid, number)

    def signal_tree(self, number: Signals) -> None:
        """Send a signal to the process and all below it."""
        if self.running:
            self._forks.signal_tree(self.pid, number)
            self._is_paused = number is Signals.SIGSTOP

    @contextlib.contextmanager
    def held_still(self) -> Iterator[None]:
        """Meanwhile no thread of the process runs, and none is within a system call."""
        if self._is_paused or not self.running:
            yield
            return
        self.signal_tree(Signals.SIGSTOP)
        try:
            deadline_s = time.monotonic() + STOPPED_S_MAX
            while not _is_stopped(self.pid):
                if time.monotonic() > deadline_s:
                    raise HarnessError(f"process {self.pid} does not stop in {STOPPED_S_MAX} s")
                time.sleep(0.0005)
            yield
        finally:
            self.signal_tree(Signals.SIGCONT)

    def died(self) -> str | None:
        """Why the process ended by itself; ``None`` while it runs or when it was made to end."""
        if self.running or (self.death_expected and not self.reason):
            return None
        if self.reason:
            return self.reason
        if self.exit_code is not None and self.exit_code < 0:
            with contextlib.suppress(ValueError):
                return f"killed by {Signals(-self.exit_code).name}"
        return f"ended with exit code {self.exit_code}"
