"""How long the load stalls while its tenant moves: both ways of discovery, warm and cold.

Virtual seconds of the simulation with its default latencies, over seeds: the machine plays no part.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from harness.cluster import Cluster
from harness.endpoint_handle import EndpointHandle
from harness.nodes import PageserverHandle
from harness.runner import Scenario, WorldRunner
from harness.topology import KIB, Discovery, Topology
from harness.verdict import RunSettings
from harness.workload import LoadOptions
from harness.world import World

SEEDS = range(20)
KEYS = 2000
LOAD = LoadOptions(clients=4, keys=KEYS, first_key=0, read_fraction=0.5)
DISCOVERIES: tuple[Discovery, ...] = ("broker", "callmemaybe")


async def grown_tenant(world: World, discovery: Discovery) -> tuple[Cluster, EndpointHandle]:
    """A tenant of several layers on ``ps0``, and a compute that keeps next to nothing in memory."""
    cluster = await world.start(
        Topology(
            pageservers=2,
            discovery=discovery,
            pageserver_options={"checkpoint_distance": 32 * KIB, "compaction_period_s": 1.0},
            compute_options={"cache_pages": 8},
        )
    )
    endpoint = await cluster.endpoint("main")
    for first in range(0, KEYS, 100):
        await endpoint.txn({key: f"row {key}" for key in range(first, first + 100)})
        if first % 500 == 0:
            await cluster.caught_up(cluster.pageserver(0), endpoint.timeline)
            await cluster.pageserver(0).checkpoint(endpoint.timeline)
    return cluster, endpoint


async def move(cluster: Cluster, endpoint: EndpointHandle, new: PageserverHandle) -> None:
    """Attach, let it catch up, move the endpoint, detach."""
    old = endpoint.pageserver
    await new.attach(endpoint.timeline.tenant_id)
    await cluster.subscribe(endpoint.timeline, new)
    await cluster.caught_up(new, endpoint.timeline)
    await endpoint.move(new)
    await old.detach(endpoint.timeline.tenant_id)


async def move_there_and_back(world: World, discovery: Discovery, *, warm: bool) -> None:
    """Under load; the figures ``longest_stall_s`` and ``longest_wait_s`` are put on record."""
    cluster, endpoint = await grown_tenant(world, discovery)
    tenant_id = endpoint.timeline.tenant_id
    async with world.load(endpoint, LOAD) as load:
        await load.progress(100)
        for new in (cluster.pageserver(1), cluster.pageserver(0)):
            if warm:
                assert await new.warm(tenant_id) > 0
            await endpoint.pageserver.checkpoint(endpoint.timeline)
            if warm:
                await new.warm(tenant_id)
            await move(cluster, endpoint, new)
            await load.progress(200)
    counts = load.counts
    world.report(longest_stall_s=counts.longest_stall_s, longest_wait_s=counts.longest_wait_s)


def bench_migration(
    runner: WorldRunner,
    seeds: Sequence[int] = SEEDS,
    discoveries: Sequence[Discovery] = DISCOVERIES,
) -> Mapping[str, Any]:
    """Median, p99 and maximum over seeds of the longest stall of the load, and of the longest wait
    of one client; virtual milliseconds."""
    found: dict[str, Any] = {"bench": "migration", "seeds": len(seeds)}
    for discovery in discoveries:
        for warm in (True, False):
            runs = [_figures(runner, seed, _scenario(discovery, warm=warm)) for seed in seeds]
            found[f"{discovery}_{'warm' if warm else 'cold'}"] = {
                name: _spread([run[f"{name}_s"] for run in runs])
                for name in ("longest_stall", "longest_wait")
            }
    return found


def _scenario(discovery: Discovery, *, warm: bool) -> Scenario:
    async def scenario(world: World) -> None:
        await move_there_and_back(world, discovery, warm=warm)

    return scenario


def _figures(runner: WorldRunner, seed: int, scenario: Scenario) -> Mapping[str, float]:
    result = runner.run(scenario, RunSettings(runner.world, "walgen", seed))
    if result.error is not None:
        raise result.error
    return result.evidence.figures


def _spread(values_s: Sequence[float]) -> dict[str, float]:
    ordered_ms = [round(value * 1e3, 1) for value in sorted(values_s)]
    last = len(ordered_ms) - 1
    return {
        "median_ms": ordered_ms[last // 2],
        "p99_ms": ordered_ms[-(-last * 99 // 100)],
        "max_ms": ordered_ms[last],
    }
