"""Read-only computes pinned to an LSN, and garbage collection that would like to have it (D5).

Without a lease it takes what they still read: the defect that SYSTEM.md describes. With one it must
stay behind them through restarts, migrations and lost renewals, and go on when the lease ends.
"""

from __future__ import annotations

import pytest

from harness.cluster import Cluster
from harness.collecting import LEASE_S, SMALL_LAYERS, Collecting
from harness.endpoint import Refused
from harness.endpoint_handle import EndpointHandle
from harness.errors import NotYet
from harness.loss import lose_power
from harness.topology import Topology
from harness.world import World
from storage.lsn import Lsn

WALGEN_ONLY = pytest.mark.computes("walgen", reason="PostgreSQL tells no LSN to pin a replica to")

ROWS = {key: f"row {key}" for key in range(0, 400, 20)}
CHANGED = {key: f"changed {key}" for key in ROWS}
REMOVED = 6


async def primary_and_lsn(world: World) -> tuple[Cluster, EndpointHandle, Lsn]:
    """A primary whose rows were as :data:`ROWS` at an LSN and are others now."""
    cluster = await world.start(
        Topology(pageservers=2, pageserver_options=SMALL_LAYERS, compute_options={"cache_pages": 1})
    )
    primary = await cluster.endpoint("main")
    lsn = await primary.txn(ROWS)
    assert lsn is not None
    return cluster, primary, lsn


async def rows(replica: EndpointHandle) -> dict[int, str]:
    """Everything that it sees of the rows that were there first; twice, for half of it may have
    been in its cache."""
    halves = [await replica.scan(first, first + 200) for first in (0, 200, 0, 200)]
    assert halves[:2] == halves[2:]
    return {key: value for key, value in halves[0] + halves[1] if key in ROWS}


@pytest.mark.row("D5.defect")
@WALGEN_ONLY
async def test_without_a_lease_garbage_collection_takes_what_is_read(world: World) -> None:
    """The known defect, wanted here: a pinned compute that nobody knows of loses its pages."""
    cluster, primary, lsn = await primary_and_lsn(world)
    world.expect_log(r"nothing can be read at", reason="the replica is not leased")
    replica = await cluster.replica("replica", lsn, of=primary, lease=False)
    assert await rows(replica) == ROWS

    async with world.load(primary), Collecting(cluster, primary.timeline) as collecting:
        await primary.txn(CHANGED)
        await collecting.removes(REMOVED)

    cutoff = (await cluster.pageserver(0).timeline(primary.timeline)).latest_gc_cutoff_lsn
    with pytest.raises(Refused, match=rf"{lsn} is before latest_gc_cutoff_lsn {cutoff}") as caught:
        await rows(replica)
    assert caught.value.sqlstate == "22003"


@pytest.mark.row("D5.leases")
@WALGEN_ONLY
async def test_with_a_lease_it_reads_on_for_as_long_as_it_lives(world: World) -> None:
    """Pass after pass, the pinned compute reads the same rows; when it is gone, so are they."""
    cluster, primary, lsn = await primary_and_lsn(world)
    replica = await cluster.replica("replica", lsn, of=primary)

    async with world.load(primary) as load, Collecting(cluster, primary.timeline):
        await primary.txn(CHANGED)
        for _ in range(5):
            await load.progress(60)
            assert await rows(replica) == ROWS
        held = await cluster.pageserver(0).collect_garbage(primary.timeline)
        assert (held.cutoff, held.held_by) == (lsn, "lease")
        await replica.stop()
        await lease_ends(cluster, primary, lsn)
    assert await rows(primary) == CHANGED


async def lease_ends(cluster: Cluster, primary: EndpointHandle, lsn: Lsn) -> None:
    """Wait until garbage collection goes past an LSN that nobody leases any more."""

    async def passed() -> None:
        shown = await primary.pageserver.timeline(primary.timeline)
        if shown.latest_gc_cutoff_lsn <= lsn:
            raise NotYet(f"the cutoff is {shown.latest_gc_cutoff_lsn}")

    await cluster.world.eventually(passed, within_s=LEASE_S + 20, what="the lease ends")


@pytest.mark.row("D5.restart")
@WALGEN_ONLY
async def test_a_lease_outlives_restarts_of_its_pageserver(world: World) -> None:
    """A pageserver that forgot its leases must hear of them again before it collects anything."""
    cluster, primary, lsn = await primary_and_lsn(world)
    replica = await cluster.replica("replica", lsn, of=primary)

    async with world.load(primary) as load, Collecting(cluster, primary.timeline):
        await primary.txn(CHANGED)
        for host in (False, True):
            await load.progress(60)
            await lose_power(cluster, cluster.pageserver(0), host=host)
            await load.progress(60)
            assert await rows(replica) == ROWS
        await cluster.pageserver(0).restart()
        await load.progress(120)
        assert await rows(replica) == ROWS


@pytest.mark.row("D5.migration")
@WALGEN_ONLY
async def test_a_lease_outlives_migration(world: World) -> None:
    """Both pageservers collect whenever they may; neither may take what is leased."""
    cluster, primary, lsn = await primary_and_lsn(world)
    replica = await cluster.replica("replica", lsn, of=primary)
    old, new = cluster.pageservers

    async with world.load(primary) as load, Collecting(cluster, primary.timeline):
        await primary.txn(CHANGED)
        await load.progress(60)
        for source, target in ((old, new), (new, old)):
            await target.attach(primary.timeline.tenant_id)
            await cluster.caught_up(target, primary.timeline)
            await primary.move(target)
            await replica.move(target)
            await source.detach(primary.timeline.tenant_id)
            await load.progress(120)
            assert await rows(replica) == ROWS


@pytest.mark.row("D5.branch")
@WALGEN_ONLY
async def test_a_lease_on_a_branch_holds_and_neither_holds_nor_needs_one_of_its_ancestor(
    world: World,
) -> None:
    """Both timelines collect; the branch stays behind its reader, wherever the parent has got."""
    cluster, primary, lsn = await primary_and_lsn(world)
    branch = await cluster.endpoint(
        "branch", timeline=await cluster.branch(primary.timeline, at=lsn)
    )
    own_lsn = await branch.txn({0: "of the branch"})
    assert own_lsn is not None
    replica = await cluster.replica("replica", own_lsn, of=branch)
    seen = {**ROWS, 0: "of the branch"}

    async with (
        world.load(branch) as load,
        Collecting(cluster, branch.timeline) as on_branch,
        Collecting(cluster, primary.timeline),
    ):
        await branch.txn(CHANGED)
        await primary.txn(CHANGED)
        await load.progress(200)
        assert await rows(replica) == seen
        held = await cluster.pageserver(0).collect_garbage(branch.timeline)
        assert (held.cutoff, held.held_by) == (own_lsn, "lease")
        await replica.stop()
        await lease_ends(cluster, branch, own_lsn)
        await on_branch.removes(1)
    assert await rows(branch) == CHANGED


@WALGEN_ONLY
async def test_renewals_may_be_lost_for_a_while(world: World) -> None:
    """A compute cut off for less than a lease keeps it; for longer, it is told that it lost it."""
    cluster, primary, lsn = await primary_and_lsn(world)
    world.expect_log(r"the lease at .* is refused", reason="its renewal comes too late")
    replica = await cluster.replica("replica", lsn, of=primary)

    async with world.load(primary) as load, Collecting(cluster, primary.timeline):
        await primary.txn(CHANGED)
        async with world.faults.partition("replica", "ps0"):
            await load.progress(5)
        assert await rows(replica) == ROWS
        async with world.faults.partition("replica", "ps0"):
            await lease_ends(cluster, primary, lsn)
    with pytest.raises(Refused, match="latest_gc_cutoff_lsn"):
        await rows(replica)
