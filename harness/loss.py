"""Losing a pageserver for good and going on from what is left: S3 and the safekeepers.

A pageserver's disk is a cache. Whatever depends on one shows here, when all it had is read back
through a pageserver that starts with nothing; the oracles at the end of the run then compare it.
"""

from __future__ import annotations

from harness.cluster import Cluster
from harness.nodes import NodeHandle, PageserverHandle


async def lose_power(cluster: Cluster, node: NodeHandle, *, host: bool) -> None:
    """A node's process dies, or its machine in silence, and comes back; peers hear of it at last.

    What TCP's keep-alive does hours later happens at once: connections to a machine that is gone
    break, also those over which nobody had anything to say.
    """
    await node.kill(host=host)
    await node.start()
    if host:
        for other in cluster.nodes:
            if other is not node:
                cluster.world.faults.reset(other.name, node.name)


async def lose_and_reattach(
    cluster: Cluster, lost: PageserverHandle, home: PageserverHandle
) -> None:
    """``lost`` dies with its machine and comes back empty; ``home`` (it may be the same) takes
    every tenant over, and every endpoint is started anew from there."""
    if lost.running:
        await lost.kill(host=True)
    await lost.wipe()
    if home is lost:
        await home.start()
    for tenant_id in dict.fromkeys(timeline.tenant_id for timeline in cluster.timelines):
        await home.attach(tenant_id)
    for timeline in cluster.timelines:
        await cluster.subscribe(timeline, home)
        await cluster.caught_up(home, timeline)
    for endpoint in cluster.endpoints.values():
        if endpoint.running:
            await endpoint.stop()
        endpoint.assign(home)
        await endpoint.start()
