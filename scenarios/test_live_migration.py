"""A tenant moves under load, and the load hardly notices: the copy is warm before it moves.

A cold pageserver downloads every layer that a read needs while the reader waits.
"""

from __future__ import annotations

import asyncio
from contextlib import suppress

import pytest

from harness.bench_migration import LOAD, grown_tenant, move, move_there_and_back
from harness.collecting import SMALL_LAYERS
from harness.endpoint_handle import EndpointHandle
from harness.faulting.control_plane import ASKING
from harness.loss import lose_and_reattach
from harness.nodes import PageserverHandle
from harness.topology import Discovery, Topology
from harness.world import World

STALL_S_MAX = 0.3
"""For the load as a whole and for each operation of each client, with default latencies."""


@pytest.mark.row("A3.stall", "A3.load")
@pytest.mark.worlds("sim", reason="bounds a delay; busy machines are later")
@pytest.mark.computes("walgen", reason="PostgreSQL does not change its pageserver while it runs")
@pytest.mark.parametrize("copy", ["warm", "cold"])
@pytest.mark.parametrize("discovery", ["broker", "callmemaybe"])
async def test_load_stalls_for_a_moment_only(world: World, discovery: Discovery, copy: str) -> None:
    """There and back again under load: no client waits longer than the bound."""
    await move_there_and_back(world, discovery, warm=copy == "warm")
    assert world.figures["longest_stall_s"] < STALL_S_MAX
    assert world.figures["longest_wait_s"] < STALL_S_MAX


@pytest.mark.computes("walgen", reason="PostgreSQL does not change its pageserver while it runs")
async def test_warm_copy_is_of_no_consequence(world: World) -> None:
    """It may be asked for at any time and be half done; the attachment decides what is right."""
    cluster, endpoint = await grown_tenant(world, "broker")
    tenant_id = endpoint.timeline.tenant_id
    new = cluster.pageserver(1)
    async with world.load(endpoint, LOAD) as load:
        await new.warm(tenant_id)
        await load.progress(100)
        await new.kill(host=True)
        await new.start()
        assert await new.warm(tenant_id) > 0
        await load.progress(50)
        await move(cluster, endpoint, new)
        await load.progress(100)


async def keep_asking(pageserver: PageserverHandle, endpoint: EndpointHandle) -> None:
    """Whatever a pageserver may be asked about a timeline that it believes to own."""
    for request in (
        pageserver.checkpoint,
        pageserver.compact,
        pageserver.collect_garbage,
    ):
        with suppress(*ASKING):
            async with asyncio.timeout(3.0):
                await request(endpoint.timeline)


@pytest.mark.row("A3.stale")
@pytest.mark.computes("walgen", reason="PostgreSQL does not change its pageserver while it runs")
async def test_stale_pageserver_harms_nobody(world: World) -> None:
    """Frozen while the tenant moves on, it wakes up, flushes, compacts and collects in vain."""
    cluster = await world.start(Topology(pageservers=2, pageserver_options=SMALL_LAYERS))
    endpoint = await cluster.endpoint("main")
    old, new = cluster.pageservers
    async with world.load(endpoint) as load:
        await load.progress(100)
        async with world.faults.pause(old):
            await new.attach(endpoint.timeline.tenant_id)
            await cluster.caught_up(new, endpoint.timeline)
            await endpoint.move(new)
            for _ in range(3):
                await load.progress(60)
                await keep_asking(new, endpoint)
        for _ in range(3):
            await load.progress(30)
            await asyncio.gather(keep_asking(old, endpoint), keep_asking(new, endpoint))
        assert (await old.timeline(endpoint.timeline)).superseded
        assert not (await new.timeline(endpoint.timeline)).superseded
        await old.restart()
        await load.progress(30)
    await lose_and_reattach(cluster, new, new)
