"""Faults of the shared services: S3 and the broker, for all nodes or for one."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass

from harness.backend import Ability
from harness.fault_ports import NO_FAULTS, ServiceFaults
from harness.faulting.fault import Cast, Draw, Fault, Scope, Strike, Undo
from harness.faulting.network import CUT_EFFECTS
from harness.faulting.stage import Stage

SERVICES = {Scope.OBJECT_STORE: "object_store", Scope.BROKER: "broker"}


def draw_all(cast: Cast, generator: random.Random) -> Strike:
    """Nobody in particular."""
    return Strike()


def draw_storage(cast: Cast, generator: random.Random) -> Strike:
    """One storage node."""
    return Strike((generator.choice(cast.storage),))


def draw_chance(cast: Cast, generator: random.Random) -> Strike:
    """A chance per request."""
    return Strike((), {"chance": round(generator.uniform(0.05, 1.0), 2)})


def draw_slow(cast: Cast, generator: random.Random) -> Strike:
    """A chance per request, and how long it takes."""
    slow_s = round(10 ** generator.uniform(-1, 1.2), 2)
    return Strike((), {"chance": round(generator.uniform(0.05, 1.0), 2), "slow_s": slow_s})


def draw_lag(cast: Cast, generator: random.Random) -> Strike:
    """How much later."""
    return Strike((), {"by_s": round(10 ** generator.uniform(-1, 1.3), 2)})


@dataclass(frozen=True)
class Troubles:
    """What goes wrong with single requests: ``effect`` is the counter, ``faults`` the chances."""

    name: str
    what: str
    effect: str
    faults: Callable[[Strike], ServiceFaults]
    draw: Draw = draw_chance


def outage(scope: Scope, what: str, effects: tuple[str, ...]) -> Fault:
    """The whole service is away."""

    async def cause(stage: Stage, strike: Strike) -> Undo:
        switch = stage.service(SERVICES[scope])
        switch.outage()

        async def restore() -> None:
            switch.restore()

        return restore

    service = SERVICES[scope]
    return Fault(
        name=f"{service}_outage",
        scope=scope,
        what=what,
        inverse="restore",
        effects=tuple(f"{service}.{name}" for name in effects),
        draw=draw_all,
        cause=cause,
        claims=lambda strike: (service,),
    )


def link_cut(scope: Scope) -> Fault:
    """One node cannot reach the service."""
    service = SERVICES[scope]

    async def cause(stage: Stage, strike: Strike) -> Undo:
        switch = stage.service(service)
        for target in strike.targets:
            switch.cut(target)

        async def heal() -> None:
            for target in strike.targets:
                switch.heal(target)

        return heal

    counters = ("requests_lost", "calls_cut", "replies_lost", "streams_broken")
    return Fault(
        name=f"{service}_out_of_sight",
        scope=scope,
        what=f"one node loses sight of the {service.replace('_', ' ')}",
        inverse="heal",
        effects=(*(f"{service}.{name}" for name in counters), *CUT_EFFECTS),
        draw=draw_storage,
        cause=cause,
        claims=lambda strike: tuple(f"{service}:{target}" for target in strike.targets),
        needs=Ability.SERVICE_LINKS,
    )


def requests(scope: Scope, troubles: Troubles) -> Fault:
    """Single requests go wrong, by chance."""
    service = SERVICES[scope]

    async def cause(stage: Stage, strike: Strike) -> Undo:
        switch = stage.service(service)
        switch.inject(troubles.faults(strike))

        async def end() -> None:
            switch.inject(NO_FAULTS)

        return end

    is_broker = scope is Scope.BROKER
    return Fault(
        name=f"{service}_{troubles.name}",
        scope=scope,
        what=troubles.what,
        inverse="end",
        effects=(f"{service}.{troubles.effect}",),
        draw=troubles.draw,
        cause=cause,
        claims=lambda strike: (service,),
        needs=Ability.BROKER_REQUESTS if is_broker else Ability.OBJECT_STORE_FAULTS,
    )
