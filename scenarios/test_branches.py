"""Branches and replicas: each sees its own past, however the others go on.

A branch that saw later writes of its parent, or a replica that moved on, would show a state that
never was.
"""

from __future__ import annotations

import pytest

from harness.topology import THREE_SAFEKEEPERS
from harness.world import World

WALGEN_ONLY = pytest.mark.computes("walgen", reason="PostgreSQL tells no LSN to branch at")


@pytest.mark.row("P4.branches")
@WALGEN_ONLY
async def test_branch_and_parent_go_separate_ways(world: World) -> None:
    """A branch at an LSN has what was committed up to it, and then only its own writes."""
    cluster = await world.start(THREE_SAFEKEEPERS)
    parent = await cluster.endpoint("main")
    await parent.txn({key: f"old {key}" for key in range(8)})
    lsn = await parent.put(1, "at the branch point")
    await parent.put(2, "later in the parent")

    child = await cluster.endpoint("child", timeline=await cluster.branch(parent.timeline, at=lsn))
    assert await child.get(1) == "at the branch point"
    assert await child.get(2) == "old 2"

    async with world.load(parent) as in_parent, world.load(child) as in_child:
        await in_parent.progress(30)
        await in_child.progress(30)
    await child.put(3, "in the child")
    await child.restart()

    assert await child.get(3) == "in the child"
    assert await parent.get(3) == "old 3"


@pytest.mark.row("P3.pagestream")
@WALGEN_ONLY
async def test_replica_stays_at_its_lsn(world: World) -> None:
    """A replica pinned to an LSN answers as of it while the primary goes on."""
    cluster = await world.start(THREE_SAFEKEEPERS)
    primary = await cluster.endpoint("main")
    lsn = await primary.txn({1: "a", 2: "b"})
    assert lsn is not None
    replica = await cluster.replica("replica", lsn, of=primary)

    async with world.load(primary) as load:
        await load.progress(30)
        await primary.txn({1: "c", 2: None})
        assert await replica.scan(0, 10) == [(1, "a"), (2, "b")]

    assert await replica.get(1) == "a"
    assert await primary.get(2) is None
