"""The checks that hold at the end of any run, in any world, whatever the scenario did."""

from __future__ import annotations

from typing import TYPE_CHECKING

from harness.checkers.acknowledged_commits import check_acknowledged_commits, read_back
from harness.checkers.commit_order import check_commit_order
from harness.checkers.linearizable import check_linearizable
from harness.checkers.logs import check_logs
from harness.checkers.lsn_order import check_lsn_order
from harness.checkers.reads_equal_model import check_reads
from harness.checkers.storage_agrees import check_leftovers, check_remote, check_storage
from harness.endpoint import Refused

if TYPE_CHECKING:
    from harness.cluster import Cluster
    from harness.endpoint_handle import EndpointHandle
    from harness.history import History
    from harness.world import World


async def check_world(world: World) -> None:
    """Ask the running cluster for what was acknowledged, then judge the history."""
    for cluster in world.clusters:
        await _read_everything_back(world, cluster)
        await check_storage(cluster)
        await check_leftovers(cluster)
    check_reads(world.history)
    check_commit_order(world.history)
    check_linearizable(world.history)


async def _read_everything_back(world: World, cluster: Cluster) -> None:
    """Every key through every endpoint that runs; the newest primary of a timeline has it all."""
    newest = {str(e.timeline): e for e in _by_start(world.history, cluster) if not e.pinned}
    for endpoint in cluster.endpoints.values():
        if not endpoint.running:
            continue
        timeline = str(endpoint.timeline)
        try:
            final = await read_back(endpoint, world.history, timeline)
        except Refused:
            if endpoint is newest.get(timeline):
                raise
            continue  # A primary that was deposed ends, sooner or later.
        if endpoint is newest.get(timeline):
            check_acknowledged_commits(world.history, timeline, final)


def _by_start(history: History, cluster: Cluster) -> list[EndpointHandle]:
    """The endpoints of a cluster in order of their last start."""
    began_s = {
        life.process: life.began_at_s
        for lives in history.lives.values()
        for life in sorted(lives, key=lambda life: life.began_at_s)
    }
    return sorted(cluster.endpoints.values(), key=lambda each: began_s.get(each.name, 0.0))


async def stop_everything(world: World) -> None:
    """Stop every node gracefully: computes, pageservers, safekeepers. ``NotLive`` if one hangs.

    What they leave in the bucket is checked then, for nobody writes any more."""
    for cluster in world.clusters:
        for endpoint in cluster.endpoints.values():
            if endpoint.running:
                await endpoint.stop()
        for node in [*cluster.pageservers, *cluster.safekeepers]:
            if node.running:
                await node.stop()
    await check_remote(world)


def check_after_stop(world: World) -> None:
    """Checks of what a closed run left: reported LSNs, terms and votes, and every log line."""
    error_s = world.backend.clock_error_s
    sizes = {cluster.topology.safekeepers for cluster in world.clusters}
    # A killed process takes its last reports along, so quorums are counted only where it cannot.
    counted = sizes.pop() if len(sizes) == 1 and error_s == 0 else 0
    check_lsn_order(world.backend.events(), safekeepers=counted, clock_error_s=error_s)
    check_logs(world.backend.logs(), world.allowances)
