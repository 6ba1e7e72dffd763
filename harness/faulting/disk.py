"""Faults of disks: what a lost machine loses, calls that fail, lie or hang, and altered copies.

Which copies may be damaged is for the atlas to say; faults that a node must survive are drawn for
every storage node, those that make a copy lie for pageservers only.
"""

from __future__ import annotations

import random

from harness.backend import Ability
from harness.fault_ports import DiskFault, Loss
from harness.faulting.fault import (
    Cast,
    Damage,
    Fault,
    Scope,
    Strike,
    Undo,
    claim_disks,
    claim_nodes,
)
from harness.faulting.process import crash, replace
from harness.faulting.stage import Stage

_DATA_OR_NAMES = ("bytes_lost", "names_lost")
"""A file that loses its name takes its bytes along uncounted, such as a control file half saved."""
DISK_ERRORS = r"input/output error|no space left on|injected: E"


def _draw_storage(cast: Cast, generator: random.Random) -> Strike:
    return Strike((generator.choice(cast.storage),))


def _draw_times(cast: Cast, generator: random.Random) -> Strike:
    return Strike((generator.choice(cast.storage),), {"times": generator.randint(1, 5)})


def _draw_lying(cast: Cast, generator: random.Random) -> Strike:
    return Strike((generator.choice(cast.pageservers),), {"times": generator.randint(1, 5)})


def _draw_free(cast: Cast, generator: random.Random) -> Strike:
    free = generator.choice((0, 100, 10_000, 100_000))
    return Strike((generator.choice(cast.storage),), {"free_bytes": free})


def _draw_older(cast: Cast, generator: random.Random) -> Strike:
    age_s = round(generator.uniform(0.1, 3.0), 3)
    return Strike((generator.choice(cast.pageservers),), {"age_s": age_s})


def _draw_dirty(cast: Cast, generator: random.Random) -> Strike:
    """For how long syncs hang before the crash, so that there is something to lose."""
    dirty_s = round(10 ** generator.uniform(-2.5, 0), 4)
    return Strike((generator.choice(cast.storage),), {"dirty_s": dirty_s})


def _draw_slow(cast: Cast, generator: random.Random) -> Strike:
    """From a busy device to one that is about to fail."""
    by_s = round(10 ** generator.uniform(-3.3, -1.0), 5)
    return Strike((generator.choice(cast.storage),), {"by_s": by_s})


def _claim_both(strike: Strike) -> tuple[str, ...]:
    return (*claim_nodes(strike), *claim_disks(strike))


def _loss(loss: Loss, name: str, what: str, *counters: str) -> Fault:
    async def cause(stage: Stage, strike: Strike) -> Undo:
        dirty_s = strike.number("dirty_s", 0.0)
        disks = [stage.backend.disk(target) for target in strike.targets] if dirty_s else []
        for disk in disks:
            disk.stall(syncs_only=True)
        try:
            await stage.pass_time(dirty_s)
            return await crash(stage, strike, host=True, loss=loss)
        finally:
            for disk in disks:
                disk.resume()

    return Fault(
        name=name,
        scope=Scope.DISK,
        what=what,
        inverse="start",
        effects=tuple(f"disk/{{}}.{counter}" for counter in counters),
        draw=_draw_dirty,
        cause=cause,
        claims=_claim_both,
        needs=Ability.LOSE_UNSYNCED_DATA,
    )


def _failing(fault: DiskFault, name: str, what: str) -> Fault:
    """Calls fail as disks do; nodes must survive it or end, and come back by themselves."""

    async def cause(stage: Stage, strike: Strike) -> Undo:
        for target in strike.targets:
            stage.excuse(target, complaints=DISK_ERRORS, reason="its disk fails")
            stage.backend.disk(target).arm(fault, times=int(strike.number("times")))

        async def disarm() -> None:
            for target in strike.targets:
                stage.backend.disk(target).disarm()

        return disarm

    return Fault(
        name=name,
        scope=Scope.DISK,
        what=what,
        inverse="disarm",
        effects=("disk/{}.calls_failed",),
        draw=_draw_times,
        cause=cause,
        claims=claim_disks,
        needs=Ability.DISK_FAULTS,
    )


def _lying(fault: DiskFault, name: str, what: str, counter: str) -> Fault:
    """Calls succeed and do something else; the node may notice or not, and is replaced at last."""

    async def cause(stage: Stage, strike: Strike) -> Undo:
        for target in strike.targets:
            stage.distrust(target, reason="its disk lies")
            stage.backend.disk(target).arm(fault, times=int(strike.number("times")))
        return _replace(stage, strike)

    return Fault(
        name=name,
        scope=Scope.DISK,
        what=what,
        inverse="replace the node by an empty one",
        effects=(f"disk/{{}}.{counter}",),
        draw=_draw_lying,
        cause=cause,
        claims=_claim_both,
        needs=Ability.DISK_FAULTS,
        damage=Damage.WRONG,
    )


def _replace(stage: Stage, strike: Strike) -> Undo:
    async def renew() -> None:
        for target in strike.targets:
            stage.backend.disk(target).disarm()
        start = await replace(stage, strike)
        await start()

    return renew


async def _fill(stage: Stage, strike: Strike) -> Undo:
    for target in strike.targets:
        stage.excuse(target, complaints=DISK_ERRORS, reason="its disk is full")
        stage.backend.disk(target).fill(int(strike.number("free_bytes")))

    async def free() -> None:
        for target in strike.targets:
            stage.backend.disk(target).fill(None)

    return free


async def _stall(stage: Stage, strike: Strike) -> Undo:
    for target in strike.targets:
        stage.backend.disk(target).stall()

    async def resume() -> None:
        for target in strike.targets:
            stage.backend.disk(target).resume()

    return resume


async def _slow(stage: Stage, strike: Strike) -> Undo:
    for target in strike.targets:
        stage.backend.disk(target).slow(strike.number("by_s"))

    async def speed_up() -> None:
        for target in strike.targets:
            stage.backend.disk(target).slow(0.0)

    return speed_up


async def _rot(stage: Stage, strike: Strike) -> Undo:
    """Bits rot while the machine is off, so that no page cache hides it; then it comes back."""
    start = await crash(stage, strike, host=True)
    for target in strike.targets:
        stage.distrust(target, reason="its disk rots")
        stage.backend.disk(target).rot_some(str(strike.options["part"]))
    await start()
    return _replace(stage, strike)


async def _older_copy(stage: Stage, strike: Strike) -> Undo:
    """Take a copy now, let time pass, and bring the machine back with the copy."""
    undo = await crash(stage, strike, host=False)
    copies = {target: stage.backend.disk(target).snapshot() for target in strike.targets}
    await undo()
    await stage.pass_time(strike.number("age_s"))
    undo = await crash(stage, strike, host=True)
    for target, copy in copies.items():
        stage.backend.disk(target).restore(copy)
        stage.counts[f"disk/{target}.older_copies"] += 1
        stage.control.forgot(target)
    return undo


DISK_FAULTS = (
    _loss(Loss.EVERYTHING, "lose_unsynced", "all that was not synced is lost", *_DATA_OR_NAMES),
    _loss(
        Loss.RANDOM,
        "lose_per_file",
        "each file and name that was not synced has its own luck",
        *_DATA_OR_NAMES,
    ),
    _loss(Loss.SIZES, "lose_sizes", "sizes that were not synced are lost", "sizes_lost"),
    _loss(Loss.NAMES, "lose_names", "renames and new files not synced are lost", "names_lost"),
    _loss(Loss.TORN, "tear_writes", "of the last write some sectors survive", "writes_torn"),
    _failing(DiskFault.EIO, "disk_error", "calls fail with EIO"),
    _failing(DiskFault.ENOSPC, "no_space", "calls find no space"),
    _lying(DiskFault.SHORT_READ, "short_read", "reads end early", "reads_shortened"),
    _lying(DiskFault.DROPPED_SYNC, "drop_syncs", "syncs do nothing", "syncs_dropped"),
    _lying(
        DiskFault.MISDIRECTED_WRITE,
        "misdirect_writes",
        "writes land elsewhere in the file",
        "writes_misdirected",
    ),
    Fault(
        name="disk_full",
        scope=Scope.DISK,
        what="few bytes are free, for a while",
        inverse="free",
        effects=("disk/{}.writes_refused",),
        draw=_draw_free,
        cause=_fill,
        claims=claim_disks,
        needs=Ability.DISK_FAULTS,
    ),
    Fault(
        name="disk_stall",
        scope=Scope.DISK,
        what="no call returns",
        inverse="resume",
        effects=("disk/{}.calls_stalled",),
        draw=_draw_storage,
        cause=_stall,
        claims=_claim_both,
        needs=Ability.DISK_FAULTS,
    ),
    Fault(
        name="disk_slow",
        scope=Scope.DISK,
        what="every call takes longer",
        inverse="full speed",
        effects=("disk/{}.calls_slowed",),
        draw=_draw_slow,
        cause=_slow,
        claims=claim_disks,
        needs=Ability.DISK_FAULTS,
    ),
    Fault(
        name="bit_rot",
        scope=Scope.DISK,
        what="a bit of a file flips while the machine is off",
        inverse="replace the node by an empty one",
        effects=("disk/{}.bits_flipped",),
        draw=lambda cast, generator: Strike((generator.choice(cast.pageservers),), {"part": ""}),
        cause=_rot,
        claims=_claim_both,
        needs=Ability.DISK_COPIES,
        damage=Damage.WRONG,
    ),
    Fault(
        name="older_copy",
        scope=Scope.DISK,
        what="the machine comes back with an older copy of its disk",
        inverse="start",
        effects=("disk/{}.older_copies",),
        draw=_draw_older,
        cause=_older_copy,
        claims=_claim_both,
        needs=Ability.DISK_COPIES,
        damage=Damage.WRONG,
    ),
)
