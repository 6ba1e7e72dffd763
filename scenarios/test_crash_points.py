"""A pageserver dies at each step of what administrators and background work do, and comes back.

It comes back on its disk, on an empty one, or another pageserver takes over; whatever was half done
is done or undone as a whole, the same request again succeeds, and no acknowledged row is missing.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from contextlib import suppress

import pytest

from harness.cluster import Cluster
from harness.collecting import SMALL_LAYERS
from harness.endpoint_handle import EndpointHandle
from harness.errors import NotYet
from harness.faulting.control_plane import ASKING
from harness.nodes import PageserverHandle
from harness.patience import HttpError, when_ready
from harness.topology import Topology
from harness.world import World
from storage.ids import TenantTimelineId, TimelineId

WALGEN_ONLY = pytest.mark.computes("walgen", reason="PostgreSQL tells no LSN to branch at")

ROWS = {key: f"row {key}" for key in range(0, 400, 20)}


class Stage:
    """A tenant on ``ps0`` with a primary and idle branches; what is asked again and again."""

    def __init__(self, cluster: Cluster, primary: EndpointHandle) -> None:
        self.cluster = cluster
        self.world = cluster.world
        self.primary = primary
        self.home = cluster.pageserver(0)
        self.tenant_id = primary.timeline.tenant_id
        self.new = TenantTimelineId(self.tenant_id, TimelineId("ab" * 16))
        self.doomed = TenantTimelineId(self.tenant_id, TimelineId("cd" * 16))

    async def branch(self) -> None:
        """Make a branch."""
        await self.home.branch(self.primary.timeline, self.new.timeline_id)

    async def delete(self) -> None:
        """Delete a branch that nobody uses; that it is gone already is as good."""
        try:
            await self.home.delete_timeline(self.doomed)
        except HttpError as error:
            if error.status != 404:
                raise

    async def collect(self) -> None:
        """Everything that makes and removes layers, and has something to do."""
        for round_number in range(3):
            await self.primary.txn({key: f"{round_number}" for key in ROWS})
            await self.home.checkpoint(self.primary.timeline)
            await self.home.compact(self.primary.timeline)
        await self.home.collect_garbage(self.primary.timeline)

    async def attach(self) -> None:
        """Attach where it is not, or join its attachment."""
        await self.home.attach(self.tenant_id)
        if await self.home.tenant_state(self.tenant_id) != "Active":
            raise NotYet("it is still attaching")

    async def detach_and_attach(self) -> None:
        """Detach, and attach again; that it was detached already is as good."""
        try:
            await self.home.detach(self.tenant_id)
        except HttpError as error:
            if error.status != 404:
                raise
        await self.attach()


Step = Callable[[Stage], Awaitable[None]]

CRASHES: dict[str, Step] = {
    "ps-branch-chosen": Stage.branch,
    "ps-timeline-stored": Stage.branch,
    "ps-timeline-loaded": Stage.branch,
    "ps-deletion-begun": Stage.delete,
    "ps-deletion-stored": Stage.delete,
    "ps-deletion-forgotten": Stage.delete,
    "ps-gc-planned": Stage.collect,
    "ps-gc-durable": Stage.collect,
    "ps-gc-replaced": Stage.collect,
    "ps-compaction-written": Stage.collect,
    "ps-compaction-replaced": Stage.collect,
    "ps-flush-written": Stage.collect,
    "ps-layer-uploaded": Stage.collect,
    "ps-index-uploaded": Stage.collect,
    "ps-detach-stopped": Stage.detach_and_attach,
    "ps-detach-noted": Stage.detach_and_attach,
    "ps-attach-noted": Stage.detach_and_attach,
    "ps-attach-claimed": Stage.detach_and_attach,
    "ps-attach-loaded": Stage.detach_and_attach,
}
"""Where the process exits, and what was asked of it."""


async def until_dead(stage: Stage, step: Step) -> None:
    """Ask until the pageserver has come to its failpoint and is gone."""

    async def dead() -> None:
        with suppress(*ASKING):
            await step(stage)
        if stage.home.running:
            raise NotYet(f"{stage.home.name} has not come to its failpoint")

    await stage.world.eventually(dead, within_s=60, what="the failpoint")


async def come_back(stage: Stage, how: str) -> None:
    """Restart, re-attach elsewhere, and wipe-and-attach are three different things."""
    dead = stage.home
    if how == "elsewhere":
        stage.home = stage.cluster.pageserver(1)
    else:
        if how == "wiped":
            await dead.wipe()
        await dead.start()
    await stage.world.eventually(lambda: attached(stage, how), within_s=60)
    for timeline in stage.cluster.timelines:
        await stage.cluster.caught_up(stage.home, timeline)
    await stage.primary.move(stage.home)


async def attached(stage: Stage, how: str) -> None:
    """``NotYet`` until the tenant is active where it lives now; a restart needs no request if it
    was attached there."""
    try:
        if how == "restarted" and await known(stage.home, stage):
            return
        await stage.attach()
    except ASKING as error:
        raise NotYet(str(error)) from error


async def known(pageserver: PageserverHandle, stage: Stage) -> bool:
    """Whether the tenant is attached there; ``NotYet`` while it is attaching."""
    try:
        state = await pageserver.tenant_state(stage.tenant_id)
    except HttpError as error:
        if error.status == 404:
            return False
        raise
    if state != "Active":
        raise NotYet(f"the tenant is {state}")
    return True


@pytest.mark.row("D3.failed")
@WALGEN_ONLY
@pytest.mark.parametrize("point", CRASHES)
async def test_crash_point(world: World, point: str) -> None:
    """The process exits at one step; the request is repeated until it is answered."""
    how = world.generator("crash").choice(["restarted", "wiped", "elsewhere"])
    cluster = await world.start(
        Topology(pageservers=2, pageserver_options={**SMALL_LAYERS, "lease_length_s": 0.5})
    )
    primary = await cluster.endpoint("main")
    await primary.txn(ROWS)
    await cluster.caught_up(cluster.pageserver(0), primary.timeline)
    idle = await cluster.branch(primary.timeline)
    stage = Stage(cluster, primary)
    await stage.home.branch(primary.timeline, stage.doomed.timeline_id)

    await stage.home.arm(point, "exit")
    await until_dead(stage, CRASHES[point])
    await come_back(stage, how)

    await when_ready(world, stage.branch)
    await when_ready(world, stage.delete)
    await when_ready(world, stage.collect)
    assert (await stage.home.timeline(stage.new)).state == "Active"
    with pytest.raises(HttpError, match="not_found"):
        await stage.home.timeline(stage.doomed)
    branch = await cluster.endpoint("branch", timeline=idle, pageserver=stage.home)
    assert dict(await branch.scan(0, 400)) == ROWS
    await primary.restart()
