"""A safekeeper whose control file is damaged must not start as if it had promised nothing."""

from __future__ import annotations

import pytest

from harness.backend import Ability
from harness.errors import NodeDied
from harness.topology import THREE_SAFEKEEPERS
from harness.world import World


@pytest.mark.row("E5.corrupt")
async def test_damaged_control_file_is_refused_by_name(world: World) -> None:
    """Skipping it silently would forget votes: two leaders of one term. Nothing is served before
    everything is loaded."""
    world.needs(Ability.DISK_COPIES)
    reason = "its control file is damaged on purpose"
    world.expect_log(r"CorruptData: .*safekeeper\.control", reason=reason, node="sk0")
    cluster = await world.start(THREE_SAFEKEEPERS)
    endpoint = await cluster.endpoint("main")
    await endpoint.put(1, "before")
    damaged = cluster.safekeeper(0)
    await damaged.stop()
    disk = world.backend.disk("sk0")
    image = disk.snapshot()

    assert disk.rot_some("safekeeper.control")
    with pytest.raises(NodeDied) as refused:
        await damaged.start()
    await endpoint.put(2, "two of three go on")

    assert "safekeeper.control: " in str(refused.value)
    assert f"{endpoint.timeline.timeline_id}" in str(refused.value)
    with pytest.raises(ConnectionError):
        await damaged.timeline(endpoint.timeline)
    disk.restore(image)
    await damaged.start()
    await cluster.safekeeper(1).stop()
    await endpoint.put(3, "it takes part again")
    assert await endpoint.get(2) == "two of three go on"
    await cluster.safekeeper(1).start()
