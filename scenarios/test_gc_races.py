"""Garbage collection against everything that relies on history: who comes first must not matter.

Whatever is read, branched, started or moved meanwhile either has its history to the end, or is
refused by an LSN before the cutoff. The oracles compare all branches and pages when it is over.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable
from contextlib import suppress

import pytest

from harness.cluster import Cluster
from harness.collecting import SMALL_LAYERS, Collecting
from harness.endpoint import Refused
from harness.endpoint_handle import EndpointHandle
from harness.errors import NotYet
from harness.faulting.control_plane import ASKING
from harness.loss import lose_power
from harness.past_reads import PastReads
from harness.patience import HttpError, when_ready
from harness.topology import KIB, Topology
from harness.workload import LoadOptions
from harness.world import World
from storage.lsn import Lsn

WALGEN_ONLY = pytest.mark.computes("walgen", reason="PostgreSQL tells no LSN to branch at")

OUT_OF_SCOPE = 416
REMOVED = 12
BLOCKS = [0, 31, 32, 33, 34]
KEYS = [block * 32 for block in BLOCKS]


class Race:
    """A primary under load whose history is collected while somebody else relies on it."""

    def __init__(self, cluster: Cluster, primary: EndpointHandle, chance: random.Random) -> None:
        self.world = cluster.world
        self.cluster = cluster
        self.primary = primary
        self.chance = chance
        self.recent: list[Lsn] = []
        self.done = 0
        self.refused = 0

    async def write(self) -> Lsn:
        """One more commit, whose LSN is remembered."""
        lsn = await self.primary.txn({self.chance.choice(KEYS): f"{self.chance.getrandbits(40)}"})
        assert lsn is not None
        self.recent = [*self.recent[-20:], lsn]
        return lsn

    async def point(self) -> Lsn | None:
        """Somewhere to rely on: the head, or a commit not long ago."""
        await self.write()
        return self.chance.choice([None, *self.recent])


async def read_pages(race: Race) -> None:
    """Several readers of past pages at once; now and then the disk hangs in the middle of them."""
    home = race.primary.pageserver
    reads = PastReads(home, race.primary.timeline, race.chance)
    for _ in range(6):
        await reads.remember(await race.write(), BLOCKS)
        readers = [asyncio.create_task(reads.again()) for _ in range(4)]
        if race.chance.random() < 0.4:
            await asyncio.wait(readers, timeout=race.chance.choice([0.001, 0.003]))
            async with race.world.faults.disk_stall(home):
                await asyncio.wait(readers, timeout=0.3)
        await asyncio.gather(*readers)
    race.done += reads.same
    race.refused += reads.refused


async def branch(race: Race) -> None:
    """Branch, read, write, and look again later: a branch is whole for good."""
    at = await race.point()
    try:
        timeline = await race.cluster.branch(race.primary.timeline, at=at)
    except HttpError as error:
        assert (error.status, at is None) == (OUT_OF_SCOPE, False), error
        race.refused += 1
        return
    endpoint = await race.cluster.endpoint(f"branch{race.done}", timeline=timeline)
    await endpoint.scan(0, 2000)
    await endpoint.put(KEYS[0], f"branch {race.done}")
    await endpoint.stop()
    await endpoint.start()
    race.done += 1


async def take_base(race: Race) -> None:
    """A new compute of the primary's timeline takes its base at the newest LSN: never refused."""
    await race.write()
    await race.primary.restart()
    await race.primary.scan(0, 2000)
    race.done += 1


async def start_replica(race: Race) -> None:
    """A read-only compute starts at an LSN: it has all of it, or is refused from the beginning."""
    lsn = await race.point() or race.recent[-1]
    replica = await race.cluster.replica(f"replica{race.done + race.refused}", lsn, of=race.primary)
    try:
        before = await replica.scan(0, 2000)
    except Refused as error:
        assert error.sqlstate == "22003", error
        race.refused += 1
    else:
        await race.write()
        assert await replica.scan(0, 2000) == before
        race.done += 1
    await replica.stop()


async def attach_again(race: Race) -> None:
    """Detach and attach on the same pageserver, in the middle of passes."""
    home, tenant_id = race.cluster.pageserver(0), race.primary.timeline.tenant_id
    await when_ready(race.world, lambda: home.detach(tenant_id))
    await when_ready(race.world, lambda: home.attach(tenant_id))
    await race.cluster.caught_up(home, race.primary.timeline)
    await race.primary.scan(0, 2000)
    race.done += 1


async def compact(race: Race) -> None:
    """Compaction on top of what compacts by itself."""
    for _ in range(10):
        with suppress(*ASKING):
            await race.cluster.pageserver(0).compact(race.primary.timeline)
            race.done += 1
        await race.write()


async def migrate(race: Race) -> None:
    """Move to the other pageserver; both are asked to collect all the time."""
    tenant_id = race.primary.timeline.tenant_id
    old = race.primary.pageserver
    new = next(each for each in race.cluster.pageservers if each is not old)
    await when_ready(race.world, lambda: new.attach(tenant_id))
    await race.cluster.caught_up(new, race.primary.timeline)
    await race.primary.move(new)
    await when_ready(race.world, lambda: old.detach(tenant_id))
    await race.primary.scan(0, 2000)
    race.done += 1


async def restart(race: Race) -> None:
    """The pageserver, or its machine, dies in the middle of a pass."""
    home = race.cluster.pageserver(0)
    await lose_power(race.cluster, home, host=race.chance.random() < 0.5)
    await race.cluster.caught_up(home, race.primary.timeline)
    await race.primary.scan(0, 2000)
    race.done += 1


RIVALS: dict[str, Callable[[Race], Awaitable[None]]] = {
    "get_page": read_pages,
    "branch_creation": branch,
    "basebackup": take_base,
    "read_only_start": start_replica,
    "attach_detach": attach_again,
    "compaction": compact,
    "migration": migrate,
    "restart": restart,
}


async def still_collects(race: Race, collecting: Collecting) -> None:
    """Once the rival is gone, layers go again: nothing holds history for ever."""
    before = collecting.layers_removed

    async def removed() -> None:
        await race.write()
        if collecting.layers_removed == before:
            raise NotYet("no layer was removed")

    await race.world.eventually(removed, within_s=60, what="garbage collection goes on")


@WALGEN_ONLY
@pytest.mark.parametrize(
    "rival", [pytest.param(name, marks=pytest.mark.row(f"D4.{name}")) for name in RIVALS]
)
async def test_gc_race(world: World, rival: str) -> None:
    """A pass may come at any moment; what was granted before it must not lose anything to it."""
    chance = world.generator("race")
    options = {
        **SMALL_LAYERS,
        "index_cache_size": chance.choice([0, 16 * KIB]),
        "disk_budget": chance.choice([0, 1, 16 * KIB]),
    }
    cluster = await world.start(Topology(pageservers=2, pageserver_options=options))
    world.expect_log(r"refused: .* is before|can be read at", reason="a replica came too late")
    primary = await cluster.endpoint("main")
    await primary.txn({key: f"first {key}" for key in KEYS})
    race = Race(cluster, primary, chance)
    horizon_bytes = chance.choice([0, 2 * KIB, 16 * KIB])
    load_options = LoadOptions(clients=2, keys=64, first_key=1024, retry_s=0.05)
    collecting = Collecting(cluster, primary.timeline, horizon_bytes=horizon_bytes)
    async with world.load(primary, load_options) as load, collecting:
        await collecting.removes(1)
        for _ in range(4):
            await load.progress(chance.randint(1, 40))
            await RIVALS[rival](race)
        await still_collects(race, collecting)
    assert race.done, f"the rival came to nothing, {race.refused} times"
    assert collecting.layers_removed
