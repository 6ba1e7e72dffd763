"""Faults of the shared services: S3 and the broker."""

from __future__ import annotations

import random

from harness.faulting.fault import Cast, Fault, Scope, Strike, Undo
from harness.faulting.stage import Stage


def _draw_all(cast: Cast, generator: random.Random) -> Strike:
    return Strike()


def _claim_object_store(strike: Strike) -> tuple[str, ...]:
    return ("object_store",)


def _claim_broker(strike: Strike) -> tuple[str, ...]:
    return ("broker",)


async def _object_store_outage(stage: Stage, strike: Strike) -> Undo:
    switch = stage.backend.object_store
    switch.outage()

    async def restore() -> None:
        switch.restore()

    return restore


async def _broker_outage(stage: Stage, strike: Strike) -> Undo:
    switch = stage.backend.broker
    switch.outage()

    async def restore() -> None:
        switch.restore()

    return restore


SERVICE_FAULTS = (
    Fault(
        name="object_store_outage",
        scope=Scope.OBJECT_STORE,
        what="S3 is away: requests fail or hang",
        inverse="restore",
        effects=("object_store.calls_failed", "object_store.calls_cut"),
        draw=_draw_all,
        cause=_object_store_outage,
        claims=_claim_object_store,
    ),
    Fault(
        name="broker_outage",
        scope=Scope.BROKER,
        what="the broker is away: requests fail or hang, streams break",
        inverse="restore",
        effects=("broker.calls_failed", "broker.streams_broken", "broker.connections_reset"),
        draw=_draw_all,
        cause=_broker_outage,
        claims=_claim_broker,
    ),
)
