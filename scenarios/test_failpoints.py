"""Failpoints do what they say, on the node they are armed on, in any world.

A point that silently did nothing would turn every scenario that relies on it green.
"""

from __future__ import annotations

import asyncio

import pytest

from harness.errors import NotYet
from harness.patience import until_ended
from harness.topology import Topology
from harness.world import World

ONE_SAFEKEEPER = Topology(safekeepers=1)


@pytest.mark.row("P1.commit", "P6.actions", "P6.http")
async def test_paused_flush_holds_the_commit_back(world: World) -> None:
    """With the only flush paused nothing may be acknowledged; released, everything goes on."""
    cluster = await world.start(ONE_SAFEKEEPER)
    endpoint = await cluster.endpoint("main")
    await endpoint.put(1, "a")
    safekeeper = cluster.safekeeper(0)

    async with world.faults.failpoint(safekeeper, "sk-before-flush", "pause"):
        hanging = asyncio.create_task(endpoint.put(2, "b"))

        async def paused() -> None:
            if not (await safekeeper.failpoint("sk-before-flush"))["waiting"]:
                raise NotYet("the flusher has not come to its failpoint")

        await world.eventually(paused)
        assert not hanging.done()
    await hanging
    assert await endpoint.get(2) == "b"


@pytest.mark.row("P6.actions")
async def test_process_exits_in_the_middle_of_a_flush(world: World) -> None:
    """Written and not synced, then the process is gone: its peers carry on, it comes back."""
    cluster = await world.start(Topology())
    endpoint = await cluster.endpoint("main")
    await endpoint.put(1, "a")
    safekeeper = cluster.safekeeper(1)

    await safekeeper.arm("sk-after-write", "exit")
    await endpoint.put(2, "b")
    await until_ended(world, safekeeper)
    await endpoint.put(3, "c")
    await safekeeper.start()

    await endpoint.put(4, "d")
    assert await endpoint.get(2) == "b"


@pytest.mark.row("P6.actions")
async def test_injected_disk_failures_are_life(world: World) -> None:
    """Every third flush of one safekeeper fails: it asks for an election and loses nothing."""
    cluster = await world.start(Topology())
    endpoint = await cluster.endpoint("main")
    async with world.faults.failpoint(
        cluster.safekeeper(2),
        "sk-before-flush",
        "return",
        probability=0.3,
        draw=world.settings.seed,
    ):
        async with world.load(endpoint) as load:
            await load.progress(60)
        found = await cluster.safekeeper(2).failpoint("sk-before-flush")
    assert found["fired"] > 0
