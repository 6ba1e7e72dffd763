"""Faults of wall clocks: no promise may depend on them, only what people read."""

from __future__ import annotations

import random

from harness.backend import Ability
from harness.fault_ports import NodeClock
from harness.faulting.fault import Cast, Fault, Scope, Strike, Undo
from harness.faulting.stage import Stage

TOLD_WRONG = ("clock/{}.times_told_wrong",)


def _draw_jump(cast: Cast, generator: random.Random) -> Strike:
    by_us = round(generator.choice((-1, 1)) * 10 ** generator.uniform(3, 10.5))
    return Strike((generator.choice(cast.nodes),), {"by_us": by_us})


def _draw_drift(cast: Cast, generator: random.Random) -> Strike:
    ppm = round(generator.uniform(-500_000, 500_000), 1)
    return Strike((generator.choice(cast.nodes),), {"ppm": ppm})


def _claim_clocks(strike: Strike) -> tuple[str, ...]:
    return tuple(f"clock:{target}" for target in strike.targets)


def _clocks(stage: Stage, strike: Strike) -> list[NodeClock]:
    return [stage.backend.clock(host) for each in strike.targets for host in stage.hosts(each)]


async def _offset(stage: Stage, strike: Strike) -> Undo:
    by_us = int(strike.number("by_us"))
    for clock in _clocks(stage, strike):
        clock.jump(by_us)

    async def set_right() -> None:
        for clock in _clocks(stage, strike):
            clock.jump(-by_us)

    return set_right


async def _jump(stage: Stage, strike: Strike) -> None:
    for clock in _clocks(stage, strike):
        clock.jump(int(strike.number("by_us")))


async def _drift(stage: Stage, strike: Strike) -> Undo:
    for clock in _clocks(stage, strike):
        clock.drift(strike.number("ppm"))

    async def set_right() -> None:
        for clock in _clocks(stage, strike):
            clock.drift(0.0)

    return set_right


CLOCK_FAULTS = (
    Fault(
        name="clock_offset",
        scope=Scope.CLOCK,
        what="a wall clock is set wrong for a while",
        inverse="set right",
        effects=TOLD_WRONG,
        draw=_draw_jump,
        cause=_offset,
        claims=_claim_clocks,
        needs=Ability.CLOCK_FAULTS,
    ),
    Fault(
        name="clock_jump",
        scope=Scope.CLOCK,
        what="a wall clock leaps forward or back, and goes on from there",
        inverse="",
        effects=("clock/{}.clock_jumps",),
        draw=_draw_jump,
        cause=_jump,
        claims=_claim_clocks,
        needs=Ability.CLOCK_FAULTS,
    ),
    Fault(
        name="clock_drift",
        scope=Scope.CLOCK,
        what="a wall clock runs fast or slow",
        inverse="right speed",
        effects=TOLD_WRONG,
        draw=_draw_drift,
        cause=_drift,
        claims=_claim_clocks,
        needs=Ability.CLOCK_FAULTS,
    ),
)
