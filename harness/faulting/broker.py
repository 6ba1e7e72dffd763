"""Faults of the broker: outages, lagging and half-open watches, leases that run out."""

from __future__ import annotations

from harness.backend import Ability
from harness.fault_ports import ServiceFaults
from harness.faulting.fault import Fault, Scope, Strike, Undo, claim_nothing
from harness.faulting.services import (
    Troubles,
    draw_all,
    draw_lag,
    draw_storage,
    link_cut,
    outage,
    requests,
)
from harness.faulting.stage import Stage

EVERY_KEY = "seawall/"


async def _lag(stage: Stage, strike: Strike) -> Undo:
    stage.backend.broker.lag_watches(strike.number("by_s"))

    async def end() -> None:
        stage.backend.broker.lag_watches(0.0)

    return end


async def _half_open(stage: Stage, strike: Strike) -> None:
    for target in strike.targets:
        stage.backend.broker.half_open(target)


async def _expire(stage: Stage, strike: Strike) -> None:
    stage.backend.broker.expire_leases(EVERY_KEY)


BROKER_FAULTS = (
    outage(
        Scope.BROKER,
        "the broker is away: requests fail or hang, streams break",
        ("calls_failed", "streams_broken", "connections_reset"),
    ),
    link_cut(Scope.BROKER),
    requests(
        Scope.BROKER,
        Troubles(
            "lost_replies",
            "requests time out although they took effect",
            "replies_lost",
            lambda strike: ServiceFaults(lost_reply=strike.number("chance")),
        ),
    ),
    Fault(
        name="watch_lag",
        scope=Scope.BROKER,
        what="watchers hear of changes late",
        inverse="end",
        effects=("broker.changes_lagged", "network.bytes_delayed"),
        draw=draw_lag,
        cause=_lag,
        claims=lambda strike: ("broker:watches",),
        needs=Ability.BROKER_STREAMS,
    ),
    Fault(
        name="half_open_watch",
        scope=Scope.BROKER,
        what="a node's watches fall silent until its keep-alive notices",
        inverse="",
        effects=("broker.streams_muted",),
        draw=draw_storage,
        cause=_half_open,
        claims=claim_nothing,
        needs=Ability.BROKER_STREAMS,
    ),
    Fault(
        name="lease_expiry",
        scope=Scope.BROKER,
        what="every lease runs out at once",
        inverse="",
        effects=("broker.leases_expired",),
        draw=draw_all,
        cause=_expire,
        claims=claim_nothing,
        needs=Ability.BROKER_LEASES,
    ),
)
