"""An operator who sends requests without waiting for answers, while nodes and services come and go.

Whatever was asked meanwhile, the last answered requests decide: the tenant is where it was attached
last, with every timeline and every row, and nowhere else, also after everybody restarts.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack, suppress

import pytest

from harness.cluster import Cluster
from harness.errors import NotYet
from harness.faulting.control_plane import ASKING
from harness.nodes import PageserverHandle
from harness.topology import KIB, Topology
from harness.world import World
from storage.ids import TenantId, TimelineId

ROUNDS = 6
ROWS = 64

Request = Callable[[], Awaitable[object]]


def draw_requests(
    cluster: Cluster, pageserver: PageserverHandle, chance: random.Random
) -> list[Request]:
    """A few requests to one pageserver that are sent at once."""
    tenant_id = cluster.timelines[0].tenant_id

    def branch() -> Awaitable[object]:
        new = TimelineId(f"{chance.getrandbits(128):032x}")
        return pageserver.branch(chance.choice(cluster.timelines), new)

    known: list[Request] = [
        lambda: pageserver.attach(tenant_id),
        lambda: pageserver.detach(tenant_id),
        lambda: pageserver.checkpoint(chance.choice(cluster.timelines)),
        branch,
    ]
    return chance.choices(known, weights=[3, 2, 1, 2], k=chance.randint(1, 4))


async def send(requests: list[Request], chance: random.Random) -> None:
    """Send all at once, or one after the other; hang up after a while."""
    patience_s = chance.choice([0.001, 0.1, 20.0])

    async def ask(request: Request) -> None:
        with suppress(*ASKING):
            async with asyncio.timeout(patience_s):
                await request()

    if chance.random() < 0.5:
        await asyncio.gather(*(ask(request) for request in requests))
    else:
        for request in requests:
            await ask(request)


async def one_round(world: World, cluster: Cluster, chance: random.Random) -> None:
    """Requests, and perhaps a trouble that begins somewhere in the middle of them."""
    pageserver = chance.choice(cluster.pageservers)
    requests = asyncio.create_task(send(draw_requests(cluster, pageserver, chance), chance))
    ends: list[Request] = [
        lambda: pageserver.stop(),
        lambda: pageserver.kill(),
        lambda: pageserver.kill(host=True),
    ]
    async with AsyncExitStack() as troubles:
        if chance.random() < 0.4:
            await asyncio.wait([requests], timeout=chance.choice([0.001, 0.02, 0.05]))
            await troubles.enter_async_context(world.faults.object_store_outage())
        if chance.random() < 0.4:
            await asyncio.wait([requests], timeout=chance.choice([0.001, 0.02, 0.2]))
            await chance.choice(ends)()
        await asyncio.wait([requests], timeout=chance.choice([0.02, 0.2, 2.0]))
    await requests
    if not pageserver.running:
        await pageserver.start()


async def settle(cluster: Cluster, home: PageserverHandle, tenant_id: TenantId) -> None:
    """Attach at home and detach elsewhere until both were answered."""

    async def settled() -> None:
        try:
            await home.attach(tenant_id)
            if await home.tenant_state(tenant_id) != "Active":
                raise NotYet(f"the tenant is not active on {home.name}")
        except ASKING as error:
            raise NotYet(str(error)) from error

    await cluster.world.eventually(settled)
    for other in cluster.pageservers:
        if other is not home:
            with suppress(*ASKING):  # Most often it is not attached there.
                await other.detach(tenant_id)


@pytest.mark.row("A1.repeat", "A1.keeps")
@pytest.mark.computes("walgen", reason="PostgreSQL tells no LSN to branch at")
async def test_last_answer_counts(world: World) -> None:
    """Overlapping, repeated and abandoned requests; then one clear order, and it holds."""
    chance = world.generator("operator")
    options = {"checkpoint_distance": chance.choice([8, 64]) * KIB, "checkpoint_timeout_s": 1.0}
    cluster = await world.start(Topology(pageservers=2, pageserver_options=options))
    root = await cluster.endpoint("root")
    await root.txn({key: f"row {key}" for key in range(ROWS)})
    branch = await cluster.endpoint("branch", timeline=await cluster.branch(root.timeline))
    await branch.put(1, "of the branch")
    tenant_id = root.timeline.tenant_id
    for _ in range(ROUNDS):
        await one_round(world, cluster, chance)

    home = chance.choice(cluster.pageservers)
    await settle(cluster, home, tenant_id)
    if chance.random() < 0.5:  # A restart reads everything anew, and so may hide what is amiss.
        for pageserver in cluster.pageservers:
            await pageserver.restart()
    for endpoint in (root, branch):
        await endpoint.move(home)
        await cluster.caught_up(home, endpoint.timeline)
        await endpoint.restart()
    for other in cluster.pageservers:
        if other is not home:
            await cluster.absent(other, tenant_id)
    assert await root.scan(0, ROWS) == [(key, f"row {key}") for key in range(ROWS)]
    assert await branch.get(1) == "of the branch"
