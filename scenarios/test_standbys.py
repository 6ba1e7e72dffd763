"""Hot standbys that read pages where they have replayed to, and garbage collection (D5).

What a standby reads travels as hot standby feedback: standby, safekeeper, broker, pageserver. It
must hold garbage collection back whatever restarts or moves on that way, and no longer than the
standby lives.
"""

from __future__ import annotations

import pytest

from harness.cluster import Cluster
from harness.collecting import SMALL_LAYERS, Collecting
from harness.endpoint import Refused
from harness.endpoint_handle import EndpointHandle
from harness.errors import NotYet
from harness.standby import StandbyHandle
from harness.topology import Discovery, Topology
from harness.world import World
from storage.lsn import Lsn

WALGEN_ONLY = pytest.mark.computes("walgen", reason="a stock standby has pages of its own")

ROWS = {key: f"row {key}" for key in range(0, 400, 20)}
CHANGED = {key: f"changed {key}" for key in ROWS}
REMOVED = 6
MEMORY_S = 3.0
"""How long a pageserver remembers what a safekeeper said of its standbys."""


async def followed(
    world: World, *, feedback: bool = True, discovery: Discovery = "broker"
) -> tuple[Cluster, EndpointHandle, StandbyHandle]:
    """A primary with rows, and a standby that has replayed them."""
    cluster = await world.start(
        Topology(
            pageservers=2,
            discovery=discovery,
            pageserver_options={**SMALL_LAYERS, "lease_length_s": MEMORY_S},
            safekeeper_options={"broker_publish_s": 0.3},
        )
    )
    primary = await cluster.endpoint("main")
    await primary.txn(ROWS)
    standby = await cluster.standby("standby", of=primary, feedback=feedback)
    await sees(world, standby, ROWS)
    return cluster, primary, standby


async def rows(standby: EndpointHandle) -> dict[int, str]:
    """What it sees of the rows that were there first."""
    return {key: value for key, value in await standby.scan(0, 400) if key in ROWS}


async def sees(world: World, standby: StandbyHandle, wanted: dict[int, str]) -> None:
    """Wait until it has replayed so far."""

    async def replayed() -> None:
        try:
            found = await rows(standby)
        except Refused as error:
            raise NotYet(str(error)) from error
        if found != wanted:
            raise NotYet(f"it is at {await standby.replayed()}")

    await world.eventually(replayed, what="the standby follows")


async def paused(world: World, standby: StandbyHandle) -> Lsn:
    """Where its replay stands still, known to the pageserver."""
    await world.eventually(standby.heard, what="the pageserver hears of the standby")
    return await standby.pause()


async def cutoff(primary: EndpointHandle) -> Lsn:
    """The oldest LSN that can be read."""
    return (await primary.pageserver.timeline(primary.timeline)).latest_gc_cutoff_lsn


async def let_go(world: World, primary: EndpointHandle, lsn: Lsn) -> None:
    """Wait until garbage collection has gone past an LSN."""

    async def passed() -> None:
        if await cutoff(primary) <= lsn:
            raise NotYet(f"the cutoff is {await cutoff(primary)}")

    await world.eventually(passed, within_s=MEMORY_S + 20, what="nothing is held back any more")


@WALGEN_ONLY
@pytest.mark.row("D5.standby_defect")
async def test_without_feedback_garbage_collection_takes_what_a_standby_reads(world: World) -> None:
    """The known defect, wanted here: a standby that lags and does not say so loses its pages."""
    cluster, primary, standby = await followed(world, feedback=False)
    lsn = await standby.pause()
    assert await rows(standby) == ROWS

    async with world.load(primary), Collecting(cluster, primary.timeline) as collecting:
        await primary.txn(CHANGED)
        await collecting.removes(REMOVED)
        await let_go(world, primary, lsn)

    with pytest.raises(Refused, match=rf"{lsn} is before latest_gc_cutoff_lsn") as caught:
        await rows(standby)
    assert caught.value.sqlstate == "22003"
    await standby.resume()
    await sees(world, standby, CHANGED)


@WALGEN_ONLY
@pytest.mark.row("D5.standby_holds")
async def test_feedback_keeps_what_a_standby_reads(world: World) -> None:
    """Pass after pass it reads on where it stands; once it goes on, so does garbage collection."""
    cluster, primary, standby = await followed(world)
    lsn = await paused(world, standby)

    async with world.load(primary) as load, Collecting(cluster, primary.timeline):
        await primary.txn(CHANGED)
        for _ in range(5):
            await load.progress(60)
            assert await rows(standby) == ROWS
        collected = await primary.pageserver.collect_garbage(primary.timeline)
        assert collected.held_by == "standby"
        assert collected.cutoff <= lsn
        await standby.resume()
        await sees(world, standby, CHANGED)
        await let_go(world, primary, lsn)


@WALGEN_ONLY
@pytest.mark.row("D5.standby_holds")
async def test_feedback_outlives_restarts_and_migration(world: World) -> None:
    """Whoever passes it on may forget it: the safekeeper, the pageserver, a pageserver before."""
    cluster, primary, standby = await followed(world)
    await paused(world, standby)
    old, new = cluster.pageservers

    async with world.load(primary) as load, Collecting(cluster, primary.timeline):
        await primary.txn(CHANGED)
        for node in (*cluster.safekeepers, old):
            await node.kill()
            await load.progress(20)
            await node.start()
            await load.progress(60)
            assert await rows(standby) == ROWS
        await new.attach(primary.timeline.tenant_id)
        await cluster.caught_up(new, primary.timeline)
        await primary.move(new)
        await standby.move(new)
        await old.detach(primary.timeline.tenant_id)
        await world.eventually(standby.heard, what="the new one hears of the standby")
        await load.progress(60)
        assert await rows(standby) == ROWS


@WALGEN_ONLY
@pytest.mark.row("D5.standby_holds")
async def test_a_pageserver_that_hears_nothing_keeps_everything(world: World) -> None:
    """Without the broker nobody tells it of standbys: it must not take silence for an answer."""
    cluster, primary, standby = await followed(world)
    lsn = await paused(world, standby)

    async with world.load(primary) as load, Collecting(cluster, primary.timeline):
        await primary.txn(CHANGED)
        async with world.faults.broker_outage():
            until_s = world.now_s() + 2 * MEMORY_S
            while world.now_s() < until_s:
                await load.progress(20)
            assert await rows(standby) == ROWS
        await load.progress(60)
        assert await rows(standby) == ROWS
        assert await cutoff(primary) <= lsn


@WALGEN_ONLY
@pytest.mark.row("D5.standby_ends")
async def test_a_standby_that_is_gone_is_remembered_for_a_while_only(world: World) -> None:
    """It may come back, so not at once; but a dead standby must not keep history for ever."""
    cluster, primary, standby = await followed(world, discovery="callmemaybe")
    lsn = await paused(world, standby)

    async with world.load(primary), Collecting(cluster, primary.timeline):
        await primary.txn(CHANGED)
        last_word_s = world.now_s()
        await standby.kill()
        await let_go(world, primary, lsn)
    assert world.now_s() - last_word_s >= MEMORY_S
    assert await rows(primary) == CHANGED
