"""Members that lag, are new, or go for good: each gets the WAL it needs, or is gone for good.

What could go wrong: a member that nobody feeds stays behind for ever; a copy taken while the donor
is cut or its WAL removed is a log that never was; a deleted timeline is written to, or comes back.
"""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack, suppress
from http import HTTPStatus

import pytest

from harness.checkers.safekeepers_agree import check_safekeepers_agree
from harness.cluster import Cluster
from harness.endpoint import OutcomeUnknown
from harness.endpoint_handle import EndpointHandle
from harness.errors import NotYet
from harness.filling import fill_wal, offload_by_hand
from harness.nodes import SafekeeperHandle
from harness.patience import refusal, until_ended
from harness.topology import KIB, MIB, Topology
from harness.wal_waits import backed_up, level, removed, waiting_at
from harness.world import World
from storage.errors import SeawallError
from storage.lsn import Lsn

BUSY = {
    "wal_removal_s": 0.5, "control_file_save_s": 0.5, "broker_publish_s": 0.3,
    "backup_lease_s": 2.0, "backup_retry_s": 0.2, "recent_wal_bytes": 64 * KIB, "catch_up_s": 0.5,
}  # fmt: skip
UPLOADS = {"checkpoint_distance": 256 * KIB, "checkpoint_timeout_s": 2.0}
LISTED = "sk-snapshot-listed"
UNREACHABLE = (HTTPStatus.INTERNAL_SERVER_ERROR, HTTPStatus.SERVICE_UNAVAILABLE)
TOPOLOGY = Topology(safekeeper_options=BUSY, pageserver_options=UPLOADS)

pytestmark = pytest.mark.computes("walgen", reason="PostgreSQL tells no LSN to wait for")


async def start(world: World, topology: Topology = TOPOLOGY) -> tuple[Cluster, EndpointHandle]:
    """A cluster and its compute."""
    cluster = await world.start(topology)
    return cluster, await cluster.endpoint("main")


async def join_anew(cluster: Cluster, endpoint: EndpointHandle, newcomer: SafekeeperHandle) -> None:
    """A machine with an empty disk takes a member's place and copies the timeline from a peer."""
    if newcomer.running:
        await newcomer.kill(host=True)
    await newcomer.wipe()
    await newcomer.start()
    donors = [each.address for each in cluster.safekeepers if each is not newcomer]
    await newcomer.pull_timeline(endpoint.timeline, donors)


async def test_lagging_member_catches_up_from_peers_without_a_compute(world: World) -> None:
    """It was away while all was written, and the compute is gone: only its peers can help."""
    cluster, endpoint = await start(world)
    lagging = cluster.safekeeper(world.generator("lagging").randrange(3))
    await endpoint.put(1, "a")
    await lagging.kill()
    end_lsn = await fill_wal(endpoint, MIB // 2)
    await endpoint.put(2, "b")
    await endpoint.stop()

    await lagging.start()
    await level(cluster, endpoint.timeline, end_lsn)
    await endpoint.start()


async def test_lagging_member_catches_up_from_s3(world: World) -> None:
    """It cannot reach its peers, but S3 has what it lacks, as far as segments are whole."""
    cluster, endpoint = await start(world)
    await fill_wal(endpoint, MIB // 2)
    lagging = cluster.safekeeper(2)
    await lagging.kill()
    end_lsn = await fill_wal(endpoint, 3 * MIB)
    backup_lsn = await backed_up(cluster, endpoint.timeline, end_lsn)
    await endpoint.put(2, "b")
    await endpoint.stop()

    async with world.faults.isolate("sk2", ["sk0", "sk1"]):
        await lagging.start()

        async def has_segments() -> None:
            state = await lagging.timeline(endpoint.timeline)
            if state.commit_lsn // MIB < backup_lsn // MIB - 1:
                raise NotYet(f"it has {state.commit_lsn} of {backup_lsn}")

        await world.eventually(has_segments, what="S3 helps")
    await level(cluster, endpoint.timeline, end_lsn)
    await endpoint.start()


async def test_newcomer_gets_wal_that_is_only_in_s3(world: World) -> None:
    """Its proposer reads the beginning back through a peer that has it no more itself."""
    cluster, endpoint = await start(world)
    end_lsn = await fill_wal(endpoint, 3 * MIB)
    backup_lsn = await backed_up(cluster, endpoint.timeline, end_lsn)
    await removed(cluster, endpoint.timeline, backup_lsn)

    newcomer = cluster.safekeeper(2)
    await newcomer.kill(host=True)
    await newcomer.wipe()
    await newcomer.start()
    spec = await world.compute.branch_spec(
        cluster, endpoint.timeline, Lsn(cluster.topology.wal_segment_size)
    )
    await newcomer.create_timeline(endpoint.timeline, spec, cluster.safekeeper_addresses())
    await level(cluster, endpoint.timeline, end_lsn)


async def test_members_are_replaced_one_by_one_within_a_segment(world: World) -> None:
    """Nobody who saw the segment's beginning is left; it is offloaded whole all the same."""
    cluster, endpoint = await start(world)
    await fill_wal(endpoint, MIB + MIB // 3)
    for newcomer in cluster.safekeepers:
        lsn = await fill_wal(endpoint, MIB // 8)
        await level(cluster, endpoint.timeline, lsn)
        await join_anew(cluster, endpoint, newcomer)
    end_lsn = await fill_wal(endpoint, 2 * MIB)

    backup_lsn = await backed_up(cluster, endpoint.timeline, end_lsn)
    await removed(cluster, endpoint.timeline, backup_lsn)


async def test_copy_is_not_spoilt_by_removal_of_wal(world: World) -> None:
    """While the copy waits, everybody else has got what is on the donor's disk."""
    topology = Topology(
        safekeeper_options={**BUSY, "backup_lease_s": 0}, pageserver_options=UPLOADS
    )
    cluster, endpoint = await start(world, topology)
    end_lsn = await fill_wal(endpoint, 3 * MIB)
    await level(cluster, endpoint.timeline, end_lsn)
    newcomer, donor = cluster.safekeeper(2), cluster.safekeeper(0)
    await newcomer.kill(host=True)
    await newcomer.wipe()
    await newcomer.start()
    async with world.faults.failpoint(donor, LISTED, "pause"):
        pull = asyncio.create_task(newcomer.pull_timeline(endpoint.timeline, [donor.address]))
        await waiting_at(cluster, LISTED)
        border_lsn = Lsn(end_lsn - end_lsn % MIB)
        await offload_by_hand(cluster, endpoint.timeline, border_lsn)
        await cluster.pageserver(0).checkpoint(endpoint.timeline)
        await donor.patch_backup_lsn(endpoint.timeline, border_lsn)
        await looked_often(world, donor)
    await pull
    await level(cluster, endpoint.timeline, end_lsn)


async def looked_often(world: World, safekeeper: SafekeeperHandle) -> None:
    """Wait until it has looked for WAL to remove several times."""
    async with world.faults.failpoint(safekeeper, "sk-before-wal-removal", "sleep", delay_s=0.001):

        async def often() -> None:
            if (await safekeeper.failpoint("sk-before-wal-removal"))["hits"] < 6:
                raise NotYet(f"{safekeeper.name} has not looked six times")

        await world.eventually(often)


async def test_copy_of_a_log_that_is_cut_meanwhile_does_not_count(world: World) -> None:
    """The donor's tail is cut off by the next leader, and other WAL written in its place."""
    options = {**BUSY, "catch_up_s": 1000.0}
    cluster, endpoint = await start(world, Topology(safekeepers=5, safekeeper_options=options))
    donor, witness, newcomer = (cluster.safekeeper(i) for i in (0, 1, 4))
    await write_a_tail(world, endpoint, (donor, witness))
    await witness.kill()
    link = AsyncExitStack()
    await link.enter_async_context(world.faults.partition("main", donor.name))
    await endpoint.start()
    await endpoint.put(3, "other WAL")
    await newcomer.kill(host=True)
    await newcomer.wipe()
    await newcomer.start()
    async with world.faults.failpoint(donor, LISTED, "pause"):
        pull = asyncio.create_task(newcomer.pull_timeline(endpoint.timeline, [donor.address]))
        assert await waiting_at(cluster, LISTED) is donor
        await link.aclose()
        lsn = await endpoint.put(4, "more of it")
        assert lsn is not None
        await level(cluster, endpoint.timeline, lsn, members=[donor])
    await asyncio.wait([pull])

    await endpoint.kill()
    await witness.start()
    if pull.exception() is None:
        await check_safekeepers_agree([witness, newcomer], endpoint.timeline)
    else:
        await newcomer.pull_timeline(endpoint.timeline, [donor.address])
    await endpoint.start()


async def write_a_tail(
    world: World, endpoint: EndpointHandle, members: tuple[SafekeeperHandle, SafekeeperHandle]
) -> None:
    """A compute dies with WAL that only these two of five members have."""
    lsn = await endpoint.put(1, "a")
    assert lsn is not None
    async with AsyncExitStack() as stack:
        for name in ("sk2", "sk3", "sk4"):
            await stack.enter_async_context(world.faults.partition(endpoint.name, name))
        puts = [asyncio.create_task(endpoint.put(2, f"lost {i}" * 20)) for i in range(6)]

        async def longer() -> None:
            for member in members:
                state = await member.timeline(endpoint.timeline)
                if state.flush_lsn < lsn + 1000:
                    raise NotYet(f"{member.name} has {state.flush_lsn}")

        await world.eventually(longer)
        await endpoint.kill()
    await asyncio.wait(puts)
    assert all(isinstance(each.exception(), OutcomeUnknown) for each in puts)


async def test_deleted_timeline_is_gone_for_good(world: World) -> None:
    """Compute and pageserver are connected to it while it goes; nothing of it may run on."""
    cluster, endpoint = await start(world)
    doomed = cluster.safekeeper(1)
    world.expect_log("was deleted", reason="its compute and pageserver still ask for it")
    async with world.load(endpoint) as load:
        await load.progress(20)
        await doomed.delete_timeline(endpoint.timeline)
        tasks = await doomed.tasks()
        left = [t for t in tasks if t["timeline_id"] == endpoint.timeline.timeline_id]
        assert left == []
        await load.progress(20)
    await check_gone(world, cluster, endpoint, doomed)
    await doomed.restart()
    await check_gone(world, cluster, endpoint, doomed)
    await doomed.delete_timeline(endpoint.timeline)


async def test_deletion_goes_on_after_a_crash(world: World) -> None:
    """The tombstone is there, the files are too: the next start finishes it."""
    cluster, endpoint = await start(world)
    doomed = cluster.safekeeper(1)
    await endpoint.put(1, "a")
    await doomed.arm("sk-delete-after-tombstone", "exit")
    with pytest.raises((OSError, EOFError, SeawallError)):
        await doomed.delete_timeline(endpoint.timeline)
    await until_ended(world, doomed)
    await doomed.start()
    await check_gone(world, cluster, endpoint, doomed)


async def test_deletion_takes_the_wal_in_s3_along_only_if_asked(world: World) -> None:
    """What S3 has is this timeline's alone, and an answer that does not come is asked for again."""
    cluster, endpoint = await start(world)
    await endpoint.put(1, "a")
    doomed, objects = await cluster.create_tenant(), world.backend.admin_objects()
    world.expect_log("was deleted", reason="its pageserver still asks for it")
    world.expect_log(rf"DELETE \S*/{doomed.timeline_id} failed", reason="S3 is away", node="sk2")
    prefix = f"safekeeper/{doomed.tenant_id}/"
    mine = f"{prefix}{doomed.timeline_id}/{1:08X}{0:08X}{1:08X}"
    other = f"{prefix}{endpoint.timeline.timeline_id}/{1:08X}{0:08X}{1:08X}"
    for key in (mine, other):
        await objects.put(key, b"WAL")
    for safekeeper in cluster.safekeepers:
        await safekeeper.delete_timeline(doomed)
    assert [info.key for info in await objects.list(prefix)] == sorted([mine, other])

    last = cluster.safekeeper(2)
    async with world.faults.object_store_outage():
        # An outage may be one of silence: then the administrator gives up first.
        with suppress(TimeoutError):
            assert await refusal(last.delete_timeline(doomed, remote=True)) in UNREACHABLE
    for _ in range(2):
        await last.delete_timeline(doomed, remote=True)
        assert [info.key for info in await objects.list(prefix)] == [other]


async def check_gone(
    world: World, cluster: Cluster, endpoint: EndpointHandle, doomed: SafekeeperHandle
) -> None:
    """It is unknown here, and nobody can make it anew."""
    spec = await world.compute.branch_spec(cluster, endpoint.timeline, Lsn(MIB))
    timeline = endpoint.timeline
    create = doomed.create_timeline(timeline, spec, cluster.safekeeper_addresses())
    pull = doomed.pull_timeline(timeline, [cluster.safekeeper(0).address])
    assert await refusal(doomed.timeline(timeline)) == HTTPStatus.NOT_FOUND
    assert await refusal(create) == HTTPStatus.CONFLICT
    assert await refusal(pull) == HTTPStatus.CONFLICT
