"""A pageserver's disk puts what it is told to write elsewhere, so that layers rot as they are made.

What could go wrong: a spoilt layer spreads to S3, or keeps everything behind it from S3 for ever;
compaction stands still. The WAL is still there, so the layers are made again.
"""

from __future__ import annotations

import pytest

from harness.backend import Ability
from harness.collecting import SMALL_LAYERS
from harness.errors import NotYet
from harness.fault_ports import DiskFault
from harness.faulting.control_plane import ASKING
from harness.topology import Topology
from harness.workload import LoadOptions
from harness.world import World
from storage.lsn import Lsn
from storage.marks import Mark

LIES = 6
RAN_INTO_DAMAGE = (
    r"is not what was written|fails its checksum|is no layer of format|holds the layer"
)


@pytest.mark.row("P4.layers")
@pytest.mark.computes("walgen", reason="PostgreSQL takes seconds to start, and layers rot alike")
async def test_layers_that_rot_are_made_again(world: World) -> None:
    """After each lie everything reaches S3 again, and whatever is read is right."""
    world.needs(Ability.DISK_FAULTS)
    world.expect_log(RAN_INTO_DAMAGE, reason="its disk lies", node="ps0")
    world.expect_refusal(RAN_INTO_DAMAGE, reason="a layer is spoilt and not yet made again")
    chance = world.generator("rot")
    cluster = await world.start(Topology(pageserver_options=SMALL_LAYERS))
    home = cluster.pageserver(0)
    primary = await cluster.endpoint("main")
    disk = world.backend.disk(home.name)

    wanted: Lsn | None = None

    async def ended_up_in_s3() -> None:
        if world.faults.effects().get(f"disk/{home.name}.writes_misdirected", 0) < lies:
            raise NotYet("no write was misdirected")
        try:
            remote = (await home.timeline(primary.timeline)).remote_consistent_lsn
        except ASKING as error:
            raise NotYet("the tenant is attached anew") from error
        if wanted is None or remote < wanted:
            raise NotYet(f"{remote} of {wanted} is in S3")

    async with world.load(primary, LoadOptions(clients=2, keys=64, retry_s=0.05)) as load:
        for lies in range(1, LIES + 1):
            disk.arm(DiskFault.MISDIRECTED_WRITE)
            await load.progress(chance.randint(1, 40))
            wanted = await primary.txn({chance.randrange(64): f"after {lies}"})
            await world.eventually(ended_up_in_s3, within_s=60, what="a way around the damage")
    marks = {event.fields["name"] for event in world.backend.observations() if event.kind == "mark"}
    assert Mark.ATTACHED_ANEW.label in marks
