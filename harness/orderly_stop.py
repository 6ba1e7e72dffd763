"""The orderly stop at a run's end: each stage must let go of the one that stopped before it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from http import HTTPStatus
from typing import TYPE_CHECKING

from harness.checkers.followers import is_live
from harness.checkers.nothing_leaked import (
    CONNECTION,
    check_connections_gone,
    check_streams_gone,
    check_tenant_gone,
)
from harness.checkers.reattachment import check_reattachment
from harness.checkers.storage_agrees import Models, check_remote
from harness.nodes import NodeHandle, PageserverHandle, SafekeeperHandle
from harness.patience import refusal
from storage.http.client import HttpError

if TYPE_CHECKING:
    from harness.cluster import Cluster
    from harness.world import World


async def stop_everything(world: World, models: Mapping[Cluster, Models]) -> None:
    """Stop computes, then pageservers, then safekeepers; ``NotLive`` if a node does not end.

    In between pageservers are lost, as far as time costs nothing. ``CheckFailed`` if one still
    works for what has stopped or was detached, or what they leave in the bucket is wrong: nobody
    writes there any more.
    """
    for cluster in world.clusters:
        for endpoint in cluster.endpoints.values():
            if endpoint.running:
                await endpoint.stop()
        pageservers = [node for node in cluster.pageservers if node.running]
        for pageserver in pageservers:
            await _check_tenants_gone(cluster, pageserver)
        # The page service has no heartbeat: it cannot tell a dead machine from an idle client.
        if not _somebody_fell_silent(world, cluster):
            await _wait_until_quiet(world, pageservers)
        if is_live(world):
            compared = await check_reattachment(cluster, models[cluster])
            world.judged["reattachment"] += compared
        for pageserver in pageservers:
            await pageserver.stop()
        safekeepers = [node for node in cluster.safekeepers if node.running]
        if _somebody_fell_silent(world, cluster):
            await _wait_until_unused(world, cluster, safekeepers)
        else:
            await _wait_until_quiet(world, safekeepers)
        for safekeeper in safekeepers:
            await _check_timelines_gone(cluster, safekeeper)
        for safekeeper in safekeepers:
            await safekeeper.stop()
    await check_remote(world)


async def _check_tenants_gone(cluster: Cluster, pageserver: PageserverHandle) -> None:
    for tenant_id in dict.fromkeys(timeline.tenant_id for timeline in cluster.timelines):
        try:
            await pageserver.tenant_state(tenant_id)
        except HttpError as error:
            if error.status != HTTPStatus.NOT_FOUND:
                raise
            check_tenant_gone(pageserver.name, await pageserver.tasks(), tenant_id)


async def _check_timelines_gone(cluster: Cluster, safekeeper: SafekeeperHandle) -> None:
    for timeline in cluster.timelines:
        if await refusal(safekeeper.timeline(timeline)) == HTTPStatus.NOT_FOUND:
            tasks = [t for t in await safekeeper.tasks() if t["kind"] != CONNECTION]
            check_tenant_gone(safekeeper.name, tasks, timeline.tenant_id)


def _somebody_fell_silent(world: World, cluster: Cluster) -> bool:
    """Whether a machine died, or bytes of a connection were lost, so that no end was heard of."""
    computes = [node for endpoint in cluster.endpoints.values() for node in endpoint.nodes]
    lost_bytes = any("cut" in name for name in world.faults.effects())
    return lost_bytes or any(node.machine_died for node in computes)


async def _wait_until_unused(
    world: World, cluster: Cluster, safekeepers: Sequence[SafekeeperHandle]
) -> None:
    """Wait until safekeepers serve no stream: proposers and readers have a heartbeat. A client that
    went away before it asked for anything has none, and stays until TCP gives it up."""
    for node in safekeepers:

        async def let_go(node: SafekeeperHandle = node) -> None:
            for timeline in cluster.timelines:
                try:
                    check_streams_gone(node.name, await node.streams(timeline))
                except HttpError as error:
                    if error.status != HTTPStatus.NOT_FOUND:
                        raise
            world.judged["nothing_leaked"] += 1

        await world.eventually(let_go, what=f"{node.name} hangs up on the silent")


async def _wait_until_quiet(world: World, nodes: Sequence[NodeHandle]) -> None:
    """Wait until these nodes, whose clients have stopped, serve no connection."""
    for node in nodes:

        async def let_go(node: NodeHandle = node) -> None:
            check_connections_gone(node.name, await node.tasks())
            world.judged["nothing_leaked"] += 1

        await world.eventually(let_go, what=f"{node.name} lets go of its clients")
