"""Faults at named places of node code: a crash just there, a failure of what is asked there, a
delay. What chance needs thousands of seeds for, the middle of a cut or of an upload, they meet.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable
from contextlib import suppress
from typing import Any

from harness.backend import Event
from harness.faulting.control_plane import ASKING
from harness.faulting.fault import Cast, Fault, Scope, Strike, Undo, claim_nodes
from harness.faulting.process import crash
from harness.faulting.stage import Stage
from storage.failpoints import Failpoint

ROLES = {"sk": "safekeepers", "ps": "pageservers"}
ARMING_S_MAX = 1.0
WAITS_S_MAX = 5.0
"""How long a crash waits for its victim to come by."""
COMPLAINTS = r"injected by a failpoint"


def _draw_place(cast: Cast, generator: random.Random) -> tuple[str, str]:
    """A node and a place in the code of its role; both roles are drawn as often."""
    prefix = generator.choice(tuple(ROLES))
    node = generator.choice(getattr(cast, ROLES[prefix]))
    places = [point.value for point in Failpoint if point.value.startswith(f"{prefix}-")]
    return node, generator.choice(places)


def _draw_crash(cast: Cast, generator: random.Random) -> Strike:
    node, place = _draw_place(cast, generator)
    # Where a node comes by once in a while, only the first time comes about.
    skip = generator.choice((0, int(10 ** generator.uniform(0, 1.5)) - 1))
    return Strike((node,), {"place": place, "skip": skip, "host": generator.random() < 0.5})


def _draw_failure(cast: Cast, generator: random.Random) -> Strike:
    node, place = _draw_place(cast, generator)
    return Strike((node,), {"place": place, "times": generator.randint(1, 5)})


def _draw_delay(cast: Cast, generator: random.Random) -> Strike:
    node, place = _draw_place(cast, generator)
    delay_s = round(10 ** generator.uniform(-2.5, 0.3), 4)
    return Strike((node,), {"place": place, "delay_s": delay_s})


class _Armed:
    """A failpoint of a node that may come by it; counts how often it did."""

    def __init__(self, stage: Stage, strike: Strike) -> None:
        self._stage = stage
        self._node = stage.handle(strike.targets[0])
        self._place = str(strike.options["place"])
        self.came = asyncio.get_running_loop().create_future()
        self._unfollow: Callable[[], None] = stage.backend.follow(self._note)

    def _note(self, event: Event) -> None:
        ours = event.kind == "failpoint" and event.fields["name"] == self._place
        if ours and event.node == self._node.name:
            self._stage.counts[f"failpoint/{self._node.name}.fired"] += 1
            if not self.came.done():
                self.came.set_result(None)

    async def arm(self, action: str, **plan: Any) -> None:
        """Arm it, if the node can hear of it."""
        with suppress(*ASKING):
            async with asyncio.timeout(ARMING_S_MAX):
                await self._node.arm(self._place, action, **plan)

    async def disarm(self) -> None:
        """Let the node alone, and whoever waits there go on."""
        self._unfollow()
        with suppress(*ASKING):
            async with asyncio.timeout(ARMING_S_MAX):
                if self._node.running:
                    await self._node.disarm(self._place)


async def _crash(stage: Stage, strike: Strike) -> Undo:
    """Whoever comes to the place stays there until its process, or its machine, is gone."""
    armed = _Armed(stage, strike)
    try:
        await armed.arm("pause", skip=int(strike.number("skip")), count=1)
        await asyncio.wait([armed.came], timeout=WAITS_S_MAX)
        if armed.came.done():
            return await crash(stage, strike, host=bool(strike.options["host"]))
    finally:
        await armed.disarm()

    async def nothing() -> None:
        """Nobody came."""

    return nothing


async def _fail(stage: Stage, strike: Strike) -> Undo:
    stage.excuse(strike.targets[0], complaints=COMPLAINTS, reason="what it asks for fails")
    armed = _Armed(stage, strike)
    await armed.arm("return", count=int(strike.number("times")))
    return armed.disarm


async def _delay(stage: Stage, strike: Strike) -> Undo:
    armed = _Armed(stage, strike)
    await armed.arm("sleep", delay_s=strike.number("delay_s"))
    return armed.disarm


FIRED = ("failpoint/{}.fired",)
PLACE_FAULTS = (
    Fault(
        name="crash_at",
        scope=Scope.NODE,
        what="the process or its machine dies at a named place of its code",
        inverse="start",
        effects=FIRED,
        draw=_draw_crash,
        cause=_crash,
        claims=claim_nodes,
    ),
    Fault(
        name="fail_at",
        scope=Scope.NODE,
        what="what is asked for at a named place of the code fails",
        inverse="disarm",
        effects=FIRED,
        draw=_draw_failure,
        cause=_fail,
        claims=claim_nodes,
    ),
    Fault(
        name="slow_at",
        scope=Scope.NODE,
        what="whoever comes to a named place of the code is slow there",
        inverse="disarm",
        effects=FIRED,
        draw=_draw_delay,
        cause=_delay,
        claims=claim_nodes,
    ),
)
