"""Two of three safekeepers die: nothing is acknowledged, and nothing acknowledged is lost."""

from __future__ import annotations

import asyncio

import pytest

from harness.topology import THREE_SAFEKEEPERS
from harness.world import World


@pytest.mark.row("P1.commit")
async def test_no_quorum_no_commit(world: World) -> None:
    """A commit without a quorum would be lost with the last safekeeper."""
    cluster = await world.start(THREE_SAFEKEEPERS)
    endpoint = await cluster.endpoint("main")
    await endpoint.put(1, "a")

    await cluster.safekeeper(0).kill()
    await cluster.safekeeper(1).kill()
    hanging = asyncio.create_task(endpoint.put(2, "b"))
    done, _ = await asyncio.wait([hanging], timeout=3.0)
    assert not done

    await cluster.safekeeper(0).start()
    await hanging
    assert await endpoint.get(1) == "a"
    assert await endpoint.get(2) == "b"
