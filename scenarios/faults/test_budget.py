"""Plans cannot ask for more than the protocol promises to survive, nor for two faults of one thing.

Without a budget a red run would say nothing: any system loses data when all of its copies are gone.
"""

from __future__ import annotations

from harness.faulting.campaign import run_campaign
from harness.faulting.fault import Strike
from harness.faulting.nemesis import Fate
from harness.faulting.plan import AtTime, Plan, Step
from harness.topology import THREE_SAFEKEEPERS
from harness.world import World

STEPS = (
    Step("pause", Strike(("sk0",)), AtTime(0.2), 2.0),
    Step("kill", Strike(("sk0",)), AtTime(0.8), 0.1),
    Step("wipe", Strike(("sk1",)), AtTime(1.0), 0.1),
    Step("replace", Strike(("sk2",)), AtTime(2.5), 0.1),
    Step("older_copy", Strike(("sk0",), {"age_s": 0.1}), AtTime(3.0), 0.1),
    Step("kill", Strike(("sk0",)), AtTime(3.2), 0.1),
)
FATES = (
    (Fate.OVER, ""),
    (Fate.REFUSED, "node:sk0 is taken"),
    (Fate.OVER, ""),
    (Fate.REFUSED, "sk2 would be one lost copy too many, after sk1"),
    (Fate.REFUSED, "the copy of sk0 would lie about what it answered"),
    (Fate.OVER, ""),
)


async def test_what_breaks_the_budget_is_refused(world: World) -> None:
    """The refused steps strike nobody, the others have their effect."""
    plan = Plan("budget", THREE_SAFEKEEPERS, STEPS, 4.0, ("sk0", "sk2"))

    nemesis = await run_campaign(world, plan)

    assert tuple((record.fate, record.why) for record in nemesis.records) == FATES, str(plan)
    for record in nemesis.records:
        assert (record.effect > 0) is (record.fate is Fate.OVER), str(record)
