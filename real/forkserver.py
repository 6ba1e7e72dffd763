"""The warmed parent: imports once what nodes need, then forks each node in milliseconds.

One packet per request on an inherited ``SOCK_SEQPACKET`` (JSON, file descriptors beside it), one
packet per answer. The server has no threads and no event loop, so that its children start clean.
When its owner disappears, by whatever death, every child is killed and the owner's directories
are removed; when the server itself dies, the kernel kills its children.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import gc
import importlib
import json
import os
import resource
import select
import shutil
import signal
import socket
import sys
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any, NoReturn

from real import node_main, process, proxy

PACKET_BYTES_MAX = 128 * 1024
REAP_S_MAX = 5.0


class ForkServer:
    """Serves one owner; ``_op_*`` are the requests."""

    def __init__(self, control: socket.socket, directories: list[Path]) -> None:
        self._control = control
        self._statuses: dict[int, int | None] = {}
        self._directories = directories
        self._wake_reader, self._wake_writer = socket.socketpair()
        for end in (self._wake_reader, self._wake_writer):
            end.setblocking(False)
        signal.signal(signal.SIGCHLD, lambda *_: None)
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        signal.set_wakeup_fd(self._wake_writer.fileno(), warn_on_full_buffer=False)

    def serve(self) -> None:
        """Answer requests until the owner is gone, then leave nothing behind."""
        poller = select.poll()
        poller.register(self._control, select.POLLIN)
        poller.register(self._wake_reader, select.POLLIN)
        try:
            while True:
                ready = [descriptor for descriptor, _ in poller.poll()]
                self._reap()
                if self._control.fileno() in ready and not self._answer_one():
                    return
        finally:
            self._end_all()

    def _answer_one(self) -> bool:
        data, descriptors, _, _ = socket.recv_fds(self._control, PACKET_BYTES_MAX, 4)
        if not data:
            return False
        request = json.loads(data)
        asked = request.pop("request")
        try:
            operation = getattr(self, f"_op_{request.pop('op')}")
            answer = {"request": asked, "ok": operation(descriptors=descriptors, **request)}
        except Exception as error:
            traceback.print_exc()
            answer = {"request": asked, "error": f"{type(error).__name__}: {error}"}
        finally:
            for descriptor in descriptors:
                os.close(descriptor)
        try:
            self._control.send(json.dumps(answer).encode())
        except OSError:
            return False
        return True

    def _fork(self, descriptor: int, run: Callable[[socket.socket], int]) -> int:
        parent = os.getpid()
        pid = os.fork()
        if pid:
            self._statuses[pid] = None
            return pid
        code = 70
        try:
            process.die_with_parent(parent)
            signal.set_wakeup_fd(-1)
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            channel = socket.socket(fileno=os.dup(descriptor))
            os.close(descriptor)
            for end in (self._control, self._wake_reader, self._wake_writer):
                end.close()
            code = run(channel)
        except BaseException:
            traceback.print_exc()
        finally:
            with contextlib.suppress(Exception):
                sys.stdout.flush()
                sys.stderr.flush()
            os._exit(code)

    def _op_node(self, *, plan: dict[str, Any], descriptors: list[int]) -> int:
        """Fork a node; its channel says when it is ready and, by its end, when it is dead."""
        return self._fork(
            descriptors[0], lambda channel: node_main.run(node_main.NodePlan(**plan), channel)
        )

    def _op_hub(self, *, message_path: str, descriptors: list[int]) -> int:
        """Fork a hub controlled over the descriptor."""

        def run(control: socket.socket) -> int:
            process.name_thread("seawall-hub")
            process.set_title("seawall hub")
            asyncio.run(proxy.serve(control, Path(message_path)))
            return 0

        return self._fork(descriptors[0], run)

    def _op_signal(self, *, pid: int, number: int, descriptors: list[int]) -> None:
        """Signal one process."""
        with contextlib.suppress(ProcessLookupError):
            os.kill(self._known(pid), number)

    def _op_signal_tree(self, *, pid: int, number: int, descriptors: list[int]) -> None:
        """Signal a process and its descendants."""
        process.signal_tree(self._known(pid), signal.Signals(number))

    def _op_kill(self, *, pid: int, descriptors: list[int]) -> int | None:
        """Crash a process with its descendants; returns its wait status."""
        if self._statuses[self._known(pid)] is None:
            process.remove_shared_memory_of(process.kill_tree(pid))
        return self._op_status(pid=pid, descriptors=descriptors)

    def _op_status(self, *, pid: int, descriptors: list[int]) -> int | None:
        """Exit code (negative: signal) of a process that is ending; ``None`` if it is not."""
        deadline_s = time.monotonic() + REAP_S_MAX
        while self._statuses[self._known(pid)] is None and time.monotonic() < deadline_s:
            select.select([self._wake_reader], [], [], 0.1)
            self._reap()
        return self._statuses[pid]

    def _op_own(self, *, directory: str, descriptors: list[int]) -> None:
        """Remove ``directory`` should the owner end without having done so."""
        self._directories.append(Path(directory))

    def _known(self, pid: int) -> int:
        if pid not in self._statuses:
            raise ProcessLookupError(f"process {pid} is not a child of the fork server")
        return pid

    def _reap(self) -> None:
        with contextlib.suppress(BlockingIOError):
            while self._wake_reader.recv(4096):
                pass
        with contextlib.suppress(ChildProcessError):
            while True:
                pid, status = os.waitpid(-1, os.WNOHANG)
                if pid == 0:
                    return
                if pid in self._statuses:
                    self._statuses[pid] = os.waitstatus_to_exitcode(status)

    def _end_all(self) -> None:
        """Kill children in the order of their birth, then whatever they left to us."""
        for pid, status in self._statuses.items():
            if status is None:
                process.remove_shared_memory_of(process.kill_tree(pid))
        for orphan in process.tree(os.getpid())[1:]:
            process.kill_tree(orphan)
        for directory in self._directories:
            shutil.rmtree(directory, ignore_errors=True)


def main() -> NoReturn:
    """``python -m real.forkserver --control FD --preload a,b``: serve until the owner is gone."""
    parser = argparse.ArgumentParser(prog="python -m real.forkserver")
    parser.add_argument("--control", type=int, required=True, help="inherited SEQPACKET socket")
    parser.add_argument("--own", action="append", default=[], help="directory to remove in the end")
    parser.add_argument(
        "--preload", default="", help="modules to import or module:function to call, by commas"
    )
    arguments = parser.parse_args()
    process.name_thread("seawall-fork")
    process.adopt_orphans()
    control = socket.socket(fileno=arguments.control)
    for name in filter(None, arguments.preload.split(",")):
        module, _, function = name.partition(":")
        imported = importlib.import_module(module)
        if function:
            getattr(imported, function)()
    # What is alive now stays for good: never scan it again, and keep its pages shared.
    gc.collect()
    gc.freeze()
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    with contextlib.suppress(BrokenPipeError):  # The owner gave up; serve() sees that and leaves.
        control.send(json.dumps({"request": 0, "ok": soft}).encode())
    ForkServer(control, [Path(directory) for directory in arguments.own]).serve()
    sys.exit(0)


if __name__ == "__main__":
    main()
