"""A pageserver is lost with its disk: S3 and the safekeepers together have everything.

What only its disk had would be gone: a layer that was never uploaded but counted as remote, an
index that names what is not there, WAL that safekeepers dropped too early.
"""

from __future__ import annotations

import pytest

from harness.loss import lose_and_reattach
from harness.topology import TWO_PAGESERVERS
from harness.world import World


@pytest.mark.row("P4.index")
@pytest.mark.row("A1.serves")
@pytest.mark.parametrize("home", [0, 1], ids=["same-node", "other-node"])
async def test_lost_pageserver(world: World, home: int) -> None:
    """Everything written before and after a checkpoint is read through an empty pageserver."""
    cluster = await world.start(TWO_PAGESERVERS)
    endpoint = await cluster.endpoint("main")
    lost = cluster.pageserver(0)
    async with world.load(endpoint) as load:
        await load.progress(40)
        await lost.checkpoint(endpoint.timeline)
        await load.progress(40)
    await endpoint.put(1, "newest")

    await lose_and_reattach(cluster, lost, cluster.pageserver(home))

    assert await endpoint.get(1) == "newest"
    await endpoint.put(1, "and on")
