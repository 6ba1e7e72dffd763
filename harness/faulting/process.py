"""Faults of processes and machines: crashes, stops, freezes, and disks that come back otherwise."""

from __future__ import annotations

import random

from harness.fault_ports import Loss
from harness.faulting.fault import Cast, Damage, Fault, Scope, Strike, Undo, claim_nodes
from harness.faulting.stage import Stage


def _draw_node(cast: Cast, generator: random.Random) -> Strike:
    return Strike((generator.choice(cast.nodes),))


def _draw_storage(cast: Cast, generator: random.Random) -> Strike:
    return Strike((generator.choice(cast.storage),))


def _up_again(stage: Stage, strike: Strike) -> Undo:
    async def start() -> None:
        for target in strike.targets:
            stage.held_down.pop(target, None)

    return start


async def crash(stage: Stage, strike: Strike, *, host: bool, loss: Loss = Loss.RANDOM) -> Undo:
    """Kill every target that runs; the supervisor may start it again after the undo."""
    for target in strike.targets:
        stage.held_down[target] = "killed"
        if stage.running(target):
            await stage.handle(target).kill(host=host, loss=loss)
            stage.counts[f"process/{target}.kills"] += 1
            if stage.is_compute(target):
                stage.traffic.break_off(target)
    return _up_again(stage, strike)


async def _kill(stage: Stage, strike: Strike) -> Undo:
    return await crash(stage, strike, host=False)


async def _kill_host(stage: Stage, strike: Strike) -> Undo:
    return await crash(stage, strike, host=True)


async def _stop(stage: Stage, strike: Strike) -> Undo:
    for target in strike.targets:
        stage.held_down[target] = "stopped"
        try:
            if stage.running(target):
                await stage.handle(target).stop()
                stage.counts[f"process/{target}.stops"] += 1
        except BaseException:
            stage.held_down.pop(target)
            raise
    return _up_again(stage, strike)


async def _pause(stage: Stage, strike: Strike) -> Undo:
    frozen = [target for target in strike.targets if stage.running(target)]
    for target in frozen:
        await stage.handle(target).pause()
        stage.counts[f"process/{target}.pauses"] += 1

    async def resume() -> None:
        for target in frozen:
            if stage.running(target):
                await stage.handle(target).resume()

    return resume


async def empty(stage: Stage, strike: Strike) -> Undo:
    """Replace every target by a node of the same name with an empty disk, down until the undo."""
    undo = await crash(stage, strike, host=True)
    for target in strike.targets:
        await stage.handle(target).wipe()
        stage.note_emptied(target)
        stage.counts[f"process/{target}.wipes"] += 1
    return undo


PROCESS_FAULTS = (
    Fault(
        name="kill",
        scope=Scope.NODE,
        what="the process crashes; its peers see connections reset",
        inverse="start",
        effects=("process/{}.kills",),
        draw=_draw_node,
        cause=_kill,
        claims=claim_nodes,
    ),
    Fault(
        name="kill_host",
        scope=Scope.NODE,
        what="the machine dies: unsynced data may be lost, peers see silence",
        inverse="start",
        effects=("process/{}.kills",),
        draw=_draw_node,
        cause=_kill_host,
        claims=claim_nodes,
    ),
    Fault(
        name="stop",
        scope=Scope.NODE,
        what="the process is asked to end",
        inverse="start",
        effects=("process/{}.stops",),
        draw=_draw_storage,
        cause=_stop,
        claims=claim_nodes,
    ),
    Fault(
        name="pause",
        scope=Scope.NODE,
        what="the process freezes with its connections open",
        inverse="resume",
        effects=("process/{}.pauses",),
        draw=_draw_node,
        cause=_pause,
        claims=claim_nodes,
    ),
    Fault(
        name="wipe",
        scope=Scope.NODE,
        what="the node is replaced by an empty one of the same name",
        inverse="start",
        effects=("process/{}.wipes",),
        draw=_draw_storage,
        cause=empty,
        claims=claim_nodes,
        damage=Damage.LOST,
    ),
)
