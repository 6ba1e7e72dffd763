"""What retention promises is kept: so much WAL, so much time, branches, leases.

Garbage collection passes by itself all the time. Whatever is asked for within the promise must be
granted and be right; beyond it a refusal by LSN is fine.
"""

from __future__ import annotations

import random
from contextlib import suppress
from dataclasses import dataclass
from functools import partial

import pytest

from harness.cluster import Cluster
from harness.collecting import SMALL_LAYERS
from harness.endpoint import Refused
from harness.endpoint_handle import EndpointHandle
from harness.faulting.control_plane import ASKING
from harness.loss import lose_power
from harness.patience import HttpError, when_ready
from harness.topology import KIB, Topology
from harness.world import World
from storage.lsn import Lsn

ROUNDS = 6
KEYS = 400
OUT_OF_SCOPE = 416


@dataclass(frozen=True)
class Promise:
    """At least so many bytes of WAL, and so many seconds, are kept."""

    horizon_bytes: int
    pitr_s: float

    def keeps(self, world: World, point: tuple[Lsn, float], head: Lsn) -> bool:
        """Whether an LSN that was the head at a time must still be there a little later."""
        lsn, at_s = point
        return head - lsn < self.horizon_bytes // 2 or world.now_s() - at_s < self.pitr_s / 2


class Story:
    """A primary, its past, and what was derived from it."""

    def __init__(self, cluster: Cluster, primary: EndpointHandle, chance: random.Random) -> None:
        self.cluster = cluster
        self.world = cluster.world
        self.primary = primary
        self.chance = chance
        self.past: list[tuple[Lsn, float]] = []
        self.others: list[EndpointHandle] = []

    async def write(self) -> None:
        """A few transactions, each a point of the past from now on."""
        for _ in range(self.chance.randint(4, 20)):
            keys = sorted(self.chance.sample(range(KEYS), self.chance.randint(1, 4)))
            changes = {key: f"{self.chance.getrandbits(48)}" for key in keys}
            lsn = await self.primary.txn(changes)
            assert lsn is not None
            self.past.append((lsn, self.world.now_s()))

    async def grow_old(self, promise: Promise) -> None:
        """Turn history into layers, those into images, and let garbage collection pass."""
        home, timeline = self.cluster.pageserver(0), self.primary.timeline
        for _ in range(self.chance.randint(1, 3)):
            await self.write()
            with suppress(*ASKING):
                await home.checkpoint(timeline)
                await home.compact(timeline)
                await home.collect_garbage(
                    timeline, gc_horizon=promise.horizon_bytes, pitr_interval_s=promise.pitr_s
                )

    async def branch(self, promise: Promise) -> None:
        """Branch somewhere in the past."""
        point = self.chance.choice([*self.past[-40:], self.past[-1]])
        make = partial(self.cluster.branch, self.primary.timeline, at=point[0])
        must = promise.keeps(self.world, point, self.past[-1][0])
        try:
            branch = await when_ready(self.world, make)
        except HttpError as error:
            assert error.status == OUT_OF_SCOPE, error
            assert not must, f"{point} is within {promise}: {error}"
            return
        self.others.append(
            await self.cluster.endpoint(f"branch{len(self.others)}", timeline=branch)
        )

    async def replicate(self, promise: Promise) -> None:
        """Pin a read-only compute somewhere in the past."""
        point = self.chance.choice([*self.past[-40:], self.past[-1]])
        must = promise.keeps(self.world, point, self.past[-1][0])
        replica = await self.cluster.replica(
            f"replica{len(self.others)}", point[0], of=self.primary
        )
        try:
            await replica.scan(0, KEYS)
        except Refused as error:
            assert error.sqlstate == "22003", error
            assert not must, f"{point} is within {promise}: {error}"
            await replica.stop()
        else:
            self.others.append(replica)

    async def look(self) -> None:
        """Read everywhere; the oracles know what is right. A lease may be lost, never broken."""
        for endpoint in (self.primary, *self.others):
            first = self.chance.randrange(KEYS)
            try:
                await endpoint.scan(first, first + 100)
            except Refused as error:
                assert endpoint.pinned, error
                assert error.sqlstate == "22003", error

    async def disturb(self) -> None:
        """The pageserver restarts or crashes; a replica cannot reach it; nothing happens."""
        pageserver = self.cluster.pageserver(0)
        match self.chance.randrange(5):
            case 0:
                await pageserver.restart()
            case 1:
                await lose_power(self.cluster, pageserver, host=self.chance.random() < 0.5)
            case 2:
                pinned = [each for each in self.others if each.pinned]
                if pinned:
                    name = self.chance.choice(pinned).name
                    async with self.world.faults.partition(name, pageserver.name):
                        await self.write()
            case _:
                return


@pytest.mark.row("D4.checked", "P4.retention")
@pytest.mark.computes("walgen", reason="PostgreSQL tells no LSN to branch at")
async def test_retention(world: World) -> None:
    """Branches, replicas and primaries read what they may, behind a busy garbage collection."""
    chance = world.generator("retention")
    promise = Promise(chance.choice([0, 2 * KIB, 64 * KIB]), chance.choice([0.0, 2.0, 100.0]))
    cluster = await world.start(
        Topology(
            pageserver_options={
                **SMALL_LAYERS,
                "checkpoint_distance": chance.choice([2, 8]) * KIB,
                "gc_period_s": 0.2,
                "gc_horizon": promise.horizon_bytes,
                "pitr_interval_s": promise.pitr_s,
                "lease_length_s": chance.choice([0.6, 1.0, 10.0]),
            },
            compute_options={"cache_pages": chance.choice([1, 64])},
        )
    )
    world.expect_log(r"lease at .* is refused|nothing can be read at", reason="came too late")
    story = Story(cluster, await cluster.endpoint("root"), chance)
    for _ in range(ROUNDS):
        await story.grow_old(promise)
        await chance.choice([story.branch, story.replicate])(promise)
        await story.disturb()
        await story.grow_old(promise)
        await story.look()
