"""Swarms on consensus: several proposers at once, three members or five, disks that lose data.

What could go wrong: two leaders of one term, an acknowledged commit that a later leader does not
have, a log that is not the prefix of another, a cluster that never elects anybody again. Thousands
of seeds are cheap here: ``python -m harness sweep`` tells how many wrote while faults lasted.
"""

from __future__ import annotations

import pytest

from harness.faulting.consensus import run_consensus_campaign
from harness.world import World


@pytest.mark.computes("walgen", reason="PostgreSQL takes seconds to start, time and again")
async def test_consensus_swarm(world: World) -> None:
    """Faults drawn for proposers and members strike; then a leader is elected, and all agree."""
    await run_consensus_campaign(world)
