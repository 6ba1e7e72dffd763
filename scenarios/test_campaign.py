"""Campaigns: faults drawn from a profile strike a cluster under load, then it must work again.

What could go wrong: anything that only a combination of faults reaches. A failure shows the plan;
``--plan FILE`` carries a saved one out, ``python -m harness minimise`` makes one smaller.
"""

from __future__ import annotations

import pytest

from harness.faulting.campaign import plan_for, run_campaign
from harness.world import World


@pytest.mark.computes("walgen", reason="restarts of PostgreSQL take longer than the faults last")
@pytest.mark.parametrize("profile", ["calm", "lossy", "hostile", "swarm", "transactions"])
async def test_campaign(world: World, profile: str) -> None:
    """Nothing acknowledged is lost whatever strikes, and a healed core serves again."""
    await run_campaign(world, plan_for(world, profile))
