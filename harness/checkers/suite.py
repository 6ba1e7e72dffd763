"""The checks that hold at the end of any run, in any world, whatever the scenario did."""

from __future__ import annotations

from typing import TYPE_CHECKING

from harness.checkers.acknowledged_commits import check_acknowledged_commits, read_back

if TYPE_CHECKING:
    from harness.world import World


async def check_world(world: World) -> None:
    """Checks that ask the running cluster and the history."""
    for cluster in world.clusters:
        for endpoint in cluster.endpoints.values():
            if endpoint.running:
                timeline = str(endpoint.timeline)
                final = await read_back(endpoint, world.history, timeline)
                check_acknowledged_commits(world.history, timeline, final)


def check_after_stop(world: World) -> None:
    """Checks of what a closed run left: logs, events, tasks."""
