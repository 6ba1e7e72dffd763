"""A tree of branches, written to and read everywhere while the pageserver comes and goes.

Each timeline must show what its ancestors had at the branch points and nothing that came later.
"""

from __future__ import annotations

import random
from functools import partial

import pytest

from harness.cluster import Cluster
from harness.endpoint_handle import EndpointHandle
from harness.patience import when_ready
from harness.topology import KIB, Topology
from harness.world import World
from storage.lsn import Lsn

BRANCHES = 4
KEYS = 400


async def write(endpoint: EndpointHandle, chance: random.Random) -> list[Lsn]:
    """A few transactions; returns where they committed."""
    lsns = []
    for _ in range(chance.randint(1, 8)):
        keys = sorted(chance.sample(range(KEYS), chance.randint(1, 4)))
        changes = {key: f"{endpoint.name} {chance.getrandbits(48)}" for key in keys}
        lsns.append(await endpoint.txn(changes))
    return [lsn for lsn in lsns if lsn is not None]


async def disturb(cluster: Cluster, chance: random.Random) -> None:
    """The pageserver restarts, crashes, or comes back on an empty disk and attaches anew."""
    pageserver = cluster.pageserver(0)
    match chance.randrange(4):
        case 0:
            await pageserver.restart()
        case 1:
            await pageserver.kill(host=chance.random() < 0.5)
            await pageserver.start()
        case 2:
            await pageserver.kill()
            await pageserver.wipe()
            await pageserver.start()
            await pageserver.attach(cluster.timelines[0].tenant_id)
        case _:
            timeline = chance.choice(cluster.timelines)
            await when_ready(cluster.world, lambda: pageserver.checkpoint(timeline))


@pytest.mark.row("D3.metadata", "P4.branches")
@pytest.mark.computes("walgen", reason="PostgreSQL tells no LSN to branch at")
async def test_tree_of_branches(world: World) -> None:
    """Branches of branches, at their heads and in the past, with a pageserver that forgets."""
    chance = world.generator("tree")
    cluster = await world.start(
        Topology(
            pageserver_options={
                "checkpoint_distance": chance.choice([4, 32, 1024]) * KIB,
                "checkpoint_timeout_s": chance.choice([1.0, 60.0]),
                "compaction_period_s": chance.choice([0.5, 20.0]),
                "compaction_threshold": chance.choice([2, 8]),
            },
            compute_options={"cache_pages": chance.choice([1, 64])},
        )
    )
    endpoints = [await cluster.endpoint("root")]
    for number in range(BRANCHES):
        parent = chance.choice(endpoints[-2:])
        at = chance.choice([None, *await write(parent, chance)])
        branch = await when_ready(world, partial(cluster.branch, parent.timeline, at=at))
        endpoints.append(await cluster.endpoint(f"branch{number}", timeline=branch))
        for endpoint in endpoints:
            await write(endpoint, chance)
        await disturb(cluster, chance)
        first = chance.randrange(KEYS)
        await chance.choice(endpoints).scan(first, first + 100)
