"""Tenant migration between two pageservers (attach/detach and callmemaybe; SYSTEM.md row A3).

The tenant is attached to the new pageserver, which finds the WAL it lacks; the endpoint is moved;
the old pageserver detaches and is stopped, which proves that nothing needs it any more.
"""

from __future__ import annotations

import pytest

from harness.cluster import Cluster
from harness.endpoint_handle import EndpointHandle
from harness.topology import Discovery, Topology
from harness.world import World

ROWS = 40
COMMITS_AROUND = 30
DETACH_S_MAX = 4.0


async def two_pageservers(world: World, discovery: Discovery) -> tuple[Cluster, EndpointHandle]:
    """A tenant on ``ps0`` with some data, ``ps1`` idle."""
    cluster = await world.start(Topology(pageservers=2, discovery=discovery))
    endpoint = await cluster.endpoint("main")
    await endpoint.txn({key: f"row {key}" for key in range(ROWS)})
    return cluster, endpoint


async def migrate(cluster: Cluster, endpoint: EndpointHandle) -> None:
    """Move the endpoint's tenant from ``ps0`` to ``ps1`` and stop ``ps0`` for good."""
    old, new = cluster.pageservers
    timeline = endpoint.timeline
    await old.checkpoint(timeline)
    await new.attach(timeline.tenant_id)
    await cluster.subscribe(timeline, new)
    await cluster.caught_up(new, timeline)
    await endpoint.move(new)
    detached_at_s = cluster.world.now_s()
    await old.detach(timeline.tenant_id)
    # It once waited out its flush timeout for an upload that the newer attachment forbids.
    assert cluster.world.now_s() - detached_at_s < DETACH_S_MAX
    await cluster.absent(old, timeline.tenant_id)
    await old.stop()


@pytest.mark.row("A1.serves", "A1.keeps", "A3.idle")
@pytest.mark.parametrize("discovery", ["broker", "callmemaybe"])
async def test_tenant_migration(world: World, discovery: Discovery) -> None:
    """An idle tenant moves: every row is there, new writes work, the old pageserver is gone."""
    cluster, endpoint = await two_pageservers(world, discovery)

    await migrate(cluster, endpoint)
    await endpoint.restart()

    assert await endpoint.scan(0, ROWS) == [(key, f"row {key}") for key in range(ROWS)]
    await endpoint.put(ROWS, "after")
    assert await endpoint.get(ROWS) == "after"
    await cluster.caught_up(cluster.pageserver(1), endpoint.timeline)


@pytest.mark.row("A3.load")
@pytest.mark.parametrize("discovery", ["broker", "callmemaybe"])
async def test_tenant_migration_with_load(world: World, discovery: Discovery) -> None:
    """The load goes on all the while: it never reads a wrong answer, and it recovers."""
    cluster, endpoint = await two_pageservers(world, discovery)

    async with world.load(endpoint) as load:
        await load.progress(COMMITS_AROUND)
        await migrate(cluster, endpoint)
        await load.progress(COMMITS_AROUND)

    await endpoint.restart()
    assert await endpoint.scan(0, ROWS) == [(key, f"row {key}") for key in range(ROWS)]
    await cluster.caught_up(cluster.pageserver(1), endpoint.timeline)
