"""Plans stay within their budget, mean the same as JSON, and their triggers fire when they say."""

from __future__ import annotations

import json
import random

import pytest

from harness.backend import Event
from harness.errors import HarnessError
from harness.faulting.atlas import Atlas
from harness.faulting.fault import Cast, Damage, Strike
from harness.faulting.plan import AfterCommits, AtTime, OnEvent, Plan, Step
from harness.faulting.profiles import (
    PROFILES,
    RIVALRIES,
    SYSTEM_FAULTS,
    draw_event,
    draw_plan,
)
from harness.faulting.vocabulary import FAULTS, fault_of
from harness.topology import THREE_SAFEKEEPERS
from storage.marks import Mark

THREE = Cast(("sk0", "sk1", "sk2"), ("ps0",))
FIVE = Cast(("sk0", "sk1", "sk2", "sk3", "sk4"), ("ps0",))


@pytest.mark.parametrize(("cast", "losses"), [(THREE, 1), (FIVE, 2)])
def test_a_minority_of_the_safekeepers_may_lose_their_copy(cast: Cast, losses: int) -> None:
    atlas, wipe = Atlas(cast), fault_of("wipe")
    for name in cast.safekeepers[:losses]:
        assert atlas.refusal(wipe, Strike((name,))) is None
        atlas.note(wipe, Strike((name,)))

    one_more = Strike((cast.safekeepers[losses],))
    assert "one lost copy too many" in (atlas.refusal(wipe, one_more) or "")
    assert atlas.refusal(wipe, Strike((cast.safekeepers[0],))) is None, "it is lost already"
    assert atlas.refusal(wipe, Strike(("ps0",))) is None, "S3 and safekeepers have everything"
    with pytest.raises(AssertionError, match="breaks the budget"):
        atlas.note(wipe, one_more)


@pytest.mark.parametrize(
    "name", [fault.name for fault in FAULTS.values() if fault.damage is Damage.WRONG]
)
def test_no_safekeeper_may_lie_and_a_pageserver_may(name: str) -> None:
    atlas, fault = Atlas(THREE), fault_of(name)

    assert "would lie" in (atlas.refusal(fault, Strike(("sk1",))) or "")
    assert atlas.refusal(fault, Strike(("ps0",))) is None


def test_one_step_of_every_short_plan_surely_has_an_effect() -> None:
    """Found by sweeps: plans whose last kill met a node that another step had taken down."""
    short = 0
    for seed in range(200):
        plan = draw_plan("swarm", random.Random(seed))
        *others, sure = plan.steps
        assert isinstance(sure.when, AtTime)
        assert sure.when.at_s <= plan.duration_s
        struck = {target for step in others for target in step.strike.targets}
        if not struck.issuperset(plan.cast().nodes):
            short += 1
            assert struck.isdisjoint(sure.strike.targets), str(sure)
    assert short > 50


@pytest.mark.parametrize("profile", list(PROFILES))
def test_drawn_plans_are_fair_the_same_for_a_seed_and_the_same_as_json(profile: str) -> None:
    for seed in range(40):
        plan = draw_plan(profile, random.Random(seed))
        assert plan == draw_plan(profile, random.Random(seed))
        assert Plan.of_json(json.loads(json.dumps(plan.to_json()))) == plan
        names = {*plan.cast().nodes}
        for step in plan.steps:
            assert step.fault in SYSTEM_FAULTS
            assert names.issuperset(step.strike.targets), str(step)
            assert bool(step.for_s) <= fault_of(step.fault).lasting, str(step)
        assert len(plan.core) == len(plan.cast().safekeepers) // 2 + 1


def test_plans_wait_for_every_rare_state_and_strike_where_it_is_reached() -> None:
    """A fault just after a rare state, on the node that reached it, is seldom met by chance."""
    cast = Cast(("sk0", "sk1", "sk2"), ("ps0",))
    events = [draw_event(cast, random.Random(seed), "ps0") for seed in range(2000)]
    events += [draw_event(cast, random.Random(seed), "sk1") for seed in range(2000)]
    marks = {(event.node, event.where["name"]) for event in events if event.kind == "mark"}

    waited = {mark for mark in Mark if not mark.value.startswith(("walproposer", "compute"))}
    assert {name for _, name in marks} == {mark.label for mark in waited}
    assert {node for node, _ in marks} == {"ps0", "sk1"}
    assert all(
        ("safekeeper" if node == "sk1" else "pageserver") in Mark[name.upper()].value
        for node, name in marks
    )


def test_every_consensus_plan_has_a_rivalry_to_draw_and_no_pageserver_alone() -> None:
    rivalries = members = 0
    for seed in range(200):
        plan = draw_plan("consensus", random.Random(seed))
        drawn = plan.steps[:-1]
        rivalries += any(step.fault in RIVALRIES for step in drawn)
        members += plan.topology.safekeepers == 5
        for step in drawn:
            assert len(step.strike.targets) > 2 or "ps0" not in step.strike.targets, str(step)
    assert rivalries > 140
    assert 70 < members < 130


def test_no_profile_has_what_no_system_must_survive() -> None:
    unfair = [fault.name for fault in FAULTS.values() if fault.unfair]

    assert unfair == ["object_store_stale_list"]
    assert not set(unfair) & set(SYSTEM_FAULTS)


def test_what_is_no_plan_and_no_fault_is_named() -> None:
    with pytest.raises(HarnessError, match="no fault 'earthquake'; there are: fragmentation"):
        fault_of("earthquake")
    with pytest.raises(HarnessError, match="no profile 'wild'; there are: calm"):
        draw_plan("wild", random.Random(1))
    with pytest.raises(HarnessError, match="this is no plan: KeyError: 'topology'"):
        Plan.of_json({})


def test_slow_motion_multiplies_times_and_leaves_what_is_logical() -> None:
    logical = (AfterCommits(3), OnEvent("term", "sk0"))
    steps = tuple(
        Step("hold", Strike(("sk0", "ps0")), when, 0.5) for when in (AtTime(1.0), *logical)
    )
    plan = Plan("x", THREE_SAFEKEEPERS, steps, 4.0, ("sk0", "sk1")).stretched(3.0)

    assert [step.when for step in plan.steps] == [AtTime(3.0), *logical]
    assert {step.for_s for step in plan.steps} == {1.5}
    assert plan.duration_s == 12.0


def flushed(value: int, node: str = "sk2") -> Event:
    return Event(1.0, node, "lsn", {"name": "flush_lsn", "value": value})


@pytest.mark.parametrize(
    ("event", "term", "fires"),
    [
        (flushed(100), 3, True),
        (flushed(101), 4, True),
        (flushed(99), 3, False),
        (flushed(100), 2, False),
        (flushed(100, "sk1"), 3, False),
        (Event(1.0, "sk2", "lsn", {"name": "commit_lsn", "value": 100}), 3, False),
        (Event(1.0, "sk2", "vote", {"name": "flush_lsn", "value": 100}), 3, False),
        (Event(1.0, "sk2", "lsn", {"name": "flush_lsn"}), 3, False),
    ],
)
def test_a_trigger_wants_node_field_position_and_term(event: Event, term: int, fires: bool) -> None:
    trigger = OnEvent("lsn", "sk2", where={"name": "flush_lsn"}, at_least={"value": 100}, term=3)

    assert trigger.matches(event, term) is fires
