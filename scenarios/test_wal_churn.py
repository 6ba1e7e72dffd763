"""WAL comes, is offloaded and goes, while members die, are replaced, and services fail.

What could go wrong: anything that depends on who holds which WAL at which moment. In the end every
byte must be readable, whole segments must be in S3, and disks must have let go of them.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from http import HTTPStatus

import pytest

from harness.checkers.safekeepers_agree import check_safekeepers_agree
from harness.cluster import Cluster
from harness.endpoint_handle import EndpointHandle
from harness.errors import NotYet
from harness.filling import fill_wal
from harness.nodes import SafekeeperHandle
from harness.patience import refusal
from harness.topology import KIB, MIB, Topology
from harness.wal_waits import backed_up, level, removed
from harness.world import World

ROUNDS = 4
UPLOADS = {"checkpoint_distance": 256 * KIB, "checkpoint_timeout_s": 2.0}
PLACES = (
    "sk-before-backup-put",
    "sk-after-backup-put",
    "sk-snapshot-listed",
    "sk-before-wal-removal",
)


class Churn:
    """One timeline whose WAL comes and goes."""

    def __init__(self, world: World, cluster: Cluster, endpoint: EndpointHandle) -> None:
        self.world = world
        self.chance = world.generator("churn")
        self.cluster = cluster
        self.endpoint = endpoint

    async def one(self) -> None:
        """Something happens while WAL is written."""
        events = (self.service_fails, self.member_dies, self.member_is_replaced, self.leader_dies,
                  self.member_freezes, self.timeline_goes)  # fmt: skip
        async with self.slow_place():
            await self.chance.choice(events)()
        await self.write()

    async def write(self) -> None:
        """Up to a segment of WAL."""
        await fill_wal(self.endpoint, self.chance.choice([KIB, MIB // 3, MIB]))

    @asynccontextmanager
    async def slow_place(self) -> AsyncIterator[None]:
        """One member is slow, or fails now and then, at one place."""
        member = self.chance.choice(self.cluster.safekeepers)
        place = self.chance.choice(PLACES)
        draw, delay_s = self.chance.getrandbits(16), self.chance.choice([0.05, 0.5, 3.0])
        action = "sleep" if self.chance.random() < 0.7 else "return"
        async with self.world.faults.failpoint(
            member, place, action, delay_s=delay_s, probability=0.5, draw=draw
        ):
            yield

    async def service_fails(self) -> None:
        """S3 or the broker is away for a while."""
        faults = self.world.faults
        outage = self.chance.choice([faults.object_store_outage, faults.broker_outage])
        async with outage():
            await self.write()

    async def member_dies(self) -> None:
        """A safekeeper, perhaps the offloader, comes back later."""
        member = self.chance.choice(self.cluster.safekeepers)
        await member.kill(host=self.chance.random() < 0.5)
        await self.write()
        await member.start()

    async def member_freezes(self) -> None:
        """For longer than a lease lives."""
        async with self.world.faults.pause(self.chance.choice(self.cluster.safekeepers)):
            await self.write()
            await self.world.eventually(self._all_others_backed_up, within_s=60.0)

    async def _all_others_backed_up(self) -> None:
        if self.chance.random() < 0.95:
            raise NotYet("it stays frozen for a while")

    async def leader_dies(self) -> None:
        """A new compute takes over in a higher term."""
        await self.endpoint.kill()
        await self.endpoint.start()

    async def member_is_replaced(self) -> None:
        """An empty machine takes a member's place; leaders may change while it copies the log."""
        newcomer = self.chance.choice(self.cluster.safekeepers)
        lsn = await fill_wal(self.endpoint, KIB)
        await level(self.cluster, self.endpoint.timeline, lsn)
        await newcomer.kill(host=True)
        await newcomer.wipe()
        await newcomer.start()
        pull = asyncio.create_task(self.pull(newcomer))
        if self.chance.random() < 0.5:
            await self.leader_dies()
        await self.write()
        await pull

    async def pull(self, newcomer: SafekeeperHandle) -> None:
        """Copy until it works; whoever holds one log holds the same bytes."""
        donors = [each.address for each in self.cluster.safekeepers if each is not newcomer]
        timeline = self.endpoint.timeline

        async def copied() -> None:
            status = await refusal(newcomer.pull_timeline(timeline, donors))
            if status == HTTPStatus.SERVICE_UNAVAILABLE:
                raise NotYet("the log changed under the copy")
            assert status is None, f"the copy is refused with {status}"

        await self.world.eventually(copied, within_s=90.0)

    async def timeline_goes(self) -> None:
        """Another timeline is deleted from one member while it is written to."""
        name = f"other{len(self.cluster.endpoints)}"
        timeline = await self.cluster.create_tenant()
        other = await self.cluster.endpoint(name, timeline=timeline)
        async with self.world.load(other) as load:
            await load.progress(10)
            await self.chance.choice(self.cluster.safekeepers).delete_timeline(timeline)
            await load.progress(10)

    async def settle(self) -> None:
        """Everything is where it belongs: whole segments in S3 alone, the rest on every member."""
        end_lsn = await fill_wal(self.endpoint, MIB)
        timeline = self.endpoint.timeline
        await level(self.cluster, timeline, end_lsn)
        await check_safekeepers_agree(self.cluster.safekeepers, timeline)
        backup_lsn = await backed_up(self.cluster, timeline, end_lsn)
        await removed(self.cluster, timeline, backup_lsn)


@pytest.mark.computes("walgen", reason="PostgreSQL tells no LSN to wait for")
async def test_wal_comes_and_goes(world: World) -> None:
    """Four troubles, one after the other, and then everything settles."""
    chance = world.generator("churn options")
    options = {
        "wal_removal_s": chance.choice([0.3, 2.0]),
        "control_file_save_s": chance.choice([0.3, 5.0]),
        "broker_publish_s": chance.choice([0.3, 1.0]),
        "backup_lease_s": chance.choice([2.0, 5.0]),
        "backup_retry_s": 0.3,
        "recent_wal_bytes": chance.choice([0, 64 * KIB, 1024 * KIB]),
        "catch_up_s": chance.choice([0.3, 2.0]),
    }
    cluster = await world.start(
        Topology(
            safekeepers=chance.choice([3, 3, 5]),
            safekeeper_options=options,
            pageserver_options=UPLOADS,
        )
    )
    churn = Churn(world, cluster, await cluster.endpoint("main"))
    world.expect_log("was deleted", reason="computes and pageservers still ask for a timeline")
    for _ in range(ROUNDS):
        await churn.one()
    await churn.settle()
