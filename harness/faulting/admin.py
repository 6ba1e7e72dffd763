"""Faults of those who administer: migrations in bad moments, repeated and abandoned requests."""

from __future__ import annotations

import asyncio
import random
from contextlib import suppress

from harness.faulting.control_plane import ASKING
from harness.faulting.fault import Cast, Damage, Fault, Scope, Strike, claim_nodes
from harness.faulting.stage import Stage
from harness.nodes import PageserverHandle

MIGRATION_S_MAX = 20.0
DELETION_S_MAX = 5.0


def _draw_target(cast: Cast, generator: random.Random) -> Strike:
    return Strike((generator.choice(cast.pageservers),))


def _claim_tenant(strike: Strike) -> tuple[str, ...]:
    return ("tenant",)


async def _migrate(stage: Stage, strike: Strike) -> None:
    """Change the control plane's mind; what it cannot do while this lasts, it does later."""
    stage.control.move_to(stage.pageserver(strike.targets[0]))
    try:
        async with asyncio.timeout(MIGRATION_S_MAX):
            await stage.control.settled.wait()
    except TimeoutError:
        return
    stage.counts["admin.migrations"] += 1


async def _ask(stage: Stage, node: PageserverHandle, path: str) -> None:
    try:
        await node.http("POST", path)
    except ASKING:
        stage.counts["admin.requests_failed"] += 1
    else:
        stage.counts["admin.requests_answered"] += 1


def _paths(stage: Stage) -> list[str]:
    timeline = stage.traffic.primary.timeline
    tenant = f"/tenant/{timeline.tenant_id}"
    return [f"{tenant}/attach", f"{tenant}/timeline/{timeline.timeline_id}/checkpoint"]


async def _repeat(stage: Stage, strike: Strike) -> None:
    target = stage.control.home
    for path in _paths(stage):
        for _ in range(int(strike.number("times"))):
            await _ask(stage, target, path)


async def _concurrent(stage: Stage, strike: Strike) -> None:
    target = stage.control.home
    paths = _paths(stage) * int(strike.number("times"))
    await asyncio.gather(*(_ask(stage, target, path) for path in paths))


async def _abandon(stage: Stage, strike: Strike) -> None:
    target = stage.control.home
    for path in _paths(stage) * int(strike.number("times")):
        try:
            async with asyncio.timeout(strike.number("patience_s")):
                await _ask(stage, target, path)
        except TimeoutError:
            stage.counts["admin.requests_abandoned"] += 1


def _draw_member(cast: Cast, generator: random.Random) -> Strike:
    return Strike((generator.choice(cast.safekeepers),))


async def _delete_copy(stage: Stage, strike: Strike) -> None:
    """Delete the timeline on a member, whatever that is doing; from then on it refuses it."""
    timeline = stage.traffic.primary.timeline
    stage.world.expect_log("was deleted", reason="its timeline was deleted on a member")
    for safekeeper in stage.cluster.safekeepers:
        if safekeeper.name in strike.targets:
            stage.note_emptied(safekeeper.name)
            with suppress(*ASKING):
                async with asyncio.timeout(DELETION_S_MAX):
                    await safekeeper.delete_timeline(timeline)
                stage.counts["admin.copies_deleted"] += 1


def _draw_times(cast: Cast, generator: random.Random) -> Strike:
    patience_s = round(10 ** generator.uniform(-4, -1), 6)
    return Strike((), {"times": generator.randint(2, 5), "patience_s": patience_s})


ADMIN_FAULTS = (
    Fault(
        name="migrate",
        scope=Scope.ADMIN,
        what="the tenant moves to another pageserver, or half of the way",
        inverse="",
        effects=("admin.migrations", "admin.requests_failed"),
        draw=_draw_target,
        cause=_migrate,
        claims=_claim_tenant,
    ),
    Fault(
        name="delete_copy",
        scope=Scope.ADMIN,
        what="the timeline is deleted on one member, for good",
        inverse="",
        effects=("admin.copies_deleted",),
        draw=_draw_member,
        cause=_delete_copy,
        claims=claim_nodes,
        damage=Damage.LOST,
    ),
    Fault(
        name="repeat_requests",
        scope=Scope.ADMIN,
        what="requests to the pageserver's API are repeated",
        inverse="",
        effects=("admin.requests_answered",),
        draw=_draw_times,
        cause=_repeat,
        claims=_claim_tenant,
    ),
    Fault(
        name="concurrent_requests",
        scope=Scope.ADMIN,
        what="the same requests come at once",
        inverse="",
        effects=("admin.requests_answered",),
        draw=_draw_times,
        cause=_concurrent,
        claims=_claim_tenant,
    ),
    Fault(
        name="abandon_requests",
        scope=Scope.ADMIN,
        what="requests are sent and their clients hang up",
        inverse="",
        effects=("admin.requests_abandoned",),
        draw=_draw_times,
        cause=_abandon,
        claims=_claim_tenant,
    ),
)
