"""Runs scenarios in the simulation: one fresh loop, backend and world for each run."""

from __future__ import annotations

import time
from collections.abc import Mapping

from harness.coverage import commits_under_faults, count_faults, count_marks
from harness.errors import NotLive
from harness.runner import DeferredEvents, Evidence, RunResult, Scenario, play, verdict_of
from harness.verdict import RunSettings
from harness.walgen import WalgenCompute
from harness.world import World
from sim.backend import SimBackend
from sim.errors import Deadlock, Livelock
from sim.loop import LoopOptions, SimLoop
from sim.policy import Fifo, Pct, Policy, SeededRandom
from sim.run import run_on
from storage.node import NodeMain

POLICIES: Mapping[str, Policy] = {"fifo": Fifo(), "random": SeededRandom(), "pct": Pct()}


class SimRunner:
    """:class:`harness.runner.WorldRunner` of the simulation; ``mains`` are the roles to run."""

    world = "sim"
    computes = ("walgen",)

    def __init__(self, mains: Mapping[str, NodeMain]) -> None:
        self._mains = mains

    def run(self, scenario: Scenario, settings: RunSettings) -> RunResult:
        """Run a scenario once; same settings and code, same digest."""
        loop = SimLoop(settings.seed, LoopOptions(policy=POLICIES[settings.policy]))
        backend = SimBackend(loop, self._mains)
        world = World(backend, settings, {"walgen": WalgenCompute()})
        error: BaseException | None = None
        started_s = time.perf_counter()
        try:
            run_on(loop, lambda: play(world, scenario))
        except (KeyboardInterrupt, SystemExit):
            raise
        except (Deadlock, Livelock) as stuck:
            error = NotLive(str(stuck), checker=type(stuck).__name__.lower())
            error.__cause__ = stuck
        except BaseException as raised:
            error = raised
        return RunResult(
            settings=settings,
            verdict=verdict_of(error),
            error=error,
            digest=loop.trace.digest(),
            events=len(loop.trace),
            commits=world.history.commits(),
            virtual_s=backend.now_s(),
            wall_s=time.perf_counter() - started_s,
            evidence=Evidence(
                backend.logs(),
                DeferredEvents(loop.trace.events),
                world.faults.effects(),
                dict(world.judged),
                count_marks(backend.observations()),
                count_faults(backend.observations()),
                loop.trace.entries,
                figures=dict(world.figures),
                commits_under_faults=commits_under_faults(backend.observations()),
            ),
        )

    def close(self) -> None:
        """Nothing outlives a run."""
