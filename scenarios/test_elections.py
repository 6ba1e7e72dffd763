"""Leaders come and go, each with another view of the safekeepers, and die with WAL half delivered.

Every leader must find what its predecessors acknowledged, and no safekeeper may keep what a leader
before wrote to a minority once a later one has decided otherwise. Safekeepers come back at any
moment, also in the middle of the next election.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager, suppress

import pytest

from harness.cluster import Cluster
from harness.endpoint_handle import EndpointHandle
from harness.errors import NotLive
from harness.nodes import SafekeeperHandle
from harness.topology import KIB, MIB, Topology
from harness.workload import LoadOptions
from harness.world import World

REIGNS = 6
SHORT_S = 2.0


async def end_all(endpoints: list[EndpointHandle]) -> None:
    """Computes die, unless they were deposed already."""
    for endpoint in endpoints:
        if endpoint.running:
            await endpoint.kill()


class Reigns:
    """One compute after the other, on safekeepers of which some are ``away``.

    ``endpoints``: two that take turns; the one before may still live, and know of nothing.
    """

    def __init__(self, world: World, cluster: Cluster, endpoints: list[EndpointHandle]) -> None:
        self.world = world
        self.chance = world.generator("reigns")
        self._members = cluster.safekeepers
        self._endpoint, self._before = endpoints
        self._elected = self._before
        self._away: dict[str, AsyncExitStack] = {}

    async def one(self) -> None:
        """A leader is elected, works, loses sight of safekeepers, and dies writing."""
        await self._elect()
        options = LoadOptions(clients=self.chance.choice([1, 4]), think_s=0.005, read_fraction=0.2)
        async with self.world.load(self._endpoint, options) as load:
            await load.progress(self.chance.randint(1, 40))
            if self.chance.random() < 0.5:
                await self.come_back(0)
            await self._send_away(self.chance.randint(0, len(self._members)))
            with suppress(NotLive):
                within_s = self.chance.uniform(0.0, SHORT_S)
                await load.progress(self.chance.randint(1, 20), within_s=within_s)
            self._endpoint, self._before = self._before, self._endpoint
            if self.chance.random() < 0.5:
                await end_all([self._before])
            else:
                await self._elect()  # Clients of the one before still write.

    async def _elect(self) -> None:
        """A compute starts; meanwhile safekeepers come back, all or a majority, and links break."""
        if self._endpoint.running:
            if self._elected is self._endpoint:
                return
            await self._endpoint.kill()  # Deposed, and perhaps it has not heard of it yet.
        self._elected = self._endpoint
        start = asyncio.create_task(self._endpoint.start())
        await asyncio.wait([start], timeout=self.chance.choice([0.0, 0.001, 0.05]))
        minority = (len(self._members) - 1) // 2
        await self.come_back(self.chance.randint(0, minority))
        for _ in range(self.chance.choice([0, 0, 4])):
            await asyncio.wait([start], timeout=self.chance.uniform(0.0, 0.02))
            safekeeper = self.chance.choice(self._members)
            self.world.faults.reset(self._endpoint.name, safekeeper.name)
        await start

    async def _send_away(self, count: int) -> None:
        for safekeeper in self.chance.sample(self._members, count):
            if safekeeper.name not in self._away:
                stack = self._away[safekeeper.name] = AsyncExitStack()
                await stack.enter_async_context(self._trouble(safekeeper))

    async def come_back(self, but: int) -> None:
        """Safekeepers come back, in any order, until only ``but`` of them are away."""
        names = self.chance.sample(sorted(self._away), len(self._away))
        for name in names[but:]:
            await self._away.pop(name).aclose()

    @asynccontextmanager
    async def _trouble(self, safekeeper: SafekeeperHandle) -> AsyncIterator[None]:
        """One safekeeper is dead, frozen, slow, or out of reach of this leader or the next one."""
        faults = self.world.faults
        leader = self.chance.choice([self._endpoint, self._endpoint, self._before]).name
        match self.chance.randrange(6):
            case 0:
                await safekeeper.kill(host=self.chance.random() < 0.7)
                yield
                await safekeeper.start()
            case 1:
                async with faults.pause(safekeeper):
                    yield
            case 2:
                both = self.chance.random() < 0.5
                async with faults.hold(leader, safekeeper.name, both=both):
                    yield
            case 3:
                async with faults.disk_stall(safekeeper):
                    yield
            case way:
                async with faults.partition(leader, safekeeper.name, both=way == 4):
                    yield


@pytest.mark.row("P1.vote", "P1.donor", "P1.truncation", "P1.commit", "P1.invariants")
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
                "broker_publish_s": chance.choice([0.1, 1.0]),
            },
            wal_room=chance.choice([4 * KIB, 40 * KIB, MIB]) - 8 * chance.randrange(400),
            proposer_options={"append_bytes_max": chance.choice([1, 128 * KIB])},
        )
    )
    endpoints = [await cluster.endpoint(name) for name in ("even", "odd")]
    world.expect_log(r"crashed: Deposed|Deposed: term", reason="a leader that was replaced ends")
    await end_all(endpoints)
    reigns = Reigns(world, cluster, endpoints)
    for _ in range(REIGNS):
        await reigns.one()
    await reigns.come_back(0)
    await end_all(endpoints)
    await endpoints[0].start()
    async with world.load(endpoints[0]) as load:
        await load.progress(20)
