"""Faults of processes and machines: crashes, stops, freezes, and disks that come back otherwise."""

from __future__ import annotations

import dataclasses
import random
from functools import partial

from harness.fault_ports import Loss
from harness.faulting.fault import Cast, Damage, Fault, Scope, Strike, Undo, claim_nodes
from harness.faulting.stage import Stage
from harness.nodes import NodeHandle

NEW_ID_STEP = 100
"""What sets the id of a machine apart from that of the one it replaces."""


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
        for node in stage.machine(target):
            if await stage.act(node, partial(node.kill, host=host, loss=loss)):
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
            for node in stage.machine(target):
                if await stage.act(node, node.stop):
                    stage.counts[f"process/{target}.stops"] += 1
        except BaseException:
            stage.held_down.pop(target)
            raise
    return _up_again(stage, strike)


async def _restart(stage: Stage, strike: Strike) -> None:
    start = await _stop(stage, strike)
    await start()


async def _pause(stage: Stage, strike: Strike) -> Undo:
    frozen: list[NodeHandle] = []
    for target in strike.targets:
        for node in stage.machine(target):
            if await stage.act(node, node.pause):
                frozen.append(node)
                stage.counts[f"process/{target}.pauses"] += 1

    async def resume() -> None:
        for node in frozen:
            await stage.act(node, node.resume)

    return resume


async def _wipe_disks(stage: Stage, strike: Strike) -> None:
    for target in strike.targets:
        await stage.handle(target).wipe()
        stage.note_emptied(target)
        stage.counts[f"process/{target}.wipes"] += 1


async def _wipe(stage: Stage, strike: Strike) -> Undo:
    """Crash every target and erase its disk."""
    undo = await crash(stage, strike, host=False)
    await _wipe_disks(stage, strike)
    return undo


async def replace(stage: Stage, strike: Strike) -> Undo:
    """Put a machine of the same name, an empty disk and a new id in place of every target; it is
    down until the undo."""
    undo = await crash(stage, strike, host=True)
    await _wipe_disks(stage, strike)
    for target in strike.targets:
        handle = stage.handle(target)
        options = handle.spec.options
        renumbered = {**options, "node_id": options["node_id"] + NEW_ID_STEP}
        handle.spec = dataclasses.replace(handle.spec, options=renumbered)
        stage.counts[f"process/{target}.replacements"] += 1
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
        name="restart",
        scope=Scope.NODE,
        what="the process is asked to end and started again at once",
        inverse="",
        effects=("process/{}.stops",),
        draw=_draw_storage,
        cause=_restart,
        claims=claim_nodes,
    ),
    Fault(
        name="wipe",
        scope=Scope.NODE,
        what="the process crashes and its disk is erased",
        inverse="start",
        effects=("process/{}.wipes",),
        draw=_draw_storage,
        cause=_wipe,
        claims=claim_nodes,
        damage=Damage.LOST,
    ),
    Fault(
        name="replace",
        scope=Scope.NODE,
        what="the machine dies for good; one with a new id and an empty disk takes its name",
        inverse="start",
        effects=("process/{}.replacements",),
        draw=_draw_storage,
        cause=replace,
        claims=claim_nodes,
        damage=Damage.LOST,
    ),
)
