"""Faults around the primary: rivals, zombies, and what a dead primary sent that arrives late."""

from __future__ import annotations

import random
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from harness.endpoint_handle import EndpointHandle
from harness.errors import NodeDied, NotLive
from harness.faulting.fault import Cast, Fault, Scope, Strike, Undo
from harness.faulting.process import crash
from harness.faulting.stage import Stage

TAKEN_OVER_COMMITS = 3
TAKE_OVER_S_MAX = 20.0


def _draw_compute(cast: Cast, generator: random.Random) -> Strike:
    return Strike((cast.compute,))


def _draw_crash(cast: Cast, generator: random.Random) -> Strike:
    return Strike((cast.compute,), {"host": generator.random() < 0.5})


def _draw_late(cast: Cast, generator: random.Random) -> Strike:
    count = generator.randint(1, len(cast.safekeepers))
    return Strike((cast.compute, *sorted(generator.sample(cast.safekeepers, count))))


def _claim_primary(strike: Strike) -> tuple[str, ...]:
    return (f"node:{strike.targets[0]}",)


def _claim_late(strike: Strike) -> tuple[str, ...]:
    compute, *safekeepers = strike.targets
    return (f"node:{compute}", *(f"link:{compute}>{name}" for name in safekeepers))


@asynccontextmanager
async def _undone_when_broken_off(undo: Undo) -> AsyncIterator[None]:
    """A rivalry that is cancelled half way leaves the first primary in charge."""
    try:
        yield
    except BaseException:
        await undo()
        raise


async def _take_over(stage: Stage, old: EndpointHandle) -> EndpointHandle | None:
    """Start another compute on the timeline and send the clients there; ``None`` if it cannot."""
    try:
        rival = await stage.cluster.endpoint(
            stage.next_rival(), timeline=old.timeline, pageserver=stage.control.home
        )
    except (NotLive, NodeDied):
        return None
    for node in rival.nodes:  # The old primary may still be at an election, and win one later.
        stage.excused[node.name] = "the primary that it replaced took over again"
    stage.counts["compute.rivals"] += 1
    await stage.traffic.hand_over(rival)
    load = stage.traffic.load
    try:
        await load.progress(TAKEN_OVER_COMMITS, within_s=TAKE_OVER_S_MAX)
    except NotLive:
        return rival
    stage.counts["compute.take_overs"] += 1
    return rival


async def _give_up_claim(stage: Stage, old: EndpointHandle) -> None:
    """From now on the old primary may be deposed, must not be started, and gets no readers."""
    stage.held_down[old.name] = "a rival took over"
    for node in old.nodes:
        stage.excused[node.name] = "a rival took over"
    await stage.traffic.demote(old)


def _hand_back(stage: Stage, old: EndpointHandle) -> Undo:
    async def undo() -> None:
        for endpoint in list(stage.cluster.endpoints.values()):
            stage.held_down[endpoint.name] = "its rivalry is over"
            await stage.crash_compute(endpoint)
        if any("Deposed" in (stage.backend.died(node.name) or "") for node in old.nodes):
            stage.counts["compute.deposed"] += 1
        await stage.traffic.hand_back(old)
        # Not before: until it is the primary again, nobody tells it that the tenant moves.
        old.assign(stage.control.home)
        stage.held_down.pop(old.name, None)

    return undo


async def _crash(stage: Stage, strike: Strike) -> Undo:
    return await crash(stage, strike, host=bool(strike.options["host"]))


async def _second(stage: Stage, strike: Strike) -> Undo:
    old = stage.cluster.endpoints[strike.targets[0]]
    undo = _hand_back(stage, old)
    async with _undone_when_broken_off(undo):
        await _give_up_claim(stage, old)
        await _take_over(stage, old)
    return undo


async def _zombie(stage: Stage, strike: Strike) -> Undo:
    old = stage.cluster.endpoints[strike.targets[0]]
    undo = _hand_back(stage, old)
    async with _undone_when_broken_off(undo):
        await _give_up_claim(stage, old)
        frozen = [node for node in old.nodes if await stage.act(node, node.pause)]
        await _take_over(stage, old)
        for node in frozen:
            stage.counts["compute.zombies"] += await stage.act(node, node.resume)
    return undo


async def _late(stage: Stage, strike: Strike) -> Undo:
    name, *safekeepers = strike.targets
    old = stage.cluster.endpoints[name]
    network = stage.backend.network
    undo = _hand_back(stage, old)
    async with _undone_when_broken_off(undo):
        await _give_up_claim(stage, old)
        links = [(host, safekeeper) for host in stage.hosts(name) for safekeeper in safekeepers]
        for source, target in links:
            network.hold(source, target, both=False)
        try:
            await stage.pass_time(strike.number("sending_s"))
            await stage.crash_compute(old, host=True)
            await _take_over(stage, old)
        finally:
            for source, target in links:
                network.heal(source, target, both=False)
    return undo


COMPUTE_FAULTS = (
    Fault(
        name="compute_crash",
        scope=Scope.COMPUTE,
        what="the primary crashes, or the machine below it",
        inverse="start",
        effects=("process/{}.kills",),
        draw=_draw_crash,
        cause=_crash,
        claims=_claim_primary,
    ),
    Fault(
        name="second_compute",
        scope=Scope.COMPUTE,
        what="a second primary is started while the first one still writes",
        inverse="the second one is killed, the first one started anew",
        effects=("compute.rivals",),
        draw=_draw_compute,
        cause=_second,
        claims=_claim_primary,
    ),
    Fault(
        name="zombie",
        scope=Scope.COMPUTE,
        what="the primary freezes, is replaced, and comes back to life",
        inverse="the second one is killed, the first one started anew",
        effects=("compute.zombies",),
        draw=_draw_compute,
        cause=_zombie,
        claims=_claim_primary,
    ),
    Fault(
        name="late_delivery",
        scope=Scope.COMPUTE,
        what="WAL of a primary that is dead and replaced arrives on its old connections",
        inverse="the second one is killed, the first one started anew",
        effects=("network.bytes_held",),
        draw=lambda cast, generator: Strike(
            _draw_late(cast, generator).targets, {"sending_s": round(generator.uniform(0.01, 1), 3)}
        ),
        cause=_late,
        claims=_claim_late,
    ),
)
