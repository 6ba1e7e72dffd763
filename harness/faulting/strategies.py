"""Hypothesis strategies of plans, for tests that compose ``@given``; needs the dev extra.

Shrinking leaves out steps first and then simplifies what is left, as ``harness minimise`` does.
:func:`check_plan` is the body of such a test (see docs/faults.md).
"""

from __future__ import annotations

import functools
import random

from hypothesis import reject
from hypothesis import strategies as st

from harness import composition
from harness.faulting.campaign import run_campaign
from harness.faulting.fault import Cast, Fault
from harness.faulting.plan import AfterCommits, AtTime, OnEvent, Plan, Step, Trigger
from harness.faulting.profiles import SYSTEM_FAULTS, draw_event
from harness.faulting.vocabulary import fault_of
from harness.runner import Inconclusive, WorldRunner
from harness.topology import THREE_SAFEKEEPERS, Topology
from harness.transactions import WORKLOADS
from harness.verdict import RunSettings
from harness.world import World

DURATION_S = 6.0
SEEDS = st.integers(0, 2**32 - 1)


def triggers(cast: Cast, duration_s: float = DURATION_S) -> st.SearchStrategy[Trigger]:
    """Moments: a time within the plan, a number of commits, or something that a node reports."""
    at_time = st.floats(0.0, duration_s, allow_nan=False).map(lambda at_s: AtTime(round(at_s, 3)))
    return at_time | st.integers(1, 200).map(AfterCommits) | events(cast)


def events(cast: Cast) -> st.SearchStrategy[OnEvent]:
    """Reports of nodes, such as a position that is reached in a term."""
    return SEEDS.map(lambda seed: draw_event(cast, random.Random(seed)))


@st.composite
def steps(draw: st.DrawFn, cast: Cast, faults: tuple[Fault, ...]) -> Step:
    """A fault of the list, struck somewhere in the cast.

    Few choices make a step: Hypothesis leaves out at most five at once, one of which is the list's.
    """
    fault = draw(st.sampled_from(faults))
    generator = random.Random(draw(SEEDS))
    strike = fault.draw(cast, generator)
    length_s = round(generator.uniform(0.05, 4.0), 3) if fault.lasting else 0.0
    return Step(fault.name, strike, draw(triggers(cast)), length_s)


@st.composite
def plans(
    draw: st.DrawFn,
    topology: Topology = THREE_SAFEKEEPERS,
    names: tuple[str, ...] = SYSTEM_FAULTS,
    *,
    steps_max: int = 6,
) -> Plan:
    """Plans for a topology, of the faults that are named: by default, of all it must survive."""
    cast = Plan("hypothesis", topology, (), DURATION_S, ()).cast()
    faults = tuple(fault_of(name) for name in names)
    drawn = draw(st.lists(steps(cast, faults), min_size=1, max_size=steps_max))
    majority = len(cast.safekeepers) // 2 + 1
    return Plan(
        profile="hypothesis",
        topology=topology,
        steps=tuple(drawn),
        duration_s=DURATION_S,
        core=cast.safekeepers[:majority],
        clients=draw(st.sampled_from((1, 2, 4))),
        kill_rest=draw(st.booleans()),
        workload=draw(st.sampled_from(WORKLOADS)),
    )


def check_plan(plan: Plan, *, seed: int = 0) -> None:
    """Carry a plan out in a fresh simulation; raises what the run found.

    A plan of which nothing came about is rejected: it is no example of anything.
    """

    async def campaign(world: World) -> None:
        await run_campaign(world, plan)

    result = _simulation().run(campaign, RunSettings("sim", "walgen", seed))
    if isinstance(result.error, Inconclusive):
        reject()
    if result.error is not None:
        raise result.error


@functools.cache
def _simulation() -> WorldRunner:
    return composition.worlds()["sim"]()
