"""Campaigns: faults drawn from a profile strike a cluster under load, then it must work again.

What could go wrong: anything that only a combination of faults reaches. The plan is part of every
failure; ``--plan FILE`` replays one.
"""

from __future__ import annotations

import pytest

from harness.faulting.campaign import run_campaign
from harness.faulting.profiles import draw_plan
from harness.world import World


@pytest.mark.parametrize("profile", ["calm", "lossy", "hostile", "swarm"])
async def test_campaign(world: World, profile: str) -> None:
    """Nothing acknowledged is lost whatever strikes, and a healed core serves again."""
    await run_campaign(world, draw_plan(profile, world.generator("plan")))
