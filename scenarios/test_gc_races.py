"""Garbage collection against everything that relies on history: who comes first must not matter.

Whatever is read, branched, started or moved meanwhile either has its history to the end, or is
refused by an LSN before the cutoff. The oracles compare all branches and pages when it is over.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import (
    AbstractAsyncContextManager,
    AsyncExitStack,
    asynccontextmanager,
    suppress,
)
from functools import partial

import pytest

from harness.checkers.pages_equal_wal import Wanted
from harness.cluster import Cluster
from harness.collecting import SMALL_LAYERS, Collecting
from harness.endpoint import Refused
from harness.endpoint_handle import EndpointHandle
from harness.errors import NotYet
from harness.faulting.control_plane import ASKING
from harness.loss import lose_power
from harness.nodes import NodeHandle, PageserverHandle
from harness.past_reads import PastReads
from harness.patience import HttpError, when_ready
from harness.storage_taps import PageTap, ServerError, base_backup
from harness.topology import KIB, Topology
from harness.workload import Load, LoadOptions
from harness.world import World
from storage.errors import LsnOutOfScope
from storage.ids import TenantTimelineId
from storage.lsn import Lsn

WALGEN_ONLY = pytest.mark.computes("walgen", reason="PostgreSQL tells no LSN to branch at")

OUT_OF_SCOPE = 416
BLOCKS = [0, 31, 32, 33, 34]
KEYS = [block * 32 for block in BLOCKS]
SLOW_DISK_S = 0.001
STEPS_OF_A_PASS = ["ps-gc-planned", "ps-gc-durable", "ps-gc-replaced"]
WINDOWS = [*STEPS_OF_A_PASS, "ps-branch-chosen", "ps-compaction-written", "ps-index-uploaded"]
"""Failpoints that lie between two steps which somebody else could come between."""


class Race:
    """A primary under load whose history is collected while somebody else relies on it."""

    def __init__(
        self, cluster: Cluster, primary: EndpointHandle, load: Load, chance: random.Random
    ) -> None:
        self.cluster = cluster
        self.world = cluster.world
        self.primary = primary
        self.load = load
        self.chance = chance
        self.past = PastReads(primary.pageserver, primary.timeline, chance)
        self.recent: list[Lsn] = []
        self.branches: dict[TenantTimelineId, tuple[Lsn, list[bytes]]] = {}
        self.done = 0
        self.refused = 0
        self._names = 0
        self._windows = AsyncExitStack()

    def name(self, what: str) -> str:
        """A name that nothing else has."""
        self._names += 1
        return f"{what}{self._names}"

    async def write(self) -> Lsn:
        """One more commit, whose LSN is remembered."""
        lsn = await self.primary.txn({self.chance.choice(KEYS): f"{self.chance.getrandbits(40)}"})
        assert lsn is not None
        self.recent = [*self.recent[-20:], lsn]
        await self.past.remember(lsn, BLOCKS)
        return lsn

    async def point(self) -> Lsn | None:
        """Somewhere to rely on: the head, or a commit not long ago."""
        await self.write()
        return self.chance.choice(self.recent) if self.chance.random() < 0.5 else None

    async def branch(self, at: Lsn | None) -> TenantTimelineId | None:
        """Branch at an LSN or (``None``) at the head, which is never refused; what it shows now is
        compared after every round. ``None`` if it was refused."""
        home = self.primary.pageserver
        try:
            make = partial(self.cluster.branch, self.primary.timeline, at=at, pageserver=home)
            made = await when_ready(self.world, make)
        except HttpError as error:
            assert (error.status, at is None) == (OUT_OF_SCOPE, False), error
            self.refused += 1
            return None
        lsn = (await home.timeline(made)).ancestor_lsn
        assert lsn is not None
        self.branches[made] = (lsn, await read_branch(home, made, lsn))
        return made

    async def look_back(self) -> None:
        """What was read is as it was, or out of scope; branches are as they were made."""
        for _ in range(8):
            await self.past.again()
        for timeline, (lsn, before) in self.branches.items():
            now = await read_branch(self.primary.pageserver, timeline, lsn)
            assert now == before, f"{timeline} at {lsn} is not what it was"

    async def move(self, pageserver: PageserverHandle) -> None:
        """Take all computes, and who reads the past, to another pageserver."""
        self.past.move(pageserver)
        for endpoint in self.cluster.endpoints.values():
            if endpoint.running:
                await endpoint.move(pageserver)

    async def open_windows(self) -> None:
        """What may come between two steps gets more time for it, for a moment or for passes: at
        some places, or wherever the disk is asked."""
        home, faults = self.primary.pageserver, self.world.faults
        chances = dict.fromkeys(self.chance.sample(WINDOWS, self.chance.randint(0, 2)), 0.4)
        if self.chance.random() < 0.5:
            chances["ps-read-admitted"] = 0.1  # There are many, and the load is among them.
        for name, probability in chances.items():
            delay_s = self.chance.choice([0.02, 0.1, 0.3])
            draw = self.chance.getrandbits(16)
            window = faults.failpoint(
                home, name, "sleep", delay_s=delay_s, probability=probability, draw=draw
            )
            await self._windows.enter_async_context(window)
        if self.chance.random() < 0.3:
            await self._windows.enter_async_context(faults.slow_disk(home, SLOW_DISK_S))

    async def close_windows(self) -> None:
        """Nothing is slow any more."""
        await self._windows.aclose()


async def read_branch(home: PageserverHandle, timeline: TenantTimelineId, lsn: Lsn) -> list[bytes]:
    """The pages that everybody changes, where the branch begins."""
    return await PageTap(home, timeline).read([Wanted(block, lsn) for block in BLOCKS])


@asynccontextmanager
async def nobody(race: Race) -> AsyncIterator[None]:
    """Nobody else relies on the past."""
    yield


@asynccontextmanager
async def idle_branch(race: Race) -> AsyncIterator[None]:
    """A branch that nobody writes to."""
    await race.branch(await race.point())
    yield


@asynccontextmanager
async def leased_replica(race: Race) -> AsyncIterator[None]:
    """A read-only compute with a lease sees the same before and after, and again."""
    lsn = await race.write()
    replica = await race.cluster.replica(race.name("witness"), lsn, of=race.primary)
    try:
        before = await replica.scan(0, 2000)
    except Refused as error:
        assert error.sqlstate == LsnOutOfScope.sqlstate, error
        yield
    else:
        yield
        await race.write()
        assert await replica.scan(0, 2000) == before
    await replica.stop()


Witness = Callable[[Race], AbstractAsyncContextManager[None]]
WITNESSES: tuple[Witness, ...] = (nobody, idle_branch, leased_replica)
"""What else relies on the past while a rival is at work."""


async def read_pages(race: Race) -> None:
    """Several readers of past pages at once; now and then the disk hangs in the middle of them."""
    home = race.primary.pageserver
    for _ in range(4):
        await race.write()
        await race.load.progress(race.chance.randint(1, 8))
        readers = [asyncio.create_task(race.past.again()) for _ in range(4)]
        if race.chance.random() < 0.4:
            await asyncio.wait(readers, timeout=race.chance.choice([0.001, 0.003]))
            async with race.world.faults.disk_stall(home):
                await asyncio.wait(readers, timeout=0.3)
        await asyncio.gather(*readers)
    race.done += race.past.same


async def branch(race: Race) -> None:
    """Branch, read, write, and look again later: a branch is whole for good."""
    for _ in range(2):
        if await race.branch(await race.point()) is not None:
            race.done += 1
    timeline = await race.branch(await race.point())
    if timeline is None:
        return
    endpoint = await race.cluster.endpoint(race.name("branch"), timeline=timeline)
    await endpoint.scan(0, 2000)
    await endpoint.put(KEYS[0], endpoint.name)
    await endpoint.stop()
    await endpoint.start()
    race.done += 1


async def take_base(race: Race) -> None:
    """A base at the newest LSN is never refused, and a compute can start from it; one of the past
    is refused, or as whole as it would have been then."""
    await race.write()
    await race.primary.restart()
    await race.primary.scan(0, 2000)
    home, timeline = race.primary.pageserver, race.primary.timeline
    for lsn in [await race.write(), *race.recent[::5]]:
        cutoff = (await home.timeline(timeline)).latest_gc_cutoff_lsn
        try:
            base = await base_backup(home, timeline, lsn)
        except ServerError as error:
            assert error.sqlstate == LsnOutOfScope.sqlstate, error
            assert str(lsn) in error.message, error
            race.refused += 1
        else:
            assert lsn >= cutoff, f"a base at {lsn}, which {cutoff} had passed, was granted"
            assert f"\nLSN: {lsn}\n".encode() in base
            race.done += 1


async def start_replica(race: Race) -> None:
    """A read-only compute starts at an LSN: it has all of it, or is refused from the beginning."""
    lsn = await race.point() or race.recent[-1]
    replica = await race.cluster.replica(race.name("replica"), lsn, of=race.primary)
    try:
        before = await replica.scan(0, 2000)
    except Refused as error:
        assert error.sqlstate == LsnOutOfScope.sqlstate, error
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
    for _ in range(3):
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
    await race.move(new)
    await when_ready(race.world, lambda: old.detach(tenant_id))
    await race.primary.scan(0, 2000)
    race.done += 1


async def restart(race: Race) -> None:
    """The pageserver, or its machine, dies; mostly at one of the steps of a pass."""
    home = race.cluster.pageserver(0)
    if race.chance.random() < 0.3:
        await lose_power(race.cluster, home, host=race.chance.random() < 0.5)
    else:
        await home.arm(race.chance.choice(STEPS_OF_A_PASS), "exit")
        await race.world.eventually(partial(has_ended, home), what="a pass comes to its failpoint")
        await home.start()
    await race.cluster.caught_up(home, race.primary.timeline)
    await race.primary.scan(0, 2000)
    race.done += 1


async def has_ended(node: NodeHandle) -> None:
    """``NotYet`` while its process runs."""
    if node.running:
        raise NotYet(f"{node.name} runs")


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


ROWS = {"get_page": ("D4.held", "D4.checked"), "branch_creation": ("P4.retention",)}
"""What else of the table of rows a race stands for."""


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
    "rival",
    [
        pytest.param(name, marks=pytest.mark.row(*ROWS.get(name, ()), f"D4.{name}"))
        for name in RIVALS
    ],
)
async def test_gc_race(world: World, rival: str) -> None:
    """A pass may come at any moment; what was granted before it must not lose anything to it."""
    chance = world.generator("race")
    options = {
        **SMALL_LAYERS,
        "index_cache_size": chance.choice([0, 16 * KIB]),
        "disk_budget": chance.choice([0, 1, 16 * KIB]),
        "lease_length_s": 2.0,
    }
    topology = Topology(
        pageservers=2, pageserver_options=options, compute_options={"cache_pages": 1}
    )
    cluster = await world.start(topology)
    world.expect_log(r"refused: .* is before|can be read at", reason="a replica came too late")
    primary = await cluster.endpoint("main")
    await primary.txn({key: f"first {key}" for key in KEYS})
    think_s = chance.choice([0.01, 0.05])
    load_options = LoadOptions(clients=2, keys=64, first_key=1024, think_s=think_s, retry_s=0.05)
    horizon_bytes = chance.choice([0, 2 * KIB, 16 * KIB])
    pause_s = chance.choice([0.02, 0.05, 0.3])
    collecting = Collecting(cluster, primary.timeline, horizon_bytes=horizon_bytes, pause_s=pause_s)
    async with world.load(primary, load_options) as load, collecting:
        race = Race(cluster, primary, load, chance)
        await collecting.removes(1)
        for _ in range(3):
            await race.open_windows()
            async with chance.choice(WITNESSES)(race):
                await load.progress(chance.randint(1, 40))
                await RIVALS[rival](race)
            await race.look_back()
        await race.close_windows()
        await still_collects(race, collecting)
    assert race.done, f"the rival came to nothing, {race.refused} times"
    assert collecting.layers_removed
