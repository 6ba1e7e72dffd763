"""Many tenants, and a poor object store: attachments that are slow, that fail, and all at once.

A pageserver that attaches tenants one after the other, or that forgets one when the object store
fails in the middle, leaves tenants that nobody serves.
"""

from __future__ import annotations

import asyncio
from contextlib import AbstractAsyncContextManager

import pytest

from harness.cluster import Cluster
from harness.endpoint_handle import EndpointHandle
from harness.errors import NotYet
from harness.fault_ports import ServiceFaults
from harness.nodes import PageserverHandle
from harness.topology import Topology
from harness.workload import LoadOptions
from harness.world import World

TENANTS = {"sim": 50, "real": 10}
ROWS = 8
OUTAGE_COMMITS = 20
CALM = LoadOptions(clients=2, think_s=0.2)

SLOW = ServiceFaults(slow=1.0, slow_s=1.0)
FAILING = ServiceFaults(refused=0.2, failed=0.2, lost_reply=0.05, failing_list=0.3)


async def tenants_on(cluster: Cluster, home: PageserverHandle, count: int) -> list[EndpointHandle]:
    """So many tenants with an endpoint and some rows each."""

    async def one(number: int) -> EndpointHandle:
        timeline = await cluster.create_tenant(home)
        endpoint = await cluster.endpoint(f"c{number}", timeline=timeline, pageserver=home)
        await endpoint.txn({key: f"row {key} of {number}" for key in range(ROWS)})
        return endpoint

    return [await one(number) for number in range(count)]


async def move(cluster: Cluster, endpoint: EndpointHandle, new: PageserverHandle) -> None:
    """Attach, follow, move the endpoint, write there, detach."""
    old, tenant_id = endpoint.pageserver, endpoint.timeline.tenant_id
    await new.attach(tenant_id)
    await cluster.caught_up(new, endpoint.timeline)
    await endpoint.move(new)
    await endpoint.put(ROWS, f"on {new.name}")
    await old.detach(tenant_id)
    await cluster.absent(old, tenant_id)


@pytest.mark.computes("walgen", reason="PostgreSQL does not change its pageserver while it runs")
async def test_many_tenants_move_at_once(world: World) -> None:
    """Each arrives with every row, is gone where it was, and is back after a restart of all."""
    count = TENANTS[world.name]
    cluster = await world.start(Topology(pageservers=2))
    old, new = cluster.pageservers
    endpoints = await tenants_on(cluster, old, count)

    await asyncio.gather(*(move(cluster, endpoint, new) for endpoint in endpoints))
    await new.kill(host=True)
    await new.start()

    assert await old.http("GET", "/tenant") == []
    assert len(await new.http("GET", "/tenant")) == count
    for number, endpoint in enumerate(endpoints):
        rows = [(key, f"row {key} of {number}") for key in range(ROWS)]
        assert await endpoint.scan(0, ROWS + 1) == [*rows, (ROWS, "on ps1")]


def poor_object_store(world: World, trouble: str) -> AbstractAsyncContextManager[None]:
    """S3 takes its time, or fails two of five requests, some of them after they took effect."""
    return world.faults.object_store_faults(SLOW if trouble == "slow" else FAILING)


@pytest.mark.computes("walgen", reason="PostgreSQL does not change its pageserver while it runs")
@pytest.mark.parametrize("trouble", ["slow", "failing"])
async def test_tenant_arrives_while_the_object_store_is_poor(world: World, trouble: str) -> None:
    """The move takes longer and the load goes on: nothing waits for the object store to mend."""
    cluster = await world.start(Topology(pageservers=2))
    endpoint = await cluster.endpoint("main")
    async with world.load(endpoint, CALM) as load:
        await load.progress(10)
        await cluster.pageserver(0).checkpoint(endpoint.timeline)
        async with poor_object_store(world, trouble):
            await move(cluster, endpoint, cluster.pageserver(1))
            await load.progress(10)
        await load.progress(10)
    world.report(longest_stall_s=load.counts.longest_stall_s)
    await cluster.caught_up(cluster.pageserver(1), endpoint.timeline)


@pytest.mark.computes("walgen", reason="PostgreSQL does not change its pageserver while it runs")
async def test_attach_outlives_an_outage_of_the_object_store(world: World) -> None:
    """Asked for while S3 is away, it is remembered, serves nobody, and succeeds by itself."""
    cluster = await world.start(Topology(pageservers=2))
    endpoint = await cluster.endpoint("main")
    old, new = cluster.pageservers
    tenant_id = endpoint.timeline.tenant_id
    async with world.load(endpoint, CALM) as load:
        await load.progress(10)
        await old.checkpoint(endpoint.timeline)
        async with world.faults.object_store_outage():
            await new.attach(tenant_id)
            assert await new.tenant_state(tenant_id) == "Attaching"
            await load.progress(OUTAGE_COMMITS)
            await new.restart()
            assert await new.tenant_state(tenant_id) == "Attaching"
            await load.progress(OUTAGE_COMMITS)

        async def active() -> None:
            if (state := await new.tenant_state(tenant_id)) != "Active":
                raise NotYet(f"{new.name} is {state}")

        await world.eventually(active)
        await move(cluster, endpoint, new)
        await load.progress(10)
