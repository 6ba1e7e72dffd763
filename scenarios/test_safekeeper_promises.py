"""What a safekeeper does before it answers anybody: it loads everything, and it flushes.

What could go wrong: a member that has not read its disk yet says that there is no such timeline, or
votes while WAL it was given is on its way to the disk, so that what it told grows by itself.
"""

from __future__ import annotations

import asyncio

import pytest

from harness.errors import NotYet
from harness.nodes import SAFEKEEPER_HTTP_PORT, SAFEKEEPER_LIBPQ_PORT, SafekeeperHandle
from harness.topology import THREE_SAFEKEEPERS
from harness.wal_waits import level
from harness.world import World

FLUSH = "sk-before-flush"
UNDISTURBED_S = 3.0


@pytest.mark.row("E5.first")
async def test_nobody_is_served_before_everything_is_loaded(world: World) -> None:
    """Its disk takes a while; until then its ports are closed, and then it knows everything."""
    cluster = await world.start(THREE_SAFEKEEPERS)
    endpoint = await cluster.endpoint("main")
    await endpoint.put(1, "a")
    loading = cluster.safekeeper(0)
    known = await loading.timeline(endpoint.timeline)
    await loading.kill()
    async with world.faults.disk_stall(loading):
        start = asyncio.create_task(loading.start())
        await world.eventually(lambda: reads_its_disk(world, loading))
        for port in (SAFEKEEPER_HTTP_PORT, SAFEKEEPER_LIBPQ_PORT):
            with pytest.raises(ConnectionError):
                await asyncio.open_connection(loading.name, port)
        assert not start.done()
    await start
    state = await loading.timeline(endpoint.timeline)
    assert (state.term, state.flush_lsn) >= (known.term, known.flush_lsn)
    await cluster.safekeeper(1).stop()
    await endpoint.put(2, "it takes part")
    await cluster.safekeeper(1).start()


async def reads_its_disk(world: World, safekeeper: SafekeeperHandle) -> None:
    """``NotYet`` before a call of its disk hangs."""
    if not world.faults.effects().get(f"disk/{safekeeper.name}.calls_stalled"):
        raise NotYet(f"{safekeeper.name} has asked its disk for nothing")


@pytest.mark.computes("walgen", reason="PostgreSQL writes WAL when nobody asks it to")
@pytest.mark.row("E2.lock")
async def test_no_vote_is_given_while_a_flush_is_under_way(world: World) -> None:
    """Two members are about to write: whoever wants their votes waits, and learns of that WAL."""
    world.expect_log(r"crashed: Deposed|Deposed: term", reason="the first compute is replaced")
    cluster = await world.start(THREE_SAFEKEEPERS)
    endpoint = await cluster.endpoint("main")
    await endpoint.put(1, "a")
    busy = cluster.safekeepers[:2]
    for safekeeper in busy:
        await safekeeper.arm(FLUSH, "pause")
    writing = asyncio.create_task(endpoint.put(2, "b"))
    await world.eventually(lambda: all_wait(busy))

    electing = asyncio.create_task(cluster.endpoint("rival"))
    await asyncio.wait([electing, writing], timeout=UNDISTURBED_S)
    assert not electing.done()
    for safekeeper in busy:
        connected = await safekeeper.streams(endpoint.timeline)
        assert connected["proposers"] == 2, f"nobody asks {safekeeper.name} for its vote"
        assert (await safekeeper.timeline(endpoint.timeline)).term == 1

    for safekeeper in busy:
        await safekeeper.disarm(FLUSH)
    rival = await electing
    assert await rival.get(2) == "b"
    await asyncio.wait([writing])
    lsn = await rival.put(3, "c")
    assert lsn is not None
    await level(cluster, endpoint.timeline, lsn)


async def all_wait(safekeepers: list[SafekeeperHandle]) -> None:
    """``NotYet`` before each of them is paused at its flush."""
    for safekeeper in safekeepers:
        if not (await safekeeper.failpoint(FLUSH))["waiting"]:
            raise NotYet(f"{safekeeper.name} has nothing to flush")
