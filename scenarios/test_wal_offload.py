"""Whole committed segments of WAL go to S3, by one elected safekeeper, whatever befalls it.

What could go wrong: a segment that is not whole or not committed, a gap after a failover, two
offloaders at once that overwrite one another, an outage that stops the offload for good.
"""

from __future__ import annotations

import json
from typing import Any

import pytest

from harness.cluster import Cluster
from harness.endpoint_handle import EndpointHandle
from harness.errors import NotYet
from harness.filling import fill_wal
from harness.nodes import SafekeeperHandle
from harness.topology import MIB, Topology
from harness.wal_waits import backed_up, offloaders, running_members, waiting_at
from harness.world import World
from storage.ids import TenantTimelineId
from storage.lsn import Lsn

LEASE_S = 2.0
EAGER = {"backup_lease_s": LEASE_S, "backup_retry_s": 0.2, "broker_publish_s": 0.3}
TOPOLOGY = Topology(safekeeper_options=EAGER)
BEFORE_CLAIM = "sk-before-backup-claim"
BEFORE_PUT, AFTER_PUT = "sk-before-backup-put", "sk-after-backup-put"
UNAWARE_S = 60.0
"""Length of a lease whose leader does not ask for it again while a scenario runs."""
FENCED = "offloader_fenced"

pytestmark = pytest.mark.computes("walgen", reason="PostgreSQL tells no LSN to wait for")


async def arm_all(cluster: Cluster, failpoint: str, action: str, **plan: int) -> None:
    """The same failpoint on every safekeeper that runs."""
    for safekeeper in running_members(cluster):
        await safekeeper.arm(failpoint, action, **plan)


async def start(world: World) -> tuple[Cluster, EndpointHandle]:
    """A cluster and its compute."""
    cluster = await world.start(TOPOLOGY)
    return cluster, await cluster.endpoint("main")


async def nobody_offloads(cluster: Cluster) -> None:
    """``NotYet`` while a safekeeper has a task for it."""
    for safekeeper in running_members(cluster):
        if any(task["kind"] == "wal_backup" for task in await safekeeper.tasks()):
            raise NotYet(f"{safekeeper.name} has a task that offloads")


@pytest.mark.row("G1.whole", "G1.need")
async def test_whole_segments_are_offloaded_and_no_more(world: World) -> None:
    """The end of the offloaded WAL is a segment's, and never beyond what is committed."""
    cluster, endpoint = await start(world)
    end_lsn = await fill_wal(endpoint, 2 * MIB + MIB // 3)

    backup_lsn = await backed_up(cluster, endpoint.timeline, end_lsn)

    objects = await world.backend.admin_objects().list("safekeeper/")
    assert len(objects) == backup_lsn // MIB - 1 + len(["manifest.json"])
    for safekeeper in cluster.safekeepers:
        assert (await safekeeper.timeline(endpoint.timeline)).backup_lsn == backup_lsn
    await world.eventually(lambda: nobody_offloads(cluster), within_s=5.0)


@pytest.mark.row("G1.need")
async def test_nothing_is_offloaded_before_a_segment_is_whole(world: World) -> None:
    """A timeline with half a segment costs neither a task, nor an election, nor a request."""
    cluster, endpoint = await start(world)
    await fill_wal(endpoint, MIB // 2)
    await cluster.caught_up(cluster.pageserver(0), endpoint.timeline)

    assert await world.backend.admin_objects().list("safekeeper/") == []
    assert offloaders(world, endpoint.timeline) == []
    for safekeeper in cluster.safekeepers:
        assert not [t for t in await safekeeper.tasks() if t["kind"] == "wal_backup"]


@pytest.mark.row("G1.failover")
@pytest.mark.parametrize("where", [BEFORE_PUT, AFTER_PUT])
async def test_offloader_dies_with_a_segment_half_done(world: World, where: str) -> None:
    """Before or after the object is there, but not the manifest: the next one leaves no gap."""
    cluster, endpoint = await start(world)
    await cluster.safekeeper(world.generator("doomed").randrange(3)).arm(where, "exit")
    dead: list[SafekeeperHandle] = []
    while not dead:
        end_lsn = await fill_wal(endpoint, MIB)
        await backed_up(cluster, endpoint.timeline, end_lsn)
        dead = [each for each in cluster.safekeepers if not each.running]
    await dead[0].start()
    end_lsn = await fill_wal(endpoint, MIB)
    await backed_up(cluster, endpoint.timeline, end_lsn)


@pytest.mark.row("G1.failover")
async def test_reply_to_the_put_is_lost(world: World) -> None:
    """The object is stored, the offloader does not learn of it, and must not be stopped by it."""
    cluster, endpoint = await start(world)
    await arm_all(cluster, AFTER_PUT, "return", count=2)
    end_lsn = await fill_wal(endpoint, 3 * MIB)

    await backed_up(cluster, endpoint.timeline, end_lsn)
    fired = [(await s.failpoint(AFTER_PUT))["fired"] for s in cluster.safekeepers]
    assert sum(fired) >= 2, f"nobody lost a reply: {fired}"


@pytest.mark.row("G1.outage")
async def test_object_store_outage_is_survived(world: World) -> None:
    """Commits do not need S3; when it is back everything is offloaded, and WAL was kept so long."""
    cluster, endpoint = await start(world)
    async with world.faults.object_store_outage():
        end_lsn = await fill_wal(endpoint, 3 * MIB)
        for safekeeper in cluster.safekeepers:
            state = await safekeeper.timeline(endpoint.timeline)
            assert state.oldest_segment == state.timeline_start_lsn // MIB
    await backed_up(cluster, endpoint.timeline, end_lsn)


@pytest.mark.row("G1.election")
async def test_frozen_offloader_is_replaced(world: World) -> None:
    """A process that froze before its upload keeps nobody from the next segment, nor harms it when
    it wakes up and learns that its lease is over."""
    cluster, endpoint = await start(world)
    await arm_all(cluster, BEFORE_PUT, "pause")
    end_lsn = await fill_wal(endpoint, 2 * MIB)
    frozen = await waiting_at(cluster, BEFORE_PUT)
    async with world.faults.pause(frozen):
        for safekeeper in cluster.safekeepers:
            if safekeeper is not frozen:
                await safekeeper.disarm(BEFORE_PUT)

        async def another_leads() -> None:
            if {node for node, _ in offloaders(world, endpoint.timeline)} == {frozen.name}:
                raise NotYet(f"{frozen.name} is still the only one")

        await world.eventually(another_leads)
    await frozen.disarm(BEFORE_PUT)

    await backed_up(cluster, endpoint.timeline, end_lsn)
    end_lsn = await fill_wal(endpoint, MIB)
    await backed_up(cluster, endpoint.timeline, end_lsn)
    tokens = [token for _, token in offloaders(world, endpoint.timeline)]
    assert len(set(tokens)) == len(tokens), f"a fencing token was given twice: {tokens}"


async def manifest_of(world: World, timeline: TenantTimelineId) -> dict[str, Any]:
    """What S3 says of a timeline's WAL."""
    key = f"safekeeper/{timeline.tenant_id}/{timeline.timeline_id}/manifest.json"
    found: dict[str, Any] = json.loads(await world.backend.admin_objects().get(key))
    return found


def position(manifest: dict[str, Any]) -> tuple[int, Lsn]:
    """What never goes back; who is elected with nothing left to do still gives a higher token."""
    return int(manifest["fencing_token"]), Lsn.parse(manifest["backup_lsn"])


async def with_unaware_offloaders(world: World) -> tuple[Cluster, EndpointHandle]:
    """A cluster whose offloaders hear late that their lease is over."""
    options = {**EAGER, "backup_lease_s": UNAWARE_S}
    cluster = await world.start(Topology(safekeeper_options=options))
    return cluster, await cluster.endpoint("main")


async def hold_the_first(
    cluster: Cluster, endpoint: EndpointHandle, place: str
) -> tuple[SafekeeperHandle, Lsn]:
    """Whoever leads first waits at a failpoint that is open for the others; and where WAL ends."""
    await arm_all(cluster, place, "pause")
    end_lsn = await fill_wal(endpoint, 2 * MIB)
    first = await waiting_at(cluster, place)
    for safekeeper in cluster.safekeepers:
        if safekeeper is not first:
            await safekeeper.disarm(place)
    return first, end_lsn


async def lose_the_lease(world: World, timeline: TenantTimelineId, leader: str) -> None:
    """The broker lets a leader's lease run out; the leader learns of it when it asks again."""
    election = f"seawall/election/{timeline.tenant_id}/{timeline.timeline_id}/wal-backup/"
    standing = await world.backend.admin_broker().get(election)
    (key,) = (key for key, candidate in standing.items() if candidate.decode() == leader)
    world.backend.broker.expire_leases(key)


async def fenced_off(world: World, node: SafekeeperHandle) -> None:
    """Wait until a safekeeper has found out in S3 that it leads no more."""

    async def found() -> None:
        marks = [e for e in world.backend.events() if e.kind == "mark" and e.node == node.name]
        if all(mark.fields["name"] != FENCED for mark in marks):
            raise NotYet(f"{node.name} believes that it leads")

    await world.eventually(found, within_s=20.0)


@pytest.mark.row("G1.election")
@pytest.mark.worlds("sim", reason="in real the scenario below meets the same code")
@pytest.mark.parametrize("older_is", [BEFORE_CLAIM, AFTER_PUT])
async def test_older_of_two_offloaders_disturbs_nothing(world: World, older_is: str) -> None:
    """Both believe that they lead, and only S3 knows better: from the claim of the newer one on,
    the older one gets no word in, whether it is about to claim or to tell of its segment."""
    cluster, endpoint = await with_unaware_offloaders(world)
    older, end_lsn = await hold_the_first(cluster, endpoint, older_is)
    for safekeeper in cluster.safekeepers:
        if safekeeper is not older:
            await safekeeper.arm(BEFORE_PUT, "pause")
    await lose_the_lease(world, endpoint.timeline, older.name)
    newer = await waiting_at(cluster, BEFORE_PUT)
    claimed = await manifest_of(world, endpoint.timeline)
    assert claimed["node"] == newer.name

    await older.disarm(older_is)
    await fenced_off(world, older)

    assert await manifest_of(world, endpoint.timeline) == claimed
    await newer.disarm(BEFORE_PUT)
    await backed_up(cluster, endpoint.timeline, end_lsn)
    assert [node for node, _ in offloaders(world, endpoint.timeline)][:2] == [
        older.name,
        newer.name,
    ]


@pytest.mark.row("G1.election")
async def test_older_of_two_offloaders_does_not_go_back(world: World) -> None:
    """What it has to tell of its segment is old by now: more is in S3, and members rely on it."""
    cluster, endpoint = await with_unaware_offloaders(world)
    older, end_lsn = await hold_the_first(cluster, endpoint, AFTER_PUT)
    await lose_the_lease(world, endpoint.timeline, older.name)
    await backed_up(cluster, endpoint.timeline, end_lsn)
    newest = await manifest_of(world, endpoint.timeline)

    await older.disarm(AFTER_PUT)
    await fenced_off(world, older)

    assert position(await manifest_of(world, endpoint.timeline)) >= position(newest)
    await world.eventually(lambda: nobody_offloads(cluster), within_s=5.0)


@pytest.mark.row("G1.election")
async def test_broker_outage_ends_the_lease_and_the_offload_comes_back(world: World) -> None:
    """Without the broker nobody can be elected; the offload waits, and nothing else does."""
    cluster, endpoint = await start(world)
    async with world.faults.broker_outage():
        end_lsn = await fill_wal(endpoint, 2 * MIB)
    await backed_up(cluster, endpoint.timeline, end_lsn, within_s=90.0)
