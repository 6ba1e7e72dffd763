"""The owner's side of :mod:`real.forkserver`: start it early, ask it later."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from harness.errors import HarnessError
from real.forkserver import PACKET_BYTES_MAX
from real.node_main import NodePlan

START_S_MAX = 60.0
ANSWER_S_MAX = 20.0
END_S_MAX = 20.0


class ForkClient:
    """One fork server. It imports ``preload`` and will remove the directories ``own``.

    Requests block for the few milliseconds that a fork or a kill takes.

    Raises ``HarnessError`` when the server cannot start, fails a request or does not answer.
    """

    def __init__(self, preload: Sequence[str], own: Sequence[Path] = ()) -> None:
        self._control, remote = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        command = [sys.executable, "-m", "real.forkserver"]
        command += ["--control", str(remote.fileno()), "--preload", ",".join(preload)]
        for directory in own:
            command += ["--own", str(directory)]
        source = str(Path(__file__).resolve().parent.parent)
        path = os.pathsep.join(filter(None, (source, os.environ.get("PYTHONPATH", ""))))
        with remote:
            self._process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                pass_fds=(remote.fileno(),),
                env={**os.environ, "PYTHONPATH": path},
                start_new_session=True,  # A Ctrl-C of the terminal is for the owner alone.
            )
        self._started = False
        self._number = 0

    def wait_started(self) -> None:
        """Return once the server has imported everything; called by the first request."""
        if not self._started:
            self._control.settimeout(START_S_MAX)
            self._receive("start")
            self._started = True
            self._control.settimeout(ANSWER_S_MAX)

    def node(self, plan: NodePlan, channel: socket.socket) -> int:
        """Fork a node that gets ``channel``; returns its pid."""
        fields = {name: getattr(plan, name) for name in plan.__dataclass_fields__}
        return int(self._ask("node", [channel], plan=fields))

    def hub(self, message_path: Path, control: socket.socket) -> int:
        """Fork a hub controlled over ``control``; returns its pid."""
        return int(self._ask("hub", [control], message_path=str(message_path)))

    def signal(self, pid: int, number: int) -> None:
        """Signal one child."""
        self._ask("signal", pid=pid, number=number)

    def signal_tree(self, pid: int, number: int) -> None:
        """Signal a child and its descendants."""
        self._ask("signal_tree", pid=pid, number=number)

    def kill(self, pid: int) -> int | None:
        """SIGKILL a child and its descendants; returns its exit code (negative: signal)."""
        return self._optional(self._ask("kill", pid=pid))

    def status(self, pid: int) -> int | None:
        """Exit code of a child that is ending; ``None`` if it does not end."""
        return self._optional(self._ask("status", pid=pid))

    def own(self, directory: Path) -> None:
        """Have a directory removed should this process die without doing so."""
        self._ask("own", directory=str(directory))

    def close(self) -> None:
        """End the server, every process below it and the directories it was told to own."""
        self._control.close()
        try:
            self._process.wait(END_S_MAX)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait(END_S_MAX)

    @staticmethod
    def _optional(answer: Any) -> int | None:
        return None if answer is None else int(answer)

    def _ask(
        self, operation: str, descriptors: Sequence[socket.socket] = (), **arguments: Any
    ) -> Any:
        self.wait_started()
        self._number += 1
        request = {"request": self._number, "op": operation, **arguments}
        data = json.dumps(request).encode()
        if len(data) > PACKET_BYTES_MAX:
            raise HarnessError(f"{operation}: {len(data)} bytes of options, too many for a node")
        try:
            socket.send_fds(self._control, [data], [sock.fileno() for sock in descriptors])
        except OSError as error:
            raise HarnessError(self._is_gone(operation)) from error
        return self._receive(operation)

    def _receive(self, operation: str) -> Any:
        try:
            data = self._control.recv(PACKET_BYTES_MAX)
        except OSError as error:
            raise HarnessError(f"the fork server does not answer {operation!r}") from error
        if not data:
            raise HarnessError(self._is_gone(operation))
        answer = json.loads(data)
        if answer["request"] != self._number:  # Of a request that a Ctrl-C cut short.
            return self._receive(operation)
        if "error" in answer:
            raise HarnessError(f"the fork server failed {operation!r}: {answer['error']}")
        return answer["ok"]

    def _is_gone(self, operation: str) -> str:
        code = self._process.poll()
        return f"the fork server ended (exit code {code}) before {operation!r}; see its stderr"
