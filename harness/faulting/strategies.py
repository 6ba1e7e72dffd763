"""Hypothesis strategies of plans, for tests that compose ``@given``; needs the dev extra.

Shrinking leaves out steps first and then simplifies what is left, as ``harness minimise`` does.
"""

from __future__ import annotations

import random

from hypothesis import strategies as st

from harness.faulting.fault import Cast, Fault
from harness.faulting.plan import AfterCommits, AtTime, Plan, Step, Trigger
from harness.faulting.vocabulary import FAULTS
from harness.topology import THREE_SAFEKEEPERS, Topology
from harness.transactions import WORKLOADS

DURATION_S = 6.0
SEEDS = st.integers(0, 2**32 - 1)


def triggers(duration_s: float = DURATION_S) -> st.SearchStrategy[Trigger]:
    """Moments: a time within the plan, or a number of commits."""
    at_time = st.floats(0.0, duration_s, allow_nan=False).map(lambda at_s: AtTime(round(at_s, 3)))
    return at_time | st.integers(1, 200).map(AfterCommits)


@st.composite
def steps(draw: st.DrawFn, cast: Cast, faults: tuple[Fault, ...]) -> Step:
    """A fault of the list, struck somewhere in the cast."""
    fault = draw(st.sampled_from(faults))
    strike = fault.draw(cast, random.Random(draw(SEEDS)))
    length_s = round(draw(st.floats(0.05, 4.0)), 3) if fault.lasting else 0.0
    return Step(fault.name, strike, draw(triggers()), length_s)


@st.composite
def plans(
    draw: st.DrawFn,
    topology: Topology = THREE_SAFEKEEPERS,
    names: tuple[str, ...] = tuple(FAULTS),
    *,
    steps_max: int = 6,
) -> Plan:
    """Plans for a topology, of the faults that are named."""
    cast = Plan("hypothesis", topology, (), DURATION_S, ()).cast()
    faults = tuple(FAULTS[name] for name in names)
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
