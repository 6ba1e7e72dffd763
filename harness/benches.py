"""Benchmarks of the whole system; each returns one JSON object, ratios where machines differ.

Kernel benchmarks live with the kernel (``sim/bench_*.py``).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from time import perf_counter  # By name: the sim's guard gives `time.perf_counter` virtual time.
from typing import Any

from harness.runner import Scenario, WorldRunner
from harness.topology import Topology
from harness.verdict import RunSettings
from harness.workload import LoadOptions
from harness.world import World

COMMITS = 20_000
PARITY_COMMITS = 500
WRITERS = LoadOptions(clients=64, keys=4096, read_fraction=0.0, think_s=0.0)
FEW_CLIENTS = LoadOptions(clients=4, read_fraction=0.5, think_s=0.0)


def _run(runner: WorldRunner, scenario: Scenario, compute: str = "walgen") -> None:
    """Run a scenario that must pass; what it measures it keeps itself."""
    result = runner.run(scenario, RunSettings(runner.world, compute, 0))
    if result.error is not None:
        raise result.error


def bench_commits(runner: WorldRunner) -> Mapping[str, Any]:
    """Whole-system commits per wall second: 3 safekeepers, pageserver, S3, every checker on."""
    load_wall_s = virtual_s = 0.0

    async def scenario(world: World) -> None:
        nonlocal load_wall_s, virtual_s
        cluster = await world.start(Topology())
        endpoint = await cluster.endpoint("main")
        started_s, started_virtual_s = perf_counter(), world.now_s()
        async with world.load(endpoint, WRITERS) as load:
            await load.progress(COMMITS, within_s=3600.0)
        await cluster.caught_up(cluster.pageserver(0), endpoint.timeline)
        load_wall_s = perf_counter() - started_s
        virtual_s = world.now_s() - started_virtual_s

    started_s = perf_counter()
    _run(runner, scenario)
    wall_s = perf_counter() - started_s
    return {
        "bench": "commits",
        "commits": COMMITS,
        "clients": WRITERS.clients,
        "commits_per_wall_s": round(COMMITS / load_wall_s, 1),
        "commits_per_wall_s_with_final_checks": round(COMMITS / wall_s, 1),
        "virtual_s": round(virtual_s, 3),
    }


def bench_parity(sim: WorldRunner, real: WorldRunner) -> Mapping[str, Any]:
    """The same load in both worlds, its active time only: start and end of clusters excluded."""
    active_s: dict[str, float] = {}

    def scenario_in(name: str) -> Scenario:
        async def scenario(world: World) -> None:
            cluster = await world.start(Topology())
            endpoint = await cluster.endpoint("main")
            started_s = perf_counter()
            async with world.load(endpoint, FEW_CLIENTS) as load:
                await load.progress(PARITY_COMMITS, within_s=600.0)
            active_s[name] = perf_counter() - started_s

        return scenario

    _run(sim, scenario_in("sim"))
    _run(real, scenario_in("real"))
    return {
        "bench": "parity",
        "commits": PARITY_COMMITS,
        "sim_active_s": round(active_s["sim"], 3),
        "real_active_s": round(active_s["real"], 3),
        "real_over_sim": round(active_s["real"] / active_s["sim"], 2),
    }


def bench_startup(make_runner: Callable[[], WorldRunner]) -> Mapping[str, Any]:
    """From nothing to an endpoint that serves, in real: a session's first run and a later one."""
    found: dict[str, Any] = {"bench": "startup"}
    for compute in ("walgen", "postgres"):
        runner_started_s = perf_counter()
        runner = make_runner()
        try:
            for name in ("first", "later"):
                started_s = runner_started_s if name == "first" else perf_counter()
                found[f"{compute}_{name}_s"] = round(_time_to_answer(runner, compute, started_s), 3)
        finally:
            runner.close()
    return found


def _time_to_answer(runner: WorldRunner, compute: str, started_s: float) -> float:
    ready_s = 0.0

    async def scenario(world: World) -> None:
        nonlocal ready_s
        cluster = await world.start(Topology())
        endpoint = await cluster.endpoint("main")
        ready_s = perf_counter() - started_s
        await endpoint.put(1, "x")

    _run(runner, scenario, compute)
    return ready_s
