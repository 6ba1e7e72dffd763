"""The least a storage system does: keep what it acknowledged."""

from __future__ import annotations

import asyncio

import pytest

from harness.topology import THREE_SAFEKEEPERS
from harness.world import World


async def test_what_is_put_is_read(world: World) -> None:
    """A value is read back through safekeepers and pageserver, the newest one wins."""
    cluster = await world.start(THREE_SAFEKEEPERS)
    endpoint = await cluster.endpoint("main")

    await endpoint.put(1, "a")
    await endpoint.put(1, "b")
    await endpoint.put(2, "c")
    await endpoint.delete(2)

    assert await endpoint.get(1) == "b"
    assert await endpoint.get(2) is None


async def test_acknowledged_commit_survives_losing_a_safekeeper(world: World) -> None:
    """A crash between the quorum's answer and the third flush must not lose the commit."""
    cluster = await world.start(THREE_SAFEKEEPERS)
    endpoint = await cluster.endpoint("main")
    await endpoint.put(1, "a")

    await cluster.safekeeper(0).kill()
    await endpoint.put(2, "b")

    assert await endpoint.get(1) == "a"
    assert await endpoint.get(2) == "b"


@pytest.mark.row("P4.waits")
@pytest.mark.row("P3.backups")
async def test_new_compute_reads_what_the_old_one_committed(world: World) -> None:
    """A compute has no durable state: after a crash its successor starts from the storage alone."""
    cluster = await world.start(THREE_SAFEKEEPERS)
    endpoint = await cluster.endpoint("main")
    for key in range(20):
        await endpoint.put(key, f"value {key}")

    await endpoint.kill()
    await endpoint.start()

    assert await endpoint.scan(0, 20) == [(key, f"value {key}") for key in range(20)]


async def test_pageserver_restart_keeps_every_page(world: World) -> None:
    """A pageserver that comes back reads its layers and the WAL it had not yet made durable."""
    cluster = await world.start(THREE_SAFEKEEPERS)
    endpoint = await cluster.endpoint("main")
    await endpoint.put(1, "before")

    await cluster.pageserver(0).kill()
    await cluster.pageserver(0).start()
    await endpoint.put(2, "after")
    await endpoint.restart()

    assert await endpoint.get(1) == "before"
    assert await endpoint.get(2) == "after"


@pytest.mark.row("P4.waits")
@pytest.mark.worlds("sim", reason="bounds a delay below the heartbeat; busy machines are later")
async def test_last_commit_of_a_burst_reaches_the_pageserver_at_once(world: World) -> None:
    """It was told to safekeepers only by the next heartbeat when it came close upon another."""
    cluster = await world.start(THREE_SAFEKEEPERS)
    endpoint = await cluster.endpoint("main")
    for burst in range(5):
        await asyncio.gather(*(endpoint.put(key, f"{burst}") for key in range(0, 640, 32)))

        await cluster.caught_up(cluster.pageserver(0), endpoint.timeline, within_s=0.2)
