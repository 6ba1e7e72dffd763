"""Calls for a pageserver that has no business with a timeline any more (A2)."""

from __future__ import annotations

import pytest

from harness.cluster import Cluster
from harness.endpoint_handle import EndpointHandle
from harness.errors import NotYet
from harness.topology import Topology
from harness.world import World


@pytest.mark.row("A2.dropped", "B1.shutdown", "B1.registered")
async def test_nobody_calls_a_pageserver_for_what_was_detached(world: World) -> None:
    """Its tenant's tasks end with the tenant, and safekeepers drop it at the first refusal."""
    cluster = await world.start(Topology(discovery="callmemaybe"))
    endpoint = await cluster.endpoint("main")
    await endpoint.put(1, "before")
    home, tenant_id = cluster.pageserver(0), endpoint.timeline.tenant_id
    await cluster.caught_up(home, endpoint.timeline)
    kinds = {task["kind"] for task in await home.tasks() if task["tenant_id"] == tenant_id}
    assert {"wal_receiver", "upload"} <= kinds
    await endpoint.put(1, "after")
    await endpoint.stop()

    await home.detach(tenant_id)
    assert [task for task in await home.tasks() if task["tenant_id"] == tenant_id] == []
    await world.eventually(lambda: nobody_is_called(cluster, endpoint), what="calls end")

    await home.attach(tenant_id)
    await cluster.subscribe(endpoint.timeline, home)
    await cluster.caught_up(home, endpoint.timeline)
    await endpoint.start()
    assert await endpoint.get(1) == "after"


async def nobody_is_called(cluster: Cluster, endpoint: EndpointHandle) -> None:
    """``NotYet`` while a safekeeper has a subscription."""
    tenant_id, timeline_id = endpoint.timeline
    for safekeeper in cluster.safekeepers:
        path = f"/tenant/{tenant_id}/timeline/{timeline_id}"
        if found := (await safekeeper.http("GET", path))["subscriptions"]:
            raise NotYet(f"{safekeeper.name} calls {found}")
