"""Faults of links: partitions of every shape, holds, delays, resets, and what datagrams suffer."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from harness.backend import Ability
from harness.fault_ports import CALM, LinkFaults
from harness.faulting.fault import Cast, Draw, Fault, Scope, Strike, Undo, claim_nothing
from harness.faulting.stage import Stage

Direction = tuple[str, str]

HEAL = "heal"
CUT_EFFECTS = ("network.bytes_cut", "network.packets_cut", "network.connections_cut")
DELAY_EFFECTS = (
    "network.messages_delayed",
    "network.bytes_delayed",
    "network.connections_delayed",
)


def busy_link(cast: Cast, generator: random.Random) -> Direction:
    """A direction that carries traffic: compute ↔ storage, or safekeeper ↔ pageserver."""
    safekeeper, pageserver = (
        generator.choice(cast.safekeepers),
        generator.choice(cast.pageservers),
    )
    pair = generator.choice(
        [(cast.compute, safekeeper), (cast.compute, pageserver), (safekeeper, pageserver)]
    )
    return pair if generator.random() < 0.5 else (pair[1], pair[0])


def _draw_link(cast: Cast, generator: random.Random) -> Strike:
    return Strike(busy_link(cast, generator))


def _draw_delay(cast: Cast, generator: random.Random) -> Strike:
    seconds = round(10 ** generator.uniform(-2.5, 0.7), 4)
    return Strike(busy_link(cast, generator), {"delay_s": seconds})


def _draw_isolated(cast: Cast, generator: random.Random) -> Strike:
    node = generator.choice(cast.nodes)
    return Strike((node, *(other for other in cast.nodes if other != node)))


def _draw_halves(cast: Cast, generator: random.Random) -> Strike:
    """``targets``: every node; the first ``size`` of them are one side."""
    nodes = list(cast.nodes)
    generator.shuffle(nodes)
    return Strike(tuple(nodes), {"size": generator.randint(1, len(nodes) - 1)})


def _draw_ring(cast: Cast, generator: random.Random) -> Strike:
    nodes = list(cast.nodes)
    generator.shuffle(nodes)
    return Strike(tuple(nodes))


def _directions_of_link(strike: Strike) -> list[Direction]:
    source, target = strike.targets
    return [(source, target)]


def _directions_of_both(strike: Strike) -> list[Direction]:
    source, target = strike.targets
    return [(source, target), (target, source)]


def _directions_of_isolation(strike: Strike) -> list[Direction]:
    node, *others = strike.targets
    return [pair for other in others for pair in ((node, other), (other, node))]


def _directions_of_halves(strike: Strike) -> list[Direction]:
    size = int(strike.number("size"))
    one, other = strike.targets[:size], strike.targets[size:]
    return [pair for a in one for b in other for pair in ((a, b), (b, a))]


def _directions_of_ring(strike: Strike) -> list[Direction]:
    """Each node reaches a majority (Jepsen's majorities-ring), and no two the same one."""
    nodes = strike.targets
    reach = len(nodes) // 2 // 2
    apart: list[Direction] = []
    for number, node in enumerate(nodes):
        for distance in range(reach + 1, len(nodes) - reach):
            apart.append((node, nodes[(number + distance) % len(nodes)]))
    return apart


def _claims(directions: Iterable[Direction]) -> tuple[str, ...]:
    return tuple(f"link:{source}>{target}" for source, target in directions)


def _hosts(stage: Stage, directions: Iterable[Direction]) -> list[Direction]:
    """Directions between hosts: a compute may consist of several."""
    return [
        (one, other)
        for source, target in directions
        for one in stage.hosts(source)
        for other in stage.hosts(target)
    ]


def _undo(stage: Stage, directions: list[Direction]) -> Undo:
    async def heal() -> None:
        for source, target in directions:
            stage.backend.network.heal(source, target, both=False)

    return heal


async def _hold(stage: Stage, strike: Strike) -> Undo:
    hosts = _hosts(stage, _directions_of_link(strike))
    for source, target in hosts:
        stage.backend.network.hold(source, target, both=False)
    return _undo(stage, hosts)


async def _delay(stage: Stage, strike: Strike) -> Undo:
    hosts = _hosts(stage, _directions_of_link(strike))
    for source, target in hosts:
        stage.backend.network.delay(source, target, strike.number("delay_s"), both=False)
    return _undo(stage, hosts)


async def _reset(stage: Stage, strike: Strike) -> None:
    for source, target in _hosts(stage, _directions_of_link(strike)):
        stage.backend.network.reset(source, target)


def _claim_link(strike: Strike) -> tuple[str, ...]:
    return _claims(_directions_of_link(strike))


def _claim_both(strike: Strike) -> tuple[str, ...]:
    return _claims(_directions_of_both(strike))


@dataclass(frozen=True)
class _Shape:
    """Which directions a partition cuts, and how its strikes are drawn."""

    draw: Draw
    directions: Callable[[Strike], list[Direction]]


def _cutting(name: str, scope: Scope, what: str, shape: _Shape) -> Fault:
    """Black holes in every direction of a shape."""

    async def cause(stage: Stage, strike: Strike) -> Undo:
        hosts = _hosts(stage, shape.directions(strike))
        for source, target in hosts:
            stage.backend.network.cut(source, target, both=False)
        return _undo(stage, hosts)

    return Fault(
        name=name,
        scope=scope,
        what=what,
        inverse=HEAL,
        effects=CUT_EFFECTS,
        draw=shape.draw,
        cause=cause,
        claims=lambda strike: _claims(shape.directions(strike)),
    )


def _disturb(name: str, what: str, effect: str, needs: Ability) -> Fault:
    """Chances on one link; ``name`` is the field of :class:`LinkFaults`."""

    async def cause(stage: Stage, strike: Strike) -> Undo:
        hosts = _hosts(stage, _directions_of_link(strike))
        chances = LinkFaults(**{name: strike.number("chance")})
        for source, target in hosts:
            stage.backend.network.disturb(source, target, chances)

        async def calm() -> None:
            for source, target in hosts:
                stage.backend.network.disturb(source, target, CALM)

        return calm

    def draw(cast: Cast, generator: random.Random) -> Strike:
        return Strike(busy_link(cast, generator), {"chance": round(generator.uniform(0.1, 1), 2)})

    return Fault(
        name=name,
        scope=Scope.LINK,
        what=what,
        inverse="calm",
        effects=(f"network.{effect}",),
        draw=draw,
        cause=cause,
        claims=_claim_both,
        needs=needs,
    )


NETWORK_FAULTS = (
    _disturb(
        "fragmentation",
        "writes to a connection arrive in two pieces",
        "writes_broken",
        Ability.FRAGMENTATION,
    ),
    _disturb("datagram_loss", "datagrams get lost", "datagrams_lost", Ability.DATAGRAM_LOSS),
    _disturb(
        "datagram_duplication",
        "datagrams come twice",
        "datagrams_duplicated",
        Ability.DATAGRAM_LOSS,
    ),
    _disturb(
        "datagram_reordering",
        "datagrams overtake each other",
        "datagrams_reordered",
        Ability.DATAGRAM_LOSS,
    ),
    _cutting(
        "cut_one_way",
        Scope.DIRECTION,
        "a black hole in one direction: bytes and connection attempts vanish",
        _Shape(_draw_link, _directions_of_link),
    ),
    _cutting(
        "black_hole",
        Scope.LINK,
        "two nodes lose sight of each other",
        _Shape(_draw_link, _directions_of_both),
    ),
    _cutting(
        "isolate",
        Scope.NODE,
        "one node loses sight of all others",
        _Shape(_draw_isolated, _directions_of_isolation),
    ),
    _cutting(
        "partition",
        Scope.LINK,
        "the nodes fall into two halves that cannot see each other",
        _Shape(_draw_halves, _directions_of_halves),
    ),
    _cutting(
        "majority_ring",
        Scope.LINK,
        "every node sees a majority, no two the same one",
        _Shape(_draw_ring, _directions_of_ring),
    ),
    Fault(
        name="hold",
        scope=Scope.DIRECTION,
        what="what is sent is kept in order, and delivered at the end",
        inverse="release",
        effects=("network.bytes_held", "network.connections_held"),
        draw=_draw_link,
        cause=_hold,
        claims=_claim_link,
    ),
    Fault(
        name="delay",
        scope=Scope.DIRECTION,
        what="everything takes longer",
        inverse=HEAL,
        effects=DELAY_EFFECTS,
        draw=_draw_delay,
        cause=_delay,
        claims=_claim_link,
    ),
    Fault(
        name="reset",
        scope=Scope.LINK,
        what="established connections break, new ones work",
        inverse="",
        effects=("network.connections_reset",),
        draw=_draw_link,
        cause=_reset,
        claims=claim_nothing,
    ),
)
