"""Campaigns of consensus: short swarms of whatever confuses proposers and their safekeepers.

Rivals and zombies, late packets on old connections, members that lose what they did not sync, three
members or five. After "Swarm Testing" (Groce et al., ISSTA 2012) and the schedules of Neon's
``walproposer_sim``, which had one proposer, three members and disks that lose nothing.
"""

from __future__ import annotations

from harness.faulting.campaign import LIVE_WITHIN_S, Campaign, carry_out, plan_for
from harness.faulting.liveness import Liveness
from harness.faulting.nemesis import Nemesis
from harness.faulting.stage import Stage
from harness.world import World

PROFILE = "consensus"
PAGES_MAX = 8
"""Page versions to compare: pageservers are the business of other campaigns."""


async def run_consensus_campaign(world: World) -> Nemesis:
    """A plan of profile ``consensus`` in a fresh world; see :func:`campaign.run_campaign`."""
    plan = plan_for(world, PROFILE)
    world.pages_max = PAGES_MAX
    return await carry_out(world, plan, ConsensusCampaign(world, plan))


class ConsensusCampaign(Campaign):
    """One run of a plan. Unless the plan kills the rest, everything is healed at once, and what
    follows is about members only: most of a run's time should go to its faults."""

    async def _recover(self, stage: Stage, nemesis: Nemesis) -> None:
        if self.plan.kill_rest:
            await super()._recover(stage, nemesis)
            return
        await nemesis.heal()
        liveness = Liveness(stage, nemesis, LIVE_WITHIN_S)
        await liveness.commits_flow()
        await liveness.safekeepers_agree(self.plan.cast().safekeepers)
