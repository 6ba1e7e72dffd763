"""Plans that Hypothesis draws: the system survives them, and a failure shrinks to its cause."""

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


def test_what_fails_shrinks_to_one_step() -> None:
    """A failure that one kind of fault causes is shown with that fault alone."""
    found = find(plans(), lambda plan: any(step.fault == "older_copy" for step in plan.steps))

    assert [step.fault for step in found.steps] == ["older_copy"]
