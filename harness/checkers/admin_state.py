"""Asks every node that runs for its tenants and timelines, and compares with the admin log."""

from __future__ import annotations

from http import HTTPStatus
from typing import TYPE_CHECKING, Any

from harness.checkers.admin_persists import (
    AdminModel,
    Thing,
    check_branch,
    check_presence,
    check_timelines,
)
from harness.errors import NotYet
from storage.http.client import HttpError
from storage.lsn import Lsn

if TYPE_CHECKING:
    from harness.cluster import Cluster
    from harness.nodes import NodeHandle, PageserverHandle

ACTIVE_WITHIN_S = 30.0


async def check_admin_state(cluster: Cluster) -> int:
    """Raise ``CheckFailed`` for what is not as it was acknowledged; returns how much was asked."""
    model = AdminModel(list(cluster.admin.requests), cluster.world.backend.observations())
    handles = {node.name: node for node in cluster.nodes if node.running}
    present = {
        thing: await _is_there(handles[thing.node], thing)
        for thing in model.things()
        if thing.node in handles
    }
    demanded = check_presence(model, present)
    for pageserver in cluster.pageservers:
        for thing, found in present.items():
            if thing.node == pageserver.name and found and model.exists(thing):
                await _check_tenant(cluster, pageserver, thing.tenant, model)
    return demanded + model.check_refusals()


async def _is_there(node: NodeHandle, thing: Thing) -> bool:
    timeline = f"/timeline/{thing.timeline}" if thing.timeline else ""
    try:
        await node.http("GET", f"/tenant/{thing.tenant}{timeline}")
    except HttpError as error:
        if error.status == HTTPStatus.NOT_FOUND:
            return False
        raise
    return True


async def _check_tenant(
    cluster: Cluster, pageserver: PageserverHandle, tenant: str, model: AdminModel
) -> None:
    """It becomes active, and its newest attachment has every timeline."""

    async def active() -> dict[str, Any]:
        found: dict[str, Any] = await pageserver.http("GET", f"/tenant/{tenant}")
        if found["state"] != "Active":
            raise NotYet(f"it is {found['state']}: {found['reason']}")
        return found

    what = f"tenant {tenant} is active on {pageserver.name}, where it was attached"
    found = await cluster.world.eventually(active, within_s=ACTIVE_WITHIN_S, what=what)
    if found["superseded"]:
        return
    check_timelines(model, tenant, found["timelines"], pageserver.name)
    for timeline in cluster.timelines:
        point = cluster.world.history.branches.get(str(timeline))
        if point is not None and timeline.tenant_id == tenant:
            state = await pageserver.timeline(timeline)
            check_branch(str(timeline), point.lsn, Lsn(state.ancestor_lsn or 0))
