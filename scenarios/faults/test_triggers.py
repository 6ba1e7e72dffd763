"""Faults that wait for something to happen strike after it and not before.

A fault that strikes at another moment than its plan says would test something else.
"""

from __future__ import annotations

from harness.backend import Event
from harness.faulting.campaign import run_campaign
from harness.faulting.fault import Strike
from harness.faulting.nemesis import Fate
from harness.faulting.plan import AfterCommits, AtTime, OnEvent, Plan, Step
from harness.topology import KIB, MIB, THREE_SAFEKEEPERS
from harness.world import World

TERM = 3
REACHED = MIB + 4 * KIB
CRASH = Strike(("main",), {"host": False})
FLUSHED = OnEvent("lsn", "sk2", where={"name": "flush_lsn"}, at_least={"value": REACHED}, term=TERM)
STEPS = (
    Step("compute_crash", CRASH, AtTime(0.2), 0.1),
    Step("compute_crash", CRASH, OnEvent("elected", where={"term": TERM - 1}), 0.1),
    Step("pause", Strike(("sk2",)), FLUSHED, 0.5),
    Step("reset", Strike(("main", "sk0")), AfterCommits(5)),
)
DURATION_S = {"walgen": 10.0, "postgres": 25.0}
"""PostgreSQL takes seconds to start."""
LATE_S_MAX = {"sim": 0.0, "real": 3.0}
"""Reports of real processes are read from files, and machines are busy."""


async def test_safekeeper_is_paused_once_it_flushed_so_much_in_a_term(world: World) -> None:
    """The term comes with the third primary, the position with its first commits."""
    core = ("sk0", "sk1", "sk2")
    plan = Plan("triggers", THREE_SAFEKEEPERS, STEPS, DURATION_S[world.settings.compute], core)

    nemesis = await run_campaign(world, plan)

    assert [record.fate for record in nemesis.records] == [Fate.OVER] * len(STEPS), str(plan)
    assert nemesis.records[2].effect == 1
    events = [event for event in world.backend.events() if event.node in ("sk2", "harness")]
    paused = next(n for n, event in enumerate(events) if event.fields.get("verb") == "pause")
    cause = next(number for number, event in enumerate(events) if is_cause(event, events[:number]))
    late_s = events[paused].at_s - events[cause].at_s
    assert 0 <= late_s <= LATE_S_MAX[world.name], f"{events[cause]}, then {events[paused]}"


def is_cause(event: Event, before: list[Event]) -> bool:
    """Whether this is what the pause waits for: the position, and the term before it."""
    if event.kind != "lsn" or event.fields["name"] != "flush_lsn" or event.node != "sk2":
        return False
    terms = [number(each, "term") for each in before if each.kind == "term" and each.node == "sk2"]
    return max(terms, default=0) >= TERM and number(event, "value") >= REACHED


def number(event: Event, name: str) -> int:
    """A field of an event that is a number."""
    value = event.fields[name]
    assert isinstance(value, int), f"{event} has no number {name}"
    return value
