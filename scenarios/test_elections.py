"""Leaders come and go, each with another view of the safekeepers, and die with WAL half delivered.

Every leader must find what its predecessors acknowledged, and no safekeeper may keep what a leader
before wrote to a minority once a later one has decided otherwise.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager, suppress

import pytest

from harness.cluster import Cluster
from harness.endpoint_handle import EndpointHandle
from harness.errors import NotLive
from harness.nodes import SafekeeperHandle
from harness.topology import Topology
from harness.workload import LoadOptions
from harness.world import World

LEADERS = 6
SHORT_S = 2.0


@asynccontextmanager
async def away(world: World, safekeeper: SafekeeperHandle, who: str) -> AsyncIterator[None]:
    """One safekeeper is out of the leader's reach for a while, one way or another."""
    chance, faults = world.generator(f"away {world.now_s()} {safekeeper.name}"), world.faults
    match chance.randrange(5):
        case 0:
            await safekeeper.kill(host=chance.random() < 0.7)
            yield
            await safekeeper.start()
        case 1:
            async with faults.pause(safekeeper):
                yield
        case 2:
            async with faults.hold(who, safekeeper.name, both=chance.random() < 0.5):
                yield
        case way:
            async with faults.partition(who, safekeeper.name, both=way == 3):
                yield


async def lead(cluster: Cluster, endpoint: EndpointHandle, chance: random.Random) -> None:
    """A leader starts, perhaps while its connections break."""
    safekeepers = [node.name for node in cluster.safekeepers]
    start = asyncio.create_task(endpoint.start())
    for _ in range(chance.choice([0, 0, 4])):
        await asyncio.wait([start], timeout=chance.uniform(0.0, 0.02))
        cluster.world.faults.reset(endpoint.name, chance.choice(safekeepers))
    await start


async def one_reign(world: World, cluster: Cluster, endpoint: EndpointHandle) -> None:
    """A leader without some safekeepers loses sight of more of them, and dies writing."""
    chance = world.generator(f"reign {world.now_s()}")
    members = chance.sample(cluster.safekeepers, len(cluster.safekeepers))
    minority = (len(members) - 1) // 2
    missing = chance.randint(0, minority)
    options = LoadOptions(clients=chance.choice([1, 4]), think_s=0.005, read_fraction=0.2)
    async with AsyncExitStack() as reign:
        for safekeeper in members[:missing]:
            await reign.enter_async_context(away(world, safekeeper, endpoint.name))
        await lead(cluster, endpoint, chance)
        load = await reign.enter_async_context(world.load(endpoint, options))
        await load.progress(chance.randint(1, 40))
        for safekeeper in members[missing : missing + chance.randint(0, len(members) - missing)]:
            await reign.enter_async_context(away(world, safekeeper, endpoint.name))
        with suppress(NotLive):
            await load.progress(chance.randint(1, 20), within_s=chance.uniform(0.0, SHORT_S))
        await endpoint.kill()


@pytest.mark.computes("walgen", reason="PostgreSQL takes seconds to start, six times")
async def test_leaders_come_and_go(world: World) -> None:
    """Six short reigns over safekeepers that are never all there, then a quiet one."""
    chance = world.generator("elections")
    cluster = await world.start(
        Topology(
            safekeepers=chance.choice([3, 3, 5]),
            safekeeper_options={
                "control_file_save_s": chance.choice([0.05, 5.0]),
                "recent_wal_bytes": chance.choice([0, 1024 * 1024]),
            },
        )
    )
    endpoint = await cluster.endpoint("main")
    await endpoint.kill()
    for _ in range(LEADERS):
        await one_reign(world, cluster, endpoint)
    await endpoint.start()
    async with world.load(endpoint) as load:
        await load.progress(20)
