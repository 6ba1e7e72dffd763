"""Starts what is down and should not be, as an operator's machinery would, and finds crashes.

A node may end by itself only if a fault excused it; any other end is a crash of the system under
test and fails the run.
"""

from __future__ import annotations

import asyncio
from contextlib import suppress

from harness.backend import Backend
from harness.endpoint_handle import EndpointHandle
from harness.errors import CheckFailed, HarnessError, NodeDied, NotLive
from harness.faulting.stage import Stage

PERIOD_S = 0.2
RESTART_S_MIN = 1.0


class Supervisor:
    """Watches one stage until its task is cancelled."""

    def __init__(self, stage: Stage) -> None:
        self._stage = stage
        self._backend: Backend = stage.backend
        self._started_s: dict[str, float] = {}

    async def run(self) -> None:
        """Look at every node, again and again; raises ``CheckFailed`` for a crash."""
        try:
            while True:
                await self._look_at_storage()
                self._look_at_primary(self._stage.traffic.primary)
                await asyncio.sleep(PERIOD_S)
        finally:
            for task in self._stage.starting.values():
                task.cancel()

    async def _look_at_storage(self) -> None:
        for node in self._stage.cluster.nodes:
            if not node.running and self._may_start(node.name, [node.name]):
                await self._backend.spawn(node.spec)

    def _look_at_primary(self, primary: EndpointHandle) -> None:
        starting = self._stage.starting
        task = starting.get(primary.name)
        if task is not None and task.done():
            starting.pop(primary.name)
            task.result()
        if (
            primary.name not in starting
            and not all(node.running for node in primary.nodes)
            and self._may_start(primary.name, [node.name for node in primary.nodes])
        ):
            starting[primary.name] = asyncio.create_task(
                self._start(primary), name=f"start of {primary.name}"
            )

    async def _start(self, endpoint: EndpointHandle) -> None:
        with suppress(NotLive, NodeDied):
            # A compute starts whole: what outlived the other part goes too.
            await self._stage.crash_compute(endpoint)
            await endpoint.start()

    def _may_start(self, name: str, hosts: list[str]) -> bool:
        stage = self._stage
        for host in hosts:
            self._judge_death(host)
        now_s = stage.world.now_s()
        if name in stage.held_down or now_s - self._started_s.get(name, -60.0) < RESTART_S_MIN:
            return False
        self._started_s[name] = now_s
        return True

    def _judge_death(self, name: str) -> None:
        try:
            death = self._backend.died(name)
        except HarnessError:
            return  # It never ran.
        if death is None or name in self._stage.excused:
            return
        raise CheckFailed(f"{name} ended by itself: {death}", checker="crash")
