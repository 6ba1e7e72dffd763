"""The node processes of one run, each through its incarnations: spawned, watched, ended.

It knows processes, logs and directories; links, services and faults are its backend's.
"""

from __future__ import annotations

import asyncio
import contextlib
import shutil
import signal
from collections.abc import Callable
from dataclasses import dataclass

from harness.backend import NodeSpec
from harness.errors import HarnessError, NodeDied, NotLive
from real.evidence import Evidence
from real.forkclient import ForkClient
from real.node_main import NodePlan
from real.node_process import NodeProcess
from real.run_directory import RunDirectory

STOP_AT_CLOSE_S = 5.0


@dataclass
class _Life:
    """A node: how often it began, and its last process."""

    incarnation: int = 0
    process: NodeProcess | None = None


class Lives:
    """Every node that was ever spawned in a run; ``make_plan`` says how an incarnation starts."""

    def __init__(
        self,
        forks: ForkClient,
        evidence: Evidence,
        directory: RunDirectory,
        make_plan: Callable[[NodeSpec, int], NodePlan],
    ) -> None:
        self._forks = forks
        self._evidence = evidence
        self._directory = directory
        self._make_plan = make_plan
        self._nodes: dict[str, _Life] = {}

    def check_known(self, name: str) -> None:
        """``HarnessError`` for a name that no node of this run has."""
        if name not in self._nodes:
            known = ", ".join(sorted(self._nodes)) or "none yet"
            raise HarnessError(f"no node {name!r} in this run; spawned so far: {known}")

    def last(self, name: str) -> NodeProcess | None:
        """The process of a node's last incarnation, which may have ended."""
        self.check_known(name)
        return self._nodes[name].process

    def running(self, name: str) -> bool:
        """Whether an incarnation runs now (paused counts)."""
        process = self.last(name)
        return process is not None and process.running

    def died(self, name: str) -> str | None:
        """Why the last incarnation ended by itself, or ``None``."""
        process = self.last(name)
        return None if process is None else process.died()

    def live(self, name: str) -> NodeProcess:
        """The process that runs now; ``NodeDied`` or ``HarnessError`` if there is none."""
        process = self.last(name)
        if process is None or not process.running:
            if (reason := self.died(name)) is not None:
                raise NodeDied(f"node {name!r} ended by itself: {reason}")
            raise HarnessError(f"node {name!r} is not running; spawn it first")
        return process

    def spawn(self, spec: NodeSpec) -> None:
        """Start a node's next incarnation; not yet ready."""
        node = self._nodes.setdefault(spec.name, _Life())
        if node.process is not None and node.process.running:
            raise HarnessError(f"node {spec.name!r} already runs; stop or kill it first")
        node.incarnation += 1
        self._evidence.add_node(spec.name)
        plan = self._make_plan(spec, node.incarnation)
        self._evidence.note(spec.name, "process", state="started", incarnation=node.incarnation)
        node.process = NodeProcess(self._forks, plan, self._on_state)

    def _on_state(self, process: NodeProcess, state: str) -> None:
        if state == "ended":
            state = "killed" if process.death_expected and process.exit_code != 0 else "stopped"
            if not process.reason and (how := process.died()) is not None:
                self._evidence.complain(process.plan.name, f"node {process.plan.name} {how}")
        self._evidence.note(process.plan.name, "process", state=state)

    async def wait_ready(self, name: str, *, within_s: float) -> None:
        """Return once the main set ``ready``; ``NodeDied`` if it ended, ``NotLive`` if too late."""
        process = self.last(name)
        assert process is not None, "a node is known from its first spawn on"
        loop = asyncio.get_running_loop()
        waits = [loop.create_task(event.wait()) for event in (process.ready, process.ended)]
        try:
            await asyncio.wait(waits, timeout=within_s, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for wait in waits:
                wait.cancel()
        if process.ready.is_set():
            return
        if process.ended.is_set():
            reason = process.died() or "it was made to end"
            raise NodeDied(f"node {name!r} ended before it was ready: {reason}{self._log_of(name)}")
        raise NotLive(
            f"node {name!r} is not ready after {within_s:g} s{self._log_of(name)}",
            checker="wait_ready",
        )

    def _log_of(self, name: str) -> str:
        lines = [
            line for line in self._evidence.logs_of(name) if line.level in ("ERROR", "CRITICAL")
        ]
        last = f"; last error: {lines[-1].text}" if lines else ""
        return f"{last} (log: {self._directory.of_node(name) / 'node.log'})"

    async def stop(self, name: str, *, within_s: float) -> None:
        """SIGTERM; ``NotLive`` if the node still runs after ``within_s``."""
        process = self.live(name)
        self._evidence.note(name, "process", state="stopping")
        process.death_expected = True
        process.signal(signal.SIGTERM)
        try:
            async with asyncio.timeout(within_s):
                await process.ended.wait()
        except TimeoutError:
            raise NotLive(
                f"node {name!r} still runs {within_s:g} s after SIGTERM{self._log_of(name)}",
                checker="stop",
            ) from None

    def freeze(self, name: str) -> None:
        """SIGSTOP."""
        self.live(name).signal_tree(signal.SIGSTOP)
        self._evidence.note(name, "process", state="paused")

    def thaw(self, name: str) -> None:
        """SIGCONT."""
        self.live(name).signal_tree(signal.SIGCONT)
        self._evidence.note(name, "process", state="resumed")

    def wipe(self, name: str) -> None:
        """Erase the disk of a node that is not running; its log stays."""
        if self.running(name):
            raise HarnessError(f"node {name!r} is running; stop or kill it before wiping its disk")
        shutil.rmtree(self._directory.of_node(name) / "disk", ignore_errors=True)
        self._evidence.note(name, "process", state="wiped")

    async def stop_all(self) -> None:
        """Ask whatever runs to end, and kill what does not within ``STOP_AT_CLOSE_S``."""
        running = [process for process in self._processes() if process.running]
        for process in running:
            process.death_expected = True
            process.signal_tree(signal.SIGCONT)
            process.signal(signal.SIGTERM)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(STOP_AT_CLOSE_S):
                for process in running:
                    await process.ended.wait()
        for process in running:
            if process.running:
                text = f"does not end within {STOP_AT_CLOSE_S} s of SIGTERM, killed"
                self._evidence.complain(process.plan.name, text)
                process.kill()

    def kills(self) -> list[Callable[[], object]]:
        """What kills each process, for whoever goes on when one of these fails."""
        return [process.kill for process in self._processes()]

    def _processes(self) -> list[NodeProcess]:
        return [node.process for node in self._nodes.values() if node.process is not None]
