"""Campaigns: faults drawn from a profile strike a cluster under load, then it must work again.

What could go wrong: anything that only a combination of faults reaches. A failure shows the plan;
``--plan FILE`` carries a saved one out, ``python -m harness minimise`` makes one smaller.
"""

from __future__ import annotations

import pytest

from harness.faulting.campaign import plan_for, run_campaign
from harness.world import World


@pytest.mark.computes("walgen", reason="PostgreSQL, which takes seconds to start, has fewer below")
@pytest.mark.parametrize("profile", ["calm", "lossy", "hostile", "swarm", "transactions"])
async def test_campaign(world: World, profile: str) -> None:
    """Nothing acknowledged is lost whatever strikes, and a healed core serves again."""
    await run_campaign(world, plan_for(world, profile))


@pytest.mark.computes("postgres", reason="the same on walgen is above")
@pytest.mark.parametrize("profile", ["calm", "swarm"])
async def test_campaign_on_postgresql(world: World, profile: str) -> None:
    """The same of a primary that is two processes: an unmodified PostgreSQL and its proposer."""
    await run_campaign(world, plan_for(world, profile))
