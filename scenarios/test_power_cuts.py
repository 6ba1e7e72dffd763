"""Power fails in any part of the cluster, again and again, while leaders change.

Machines that lose power at one instant lose what they had not synced, each its own part of it; a
disk may hang just before. Whoever comes back trusts its disk only as far as it may, whatever else
is left there, and no leader builds on what only a lost machine had. Some miss whole reigns, others
die while a leader cuts their logs.
"""

from __future__ import annotations

import asyncio
import random
from contextlib import AsyncExitStack, suppress

import pytest

from harness.cluster import Cluster
from harness.endpoint_handle import EndpointHandle
from harness.errors import NodeDied, NotLive
from harness.faulting.control_plane import ASKING
from harness.nodes import SafekeeperHandle
from harness.topology import KIB, MIB, Topology
from harness.workload import Load, LoadOptions
from harness.world import World

CUTS = 10
WORKS_WITHIN_S = 0.5
FALLS_WITHIN_S = 0.3
STEPS_OF_A_CUT = ("sk-before-truncate", "sk-within-truncate", "sk-after-truncate")


def draw_topology(chance: random.Random) -> Topology:
    """Three or five safekeepers; the WAL begins anywhere in its first segment."""
    return Topology(
        safekeepers=chance.choice([3, 3, 5]),
        wal_room=chance.choice([4 * KIB, 40 * KIB, MIB]) - 8 * chance.randrange(400),
        safekeeper_options={
            "control_file_save_s": chance.choice([0.05, 5.0]),
            "broker_publish_s": chance.choice([0.2, 1.0]),
            "recent_wal_bytes": chance.choice([0, MIB]),
            "send_bytes_max": chance.choice([100, 128 * KIB]),
        },
        pageserver_options={"checkpoint_distance": chance.choice([8, 1024]) * KIB},
        proposer_options={"append_bytes_max": chance.choice([1, 128 * KIB])},
    )


class PowerCuts:
    """A cluster whose machines lose power; two computes take turns in leading."""

    def __init__(self, world: World, cluster: Cluster, endpoints: list[EndpointHandle]) -> None:
        self.world = world
        self.chance = world.generator("power cuts")
        self._safekeepers = cluster.safekeepers
        self._endpoints = endpoints

    async def one(self) -> None:
        """Writes are under way when power fails somewhere; the next leader does not wait."""
        async with AsyncExitStack() as works:
            load = None
            if self._endpoints[0].running and self.chance.random() < 0.8:
                load = await works.enter_async_context(self._load(self._endpoints[0]))
            up = [each for each in self._safekeepers if each.running]
            await self._lose_power([each for each in up if self.chance.random() < 0.4], load)
            down = [each for each in self._safekeepers if not each.running]
            self.chance.shuffle(down)
            late = self.chance.randint(0, min(len(down), (len(self._safekeepers) - 1) // 2))
            for safekeeper in down[late:]:
                await safekeeper.start()
            up = [each for each in self._safekeepers if each.running]
            leading = asyncio.create_task(self._lead())
            troubles = [self._hang(self.chance.choice(up), leading)]
            troubles.append(self._break(self.chance.choice(up), leading))
            troubles.append(self._fall(self.chance.choice(up), leading))
            if self.chance.random() < 0.5:  # Or they miss all of the next reign.
                troubles += [self._come_back(safekeeper, leading) for safekeeper in down[:late]]
            await asyncio.gather(leading, *troubles)

    def _load(self, leader: EndpointHandle) -> Load:
        clients = self.chance.choice([1, 4, 40])
        return self.world.load(
            leader, LoadOptions(clients=clients, think_s=0.002, read_fraction=0.1)
        )

    async def _lose_power(self, cut: list[SafekeeperHandle], load: Load | None) -> None:
        """All at one instant, computes too; links break and disks hang for a moment before."""
        if load is not None:
            await self._progress(load, self.chance.choice([1, 3, 40]), WORKS_WITHIN_S)
        for safekeeper in self._safekeepers:
            if self.chance.random() < 0.3:
                self.world.faults.reset(self._endpoints[0].name, safekeeper.name)
        async with AsyncExitStack() as hanging:
            for safekeeper in cut:
                if self.chance.random() < 0.7:
                    syncs_only = self.chance.random() < 0.6
                    stall = self.world.faults.disk_stall(safekeeper, syncs_only=syncs_only)
                    await hanging.enter_async_context(stall)
            if load is not None:
                moment_s = self.chance.choice([0.001, 0.01, 0.05]) * self.chance.random()
                await self._progress(load, 10, moment_s)
            for endpoint in self._endpoints:
                if endpoint.running and self.chance.random() < 0.5:
                    await endpoint.kill()
            for safekeeper in cut:
                await safekeeper.kill(host=self.chance.random() < 0.8)

    async def _progress(self, load: Load, commits: int, within_s: float) -> None:
        """Some commits, unless there is no quorum for them."""
        with suppress(NotLive):
            await load.progress(commits, within_s=within_s)

    async def _lead(self) -> None:
        """The next compute is elected, or both compete; the one before may live on, unaware."""
        self._endpoints.reverse()
        candidates = [each for each in self._endpoints if not each.running]
        if self.chance.random() < 0.6:
            candidates = candidates[:1]
        await asyncio.gather(*(self._campaign(each) for each in candidates))
        if not self._endpoints[0].running:
            self._endpoints.reverse()

    async def _campaign(self, endpoint: EndpointHandle) -> None:
        with suppress(NodeDied):  # Another one may win, also in the moment of victory.
            await endpoint.start()

    async def _come_back(self, safekeeper: SafekeeperHandle, leading: asyncio.Task[None]) -> None:
        """In the middle of the election, or when it is over."""
        moment_s = self.chance.choice([0.01, 0.3]) * self.chance.random()
        await asyncio.wait([leading], timeout=moment_s)
        await safekeeper.start()

    async def _hang(self, safekeeper: SafekeeperHandle, leading: asyncio.Task[None]) -> None:
        """The disk of one that is up hangs, once or again and again, or not at all."""
        times = self.chance.choice([0, 1, 10, 10])
        for _ in range(times):
            async with self.world.faults.disk_stall(safekeeper):
                moment_s = self.chance.choice([0.02, 0.2]) * self.chance.random() / times
                await asyncio.wait([leading], timeout=moment_s)
            await asyncio.wait([leading], timeout=0.001 * self.chance.random())

    async def _break(self, safekeeper: SafekeeperHandle, leading: asyncio.Task[None]) -> None:
        """Connections of one that is up break again and again, or not at all."""
        for _ in range(self.chance.choice([0, 0, 4])):
            await asyncio.wait([leading], timeout=0.02 * self.chance.random())
            self.world.faults.reset(self._endpoints[0].name, safekeeper.name)

    async def _fall(self, safekeeper: SafekeeperHandle, leading: asyncio.Task[None]) -> None:
        """One that is up dies in the middle of the election, perhaps of cutting its log; it may
        miss all of the next reign."""
        match self.chance.randrange(3):
            case 0:
                await asyncio.wait([leading], timeout=0.02 * self.chance.random())
                await safekeeper.kill(host=self.chance.random() < 0.5)
            case 1:
                place = self.chance.choice(STEPS_OF_A_CUT)
                with suppress(*ASKING):
                    await safekeeper.arm(place, "exit")
                await asyncio.wait([leading], timeout=FALLS_WITHIN_S)
                with suppress(*ASKING):
                    await safekeeper.disarm(place)
        if safekeeper.running:
            return
        down = [each for each in self._safekeepers if not each.running]
        needed = not leading.done() or len(down) > (len(self._safekeepers) - 1) // 2
        if needed or self.chance.random() < 0.5:
            await safekeeper.start()

    async def all_back(self) -> None:
        """Nobody is missing any more."""
        for safekeeper in self._safekeepers:
            if not safekeeper.running:
                await safekeeper.start()

    async def end_all(self) -> None:
        """Computes die, unless they were deposed already."""
        for endpoint in self._endpoints:
            if endpoint.running:
                await endpoint.kill()


@pytest.mark.row("P1.vote", "P1.control")
@pytest.mark.worlds("sim", reason="loses unsynced data, and power at chosen instants")
@pytest.mark.computes("walgen", reason="PostgreSQL takes seconds to start, ten times")
async def test_power_cuts(world: World) -> None:
    """Ten cuts, then everybody is back and all that was acknowledged is there."""
    cluster = await world.start(draw_topology(world.generator("topology")))
    endpoints = [await cluster.endpoint("even")]
    world.expect_log(r"crashed: Deposed|Deposed: term", reason="a leader that was replaced ends")
    await endpoints[0].put(1, "before any cut")
    await endpoints[0].kill()
    endpoints.append(await cluster.endpoint("odd"))
    cuts = PowerCuts(world, cluster, endpoints)
    for _ in range(CUTS):
        await cuts.one()
    await cuts.all_back()
    await cuts.end_all()
    await endpoints[0].start()
    async with world.load(endpoints[0]) as load:
        await load.progress(20)
