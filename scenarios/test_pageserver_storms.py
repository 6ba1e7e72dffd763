"""Pageservers crash, restart, are emptied and replaced, again and again, while they write layers.

Layers are small, flushes and compactions never rest, and S3 refuses, answers too late or forgets
to answer. Whatever moment ends a pageserver, its successor reads everything from S3 and the
safekeepers, at every LSN, on every branch; and the bucket holds what its indexes name.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack, suppress
from functools import partial

import pytest

from harness.cluster import Cluster
from harness.endpoint_handle import EndpointHandle
from harness.errors import NotLive, NotYet
from harness.fault_ports import ServiceFaults
from harness.faulting.control_plane import ASKING
from harness.nodes import PageserverHandle
from harness.patience import when_ready
from harness.topology import KIB, Topology
from harness.workload import LoadOptions
from harness.world import World
from storage.lsn import Lsn

STORMS = 5
KEYS = 256
FIRST_KEY = 1000


def draw_topology(chance: random.Random) -> Topology:
    """Two pageservers that hardly hold anything in memory, and computes that hold one page."""
    return Topology(
        pageservers=2,
        discovery=chance.choice(["broker", "callmemaybe"]),
        pageserver_options={
            "checkpoint_distance": chance.choice([2, 8, 32]) * KIB,
            "checkpoint_timeout_s": chance.choice([0.2, 2.0]),
            "frozen_layers_max": chance.choice([1, 3]),
            "compaction_period_s": chance.choice([0.1, 0.5]),
            "compaction_threshold": chance.choice([2, 4]),
            "compaction_target_size": chance.choice([4, 64]) * KIB,
            "image_creation_threshold": chance.choice([1, 2]),
            "page_cache_size": chance.choice([0, 64 * KIB]),
            "remote_timeout_s": 1.0,
            "retry_delay_s_max": 0.5,
        },
        compute_options={"cache_pages": chance.choice([1, 64])},
    )


def draw_troubles(chance: random.Random) -> ServiceFaults:
    """Requests to S3 fail in their ways."""
    rate = chance.choice([0.05, 0.2])
    return ServiceFaults(
        refused=rate, lost_reply=rate, late=rate, late_s=2.0, slow=rate, slow_s=0.5
    )


class Storms:
    """A tenant with a timeline and, later, branches; ``home`` is where it lives."""

    def __init__(self, world: World, cluster: Cluster, endpoint: EndpointHandle) -> None:
        self.world = world
        self.cluster = cluster
        self.chance = world.generator("storms")
        self.home = cluster.pageserver(0)
        self._endpoint = endpoint
        self._commits: list[Lsn] = []
        self._tenant_id = endpoint.timeline.tenant_id

    async def one(self) -> None:
        """Writes go on while S3 is in trouble and the pageserver ends; then all is read."""
        clients = self.chance.choice([1, 4, 16])
        options = LoadOptions(
            clients=clients, keys=KEYS, first_key=FIRST_KEY, think_s=0.02, read_fraction=0.3
        )
        async with AsyncExitStack() as troubles:
            load = await troubles.enter_async_context(self.world.load(self._endpoint, options))
            with suppress(NotLive):
                await load.progress(self.chance.choice([2, 20, 60]), within_s=5.0)
            if self.chance.random() < 0.6:
                faults = draw_troubles(self.chance)
                await troubles.enter_async_context(self.world.faults.object_store_faults(faults))
            with suppress(NotLive):
                await load.progress(self.chance.choice([1, 5, 20]), within_s=self.chance.random())
            await self._strike()
            with suppress(*ASKING):
                async with asyncio.timeout(self.chance.choice([0.01, 1.0])):
                    await self.home.attach(self._tenant_id)
            with suppress(NotLive):
                await load.progress(self.chance.choice([1, 5]), within_s=self.chance.random())
        await self._settle()
        await self.read_all()

    async def _strike(self) -> None:
        """The end of a pageserver, or of an attachment; the next home may be another one."""
        match self.chance.randrange(7):
            case 0:
                await self.home.restart()
            case 1 | 2:
                await self.home.kill(host=self.chance.random() < 0.5)
                await self.home.start()
            case 3:
                await self.home.kill()
                await self.home.wipe()
                await self.home.start()
            case 4 | 5:
                with suppress(*ASKING):
                    await self.home.detach(self._tenant_id)
            case _:
                self.home = next(each for each in self.cluster.pageservers if each is not self.home)

    async def _settle(self) -> None:
        """Ask until the tenant lives at home, and only there, with all that was committed."""
        await self._ask(partial(self.home.attach, self._tenant_id))
        for other in self.cluster.pageservers:
            if other is not self.home:
                await self._ask(partial(self._leave, other))
        for timeline in self.cluster.timelines:
            await self.cluster.subscribe(timeline, self.home)
            await self.cluster.caught_up(self.home, timeline)
        for endpoint in self.cluster.endpoints.values():
            await endpoint.move(self.home)

    async def _ask(self, request: Callable[[], Awaitable[object]]) -> None:
        """Until it is answered; requests that fail may still be carried out, and are repeated."""

        async def answered() -> None:
            try:
                await request()
            except ASKING as error:
                raise NotYet(str(error)) from error

        await self.world.eventually(answered, within_s=60.0, what="a request is answered")

    async def _leave(self, other: PageserverHandle) -> None:
        """Detach, unless the tenant is not there."""
        attached = [each["tenant_id"] for each in await other.http("GET", "/tenant")]
        if self._tenant_id in attached:
            await other.detach(self._tenant_id)

    async def read_all(self) -> None:
        """Every endpoint sees all of its keys; a branch at some past commit is one more."""
        lsn = await self._endpoint.put(FIRST_KEY, f"storm {self.chance.getrandbits(48)}")
        if lsn is not None:
            self._commits.append(lsn)
        if self.chance.random() < 0.6:
            at = self.chance.choice([None, *self._commits])
            grow = partial(
                self.cluster.branch, self._endpoint.timeline, at=at, pageserver=self.home
            )
            branch = await when_ready(self.world, grow)
            name = f"branch{len(self.cluster.timelines) - 1}"
            await self.cluster.endpoint(name, timeline=branch, pageserver=self.home)
        for endpoint in self.cluster.endpoints.values():
            await endpoint.scan(FIRST_KEY, FIRST_KEY + KEYS)


@pytest.mark.row("P4.index", "P4.remote", "P4.layers")
@pytest.mark.worlds("sim", reason="pageservers end in the middle of uploads, at drawn instants")
@pytest.mark.computes("walgen", reason="PostgreSQL tells no LSN to branch at")
async def test_pageserver_storms(world: World) -> None:
    """Five storms; whatever was committed is read after each of them."""
    cluster = await world.start(draw_topology(world.generator("topology")))
    storms = Storms(world, cluster, await cluster.endpoint("main"))
    for _ in range(STORMS):
        await storms.one()
