"""Plans that Hypothesis draws: the system survives them, and a failure shrinks to its cause."""

import random

import pytest
from hypothesis import HealthCheck, find, given, settings

from harness.faulting.plan import Plan
from harness.faulting.strategies import check_plan, plans
from harness.topology import TWO_PAGESERVERS

CRASHES = ("kill", "kill_host", "pause", "hold", "migrate")


@given(plan=plans(TWO_PAGESERVERS, CRASHES, steps_max=3))
@settings(max_examples=3, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
def test_crashes_and_migrations_lose_nothing(plan: Plan) -> None:
    """Each example is a campaign of its own, in a fresh simulation."""
    check_plan(plan)


@pytest.mark.parametrize("name", ["older_copy", "migrate", "kill"])
@pytest.mark.parametrize("seed", range(3))
def test_what_fails_shrinks_to_one_step(name: str, seed: int) -> None:
    """A failure that one kind of fault causes is shown with that fault alone."""
    found = find(
        plans(),
        lambda plan: any(step.fault == name for step in plan.steps),
        settings=settings(max_examples=1000, database=None, deadline=None),
        random=random.Random(seed),
    )

    assert [step.fault for step in found.steps] == [name]
