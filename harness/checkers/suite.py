"""The checks that hold at the end of any run, in any world, whatever the scenario did."""

from __future__ import annotations

from typing import TYPE_CHECKING

from harness.checkers.acknowledged_commits import check_acknowledged_commits, read_back
from harness.checkers.commit_order import check_commit_order
from harness.checkers.linearizable import check_linearizable
from harness.checkers.logs import check_logs
from harness.checkers.lsn_order import check_lsn_order
from harness.checkers.reads_equal_model import check_reads
from harness.checkers.safekeepers_agree import check_safekeepers_agree

if TYPE_CHECKING:
    from harness.world import World


async def check_world(world: World) -> None:
    """Ask the running cluster for what was acknowledged, then judge the history."""
    for cluster in world.clusters:
        for endpoint in cluster.endpoints.values():
            if endpoint.running:
                timeline = str(endpoint.timeline)
                final = await read_back(endpoint, world.history, timeline)
                check_acknowledged_commits(world.history, timeline, final)
        running = [safekeeper for safekeeper in cluster.safekeepers if safekeeper.running]
        for each in cluster.timelines:
            await check_safekeepers_agree(running, each)
    check_reads(world.history)
    check_commit_order(world.history)
    check_linearizable(world.history)


async def stop_everything(world: World) -> None:
    """Stop every node gracefully: computes, pageservers, safekeepers. ``NotLive`` if one hangs."""
    for cluster in world.clusters:
        for endpoint in cluster.endpoints.values():
            if endpoint.running:
                await endpoint.stop()
        for node in [*cluster.pageservers, *cluster.safekeepers]:
            if node.running:
                await node.stop()


def check_after_stop(world: World) -> None:
    """Checks of what a closed run left: reported LSNs, terms and votes, and every log line."""
    error_s = world.backend.clock_error_s
    sizes = {cluster.topology.safekeepers for cluster in world.clusters}
    # A killed process takes its last reports along, so quorums are counted only where it cannot.
    counted = sizes.pop() if len(sizes) == 1 and error_s == 0 else 0
    check_lsn_order(world.backend.events(), safekeepers=counted, clock_error_s=error_s)
    check_logs(world.backend.logs(), world.allowances)
