"""Faults of S3: errors, answers that get lost, effects that come late, and no credentials."""

from __future__ import annotations

from harness.backend import Ability
from harness.fault_ports import ServiceFaults
from harness.faulting.fault import Fault, Scope, Strike, Undo
from harness.faulting.services import (
    Troubles,
    draw_all,
    draw_lag,
    draw_slow,
    draw_storage,
    link_cut,
    outage,
    requests,
)
from harness.faulting.stage import Stage


async def _slow_deletes(stage: Stage, strike: Strike) -> Undo:
    stage.backend.object_store.slow_deletes(strike.number("by_s"))

    async def end() -> None:
        stage.backend.object_store.slow_deletes(0.0)

    return end


async def _freeze_listings(stage: Stage, strike: Strike) -> Undo:
    stage.backend.object_store.freeze_listings()

    async def thaw() -> None:
        stage.backend.object_store.thaw_listings()

    return thaw


async def _deny(stage: Stage, strike: Strike) -> Undo:
    for target in strike.targets:
        stage.backend.object_store.deny(target)

    async def allow() -> None:
        for target in strike.targets:
            stage.backend.object_store.allow(target)

    return allow


OBJECT_STORE_FAULTS = (
    outage(
        Scope.OBJECT_STORE,
        "S3 is away: requests fail or hang",
        ("calls_failed", "calls_cut", "connections_reset"),
    ),
    link_cut(Scope.OBJECT_STORE),
    requests(
        Scope.OBJECT_STORE,
        Troubles(
            "errors",
            "requests are answered 500 InternalError, half of them although they took effect",
            "errors_answered",
            lambda strike: ServiceFaults(failed=strike.number("chance")),
        ),
    ),
    requests(
        Scope.OBJECT_STORE,
        Troubles(
            "slow_down",
            "requests are answered 503 SlowDown and do nothing",
            "calls_failed",
            lambda strike: ServiceFaults(refused=strike.number("chance")),
        ),
    ),
    requests(
        Scope.OBJECT_STORE,
        Troubles(
            "lost_replies",
            "requests time out although they took effect",
            "replies_lost",
            lambda strike: ServiceFaults(lost_reply=strike.number("chance")),
        ),
    ),
    requests(
        Scope.OBJECT_STORE,
        Troubles(
            "late_effects",
            "requests time out and take effect later, behind newer ones",
            "calls_postponed",
            lambda strike: ServiceFaults(late=strike.number("chance"), late_s=5.0),
        ),
    ),
    requests(
        Scope.OBJECT_STORE,
        Troubles(
            "slow",
            "requests take long, and so overtake each other",
            "calls_slowed",
            lambda strike: ServiceFaults(
                slow=strike.number("chance"), slow_s=strike.number("slow_s")
            ),
            draw=draw_slow,
        ),
    ),
    requests(
        Scope.OBJECT_STORE,
        Troubles(
            "failing_list",
            "listings fail",
            "listings_failed",
            lambda strike: ServiceFaults(failing_list=strike.number("chance")),
        ),
    ),
    Fault(
        name="object_store_stale_list",
        scope=Scope.OBJECT_STORE,
        what="listings go on telling what they told first",
        inverse="thaw",
        effects=("object_store.listings_stale",),
        draw=draw_all,
        cause=_freeze_listings,
        claims=lambda strike: ("object_store:listings",),
        needs=Ability.OBJECT_STORE_FAULTS,
        unfair="listings are strongly consistent, as S3's are since December 2020",
    ),
    Fault(
        name="object_store_slow_deletes",
        scope=Scope.OBJECT_STORE,
        what="deletes take long",
        inverse="end",
        effects=("object_store.deletes_slowed",),
        draw=draw_lag,
        cause=_slow_deletes,
        claims=lambda strike: ("object_store:deletes",),
        needs=Ability.OBJECT_STORE_FAULTS,
    ),
    Fault(
        name="object_store_credentials",
        scope=Scope.OBJECT_STORE,
        what="one node has wrong credentials",
        inverse="allow",
        effects=("object_store.calls_denied",),
        draw=draw_storage,
        cause=_deny,
        claims=lambda strike: tuple(f"object_store:{target}" for target in strike.targets),
        needs=Ability.CREDENTIALS,
    ),
)
