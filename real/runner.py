"""Runs scenarios against real processes: one cluster for each run, services shared by a session."""

from __future__ import annotations

import asyncio
import gc
import time
from collections.abc import Mapping
from functools import partial
from typing import Any

from harness.compute import Compute
from harness.coverage import commits_under_faults, count_faults, count_marks
from harness.errors import ScenarioFailed
from harness.runner import Evidence, RunResult, Scenario, play, verdict_of
from harness.verdict import RunSettings
from harness.walgen import WalgenCompute
from harness.world import World
from real.backend import RealBackend, RealOptions
from real.evidence import HarnessLog
from real.loop import NamedHostLoop
from real.node_main import is_lost_request
from real.postgres.compute import PostgresCompute, template_cache
from real.session import RealSession


class RealRunner:
    """:class:`harness.runner.WorldRunner` of OS processes."""

    world = "real"
    computes = ("walgen", "postgres")

    def __init__(self) -> None:
        self._session = RealSession()
        self._computes: Mapping[str, Compute] = {
            "walgen": WalgenCompute(),
            "postgres": PostgresCompute(template_cache(self._session.directory)),
        }

    def run(self, scenario: Scenario, settings: RunSettings) -> RunResult:
        """Run a scenario once, on fresh disks."""
        started_s = time.perf_counter()
        result = RunResult(
            settings=settings,
            verdict=verdict_of(None),
            error=None,
            digest="",
            events=0,
            commits=0,
            virtual_s=0.0,
            wall_s=0.0,
            evidence=Evidence(),
        )
        failures: list[dict[str, Any]] = []
        try:
            with asyncio.Runner(loop_factory=NamedHostLoop) as runner:
                runner.get_loop().set_exception_handler(partial(_note_failure, failures))
                runner.run(self._play(scenario, result))
                gc.collect()  # asyncio reports a failed task when its last reference is gone.
            if failures:
                raise ScenarioFailed.of(failures)
        except (KeyboardInterrupt, SystemExit):
            raise
        except BaseException as raised:
            result.error = raised
        result.verdict = verdict_of(result.error)
        result.wall_s = time.perf_counter() - started_s
        return result

    async def _play(self, scenario: Scenario, result: RunResult) -> None:
        settings = result.settings
        backend = RealBackend(self._session, RealOptions(seed=settings.seed))
        world = World(backend, settings, self._computes)
        try:
            with HarnessLog(backend.complain).listening():
                await play(world, scenario)
        finally:
            events = backend.events()
            result.virtual_s = backend.now_s()
            result.events = len(events)
            result.commits = world.history.commits()
            result.evidence = Evidence(
                backend.logs(),
                events,
                world.faults.effects(),
                dict(world.judged),
                count_marks(events),
                count_faults(events),
                commits_under_faults=commits_under_faults(events),
                figures=dict(world.figures),
            )

    def close(self) -> None:
        """End the fork server, S3 and etcd."""
        self._session.close()


def _note_failure(
    failures: list[dict[str, Any]], loop: asyncio.AbstractEventLoop, context: dict[str, Any]
) -> None:
    if not is_lost_request(context):
        failures.append(context)
        loop.default_exception_handler(context)
