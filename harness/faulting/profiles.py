"""Named profiles: how plans are drawn. Every draw comes from the one generator that is given.

``calm`` strikes rarely and one thing at a time, ``lossy`` breaks links, ``hostile`` breaks
everything. ``swarm`` draws a profile for each run: which faults exist at all, how often, how long,
and the options of the nodes (Groce et al., "Swarm Testing", ISSTA 2012: leaving features out finds
what having them all hides). ``transactions`` is a swarm on lists and a bank, ``consensus`` a short
one of whatever can confuse proposers and their safekeepers: rivals, late packets, lost disks.
"""

from __future__ import annotations

import dataclasses
import random
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from harness.backend import Ability
from harness.errors import HarnessError
from harness.faulting.fault import Cast, Damage, Fault, Scope, Strike
from harness.faulting.network import NETWORK_FAULTS
from harness.faulting.plan import AfterCommits, AtTime, OnEvent, Plan, Step, Trigger
from harness.faulting.vocabulary import FAULTS
from harness.topology import KIB, MIB, Topology
from storage.marks import Mark

SYSTEM_FAULTS = tuple(
    fault.name
    for fault in FAULTS.values()
    if fault.needs is not Ability.DATAGRAM_LOSS and not fault.unfair
)
"""What a cluster must survive. Its nodes send no datagrams."""
LINK_FAULTS = tuple(fault.name for fault in NETWORK_FAULTS if fault.name in SYSTEM_FAULTS)

SAFEKEEPER_POSITIONS = ("flush_lsn", "commit_lsn")
PAGESERVER_POSITIONS = ("last_record_lsn", "disk_consistent_lsn", "remote_consistent_lsn")

OPERATIONS_MAX = 600
"""About how many operations the clients of a plan get done: without a bound, one campaign in ten
took half of the time of a sweep and found no more than the others."""

COMMITS_MAX = 200
"""The last commit that a step may wait for; half of the operations are writes."""


@dataclass(frozen=True)
class Mix:
    """How steps are drawn: faults by name with their weight, how many, how long they last."""

    weights: Mapping[str, float]
    steps_max: int
    duration_s: float
    mean_length_s: float
    logical: float = 0.3
    """Share of the steps that wait for something that happens, not for a time."""
    spares_pageservers: bool = False
    """Whether no fault strikes a pageserver, or a link of one, alone."""
    operations_max: int = OPERATIONS_MAX


def _draw_calm(generator: random.Random) -> tuple[Topology, Mix]:
    names = ("kill", "stop", "pause", "reset", "delay", "migrate")
    return Topology(pageservers=2), Mix(dict.fromkeys(names, 1.0), 3, 6.0, 0.5)


def _draw_lossy(generator: random.Random) -> tuple[Topology, Mix]:
    return Topology(pageservers=2), Mix(dict.fromkeys(LINK_FAULTS, 1.0), 20, 8.0, 1.0)


def _draw_hostile(generator: random.Random) -> tuple[Topology, Mix]:
    return draw_topology(generator), Mix(dict.fromkeys(SYSTEM_FAULTS, 1.0), 30, 10.0, 1.0)


def _draw_swarm(generator: random.Random) -> tuple[Topology, Mix]:
    share = generator.choice((0.1, 0.3, 0.6))
    chosen = [name for name in SYSTEM_FAULTS if generator.random() < share] or ["kill"]
    weights = {name: round(generator.uniform(0.2, 2.0), 2) for name in chosen}
    mix = Mix(
        weights,
        steps_max=generator.choice((3, 8, 20, 40)),
        duration_s=generator.choice((3.0, 8.0, 20.0)),
        mean_length_s=generator.choice((0.2, 1.0, 4.0)),
        logical=generator.choice((0.0, 0.3, 0.8)),
    )
    return draw_topology(generator), mix


RIVALRIES = ("second_compute", "zombie", "late_delivery")
"""What makes two proposers work at once, or lets a dead one's packets arrive late."""

CONSENSUS_SCOPES = (Scope.COMPUTE, Scope.NODE, Scope.LINK, Scope.DIRECTION, Scope.DISK)
CONSENSUS_FAULTS = (
    *(
        name
        for name in SYSTEM_FAULTS
        if FAULTS[name].scope in CONSENSUS_SCOPES and FAULTS[name].damage is not Damage.WRONG
    ),
    "broker_outage",
)
"""What strikes proposers and members, and what is between them."""


def _draw_consensus(generator: random.Random) -> tuple[Topology, Mix]:
    share = generator.choice((0.1, 0.3, 0.6))
    chosen = [name for name in CONSENSUS_FAULTS if generator.random() < share]
    weights = {name: round(generator.uniform(0.2, 2.0), 2) for name in chosen}
    weights[generator.choice(RIVALRIES)] = round(0.2 + sum(weights.values()) / 2.5, 2)
    safekeeper: dict[str, Any] = {}
    _maybe(generator, safekeeper, "control_file_save_s", (0.05, 5.0))
    _maybe(generator, safekeeper, "recent_wal_bytes", (0, 4 * KIB))
    _maybe(generator, safekeeper, "catch_up_s", (0.1, 1.0))
    _maybe(generator, safekeeper, "silence_max_s", (2.0, 4.0))
    proposer: dict[str, Any] = {}
    _maybe(generator, proposer, "append_bytes_max", (1, KIB))
    _maybe(generator, proposer, "wal_retained_bytes_max", (0, 16 * KIB))
    topology = Topology(
        safekeepers=generator.choice((3, 5)),
        pg_version=generator.choice((15, 16, 18)),
        safekeeper_options=safekeeper,
        pageserver_options={"compaction_period_s": 60.0},
        proposer_options=proposer,
    )
    mix = Mix(
        weights,
        steps_max=generator.choice((4, 8, 16)),
        duration_s=generator.choice((1.0, 2.0, 4.0)),
        mean_length_s=generator.choice((0.05, 0.2, 1.0)),
        logical=generator.choice((0.0, 0.3, 0.8)),
        spares_pageservers=True,
        operations_max=100,
    )
    return topology, mix


def draw_topology(generator: random.Random) -> Topology:
    """A cluster with options of its own: small limits reach rare states sooner."""
    safekeeper: dict[str, Any] = {}
    pageserver: dict[str, Any] = {}
    compute: dict[str, Any] = {}
    proposer: dict[str, Any] = {}
    _maybe(generator, safekeeper, "heartbeat_s", (0.2, 1.0))
    _maybe(generator, safekeeper, "control_file_save_s", (0.1, 5.0))
    _maybe(generator, safekeeper, "broker_publish_s", (0.2, 1.0))
    _maybe(generator, safekeeper, "recent_wal_bytes", (0, 64 * KIB))
    _maybe(generator, safekeeper, "send_bytes_max", (100, 4 * KIB))
    _maybe(generator, safekeeper, "catch_up_s", (0.1, 10.0))
    pageserver["checkpoint_distance"] = generator.choice((KIB, 4 * KIB, 16 * KIB, 64 * KIB, MIB))
    pageserver["checkpoint_timeout_s"] = generator.choice((0.3, 0.5, 1.0, 5.0))
    _maybe(generator, pageserver, "compaction_period_s", (0.5, 5.0))
    _maybe(generator, pageserver, "compaction_threshold", (2, 4))
    _maybe(generator, pageserver, "frozen_layers_max", (1, 2))
    _maybe(generator, pageserver, "page_cache_size", (0, 64 * KIB))
    _maybe(generator, pageserver, "compaction_target_size", (4 * KIB, 64 * KIB))
    _maybe(generator, pageserver, "image_creation_threshold", (1, 2))
    _maybe(generator, pageserver, "walreceiver_silence_timeout_s", (2.0, 10.0))
    if generator.random() < 0.5:
        pageserver |= _draw_collecting(generator)
    _maybe(generator, compute, "cache_pages", (2, 8))
    _maybe(generator, proposer, "append_bytes_max", (1, KIB))
    _maybe(generator, proposer, "wal_retained_bytes_max", (0, 16 * KIB))
    return Topology(
        safekeepers=generator.choice((3, 3, 3, 5)),
        pageservers=generator.choice((1, 2, 2)),
        discovery=generator.choice(("broker", "callmemaybe")),
        pg_version=generator.choice((15, 16, 18)),
        wal_segment_size=generator.choice((MIB, MIB, 2 * MIB)),
        safekeeper_options=safekeeper,
        pageserver_options=pageserver,
        compute_options=compute,
        proposer_options=proposer,
    )


def _draw_collecting(generator: random.Random) -> dict[str, Any]:
    """Garbage collection that follows the head closely, or some way behind it."""
    return {
        "gc_period_s": generator.choice((0.1, 0.5, 2.0)),
        "gc_horizon": generator.choice((0, 2 * KIB, 32 * KIB)),
        "pitr_interval_s": 0.0,
        "lease_length_s": generator.choice((0.2, 2.0)),
        "disk_budget": generator.choice((0, 1, 16 * KIB)),
    }


def _maybe(
    generator: random.Random, options: dict[str, Any], name: str, values: tuple[float, ...]
) -> None:
    if generator.random() < 0.5:
        options[name] = generator.choice(values)


PROFILES = {
    "calm": _draw_calm,
    "lossy": _draw_lossy,
    "hostile": _draw_hostile,
    "swarm": _draw_swarm,
    "transactions": _draw_swarm,
    "consensus": _draw_consensus,
}


WORKLOADS_DRAWN = {"transactions": "transactions", "consensus": "few_registers"}
"""What clients do, where it is not registers."""

CLIENTS_DRAWN = {"consensus": (1, 4, 8)}
"""How many clients write: what is under way at once is what a leader can leave to a minority."""

ROOMS_DRAWN = ("hostile", "swarm", "consensus")
"""Profiles whose WAL may begin shortly before the end of a segment, as none would reach it."""


def draw_plan(profile: str, generator: random.Random) -> Plan:
    """Draw a plan from a named profile; ``HarnessError`` lists the profiles if there is none."""
    if profile not in PROFILES:
        raise HarnessError(f"no profile {profile!r}; there are: {', '.join(PROFILES)}")
    topology, mix = PROFILES[profile](generator)
    cast = Plan(profile, topology, (), 0.0, ()).cast()
    count = generator.randint(1, mix.steps_max)
    steps = [_draw_step(cast, mix, generator) for _ in range(count)]
    steps.append(_draw_sure_step(cast, mix, steps, generator))
    majority = len(cast.safekeepers) // 2 + 1
    core = tuple(sorted(generator.sample(cast.safekeepers, majority)))
    clients = generator.choice(CLIENTS_DRAWN.get(profile, (1, 2, 4)))
    think_s = generator.choice((0.02, 0.05, 0.2))
    kill_rest = generator.random() < 0.3
    if profile in ROOMS_DRAWN:
        topology = dataclasses.replace(topology, wal_room=_draw_room(generator))
    return Plan(
        profile=profile,
        topology=topology,
        steps=tuple(steps),
        duration_s=mix.duration_s,
        core=core,
        clients=clients,
        think_s=max(think_s, round(clients * mix.duration_s / mix.operations_max, 3)),
        kill_rest=kill_rest,
        workload=WORKLOADS_DRAWN.get(profile, "registers"),
    )


def _draw_room(generator: random.Random) -> int | None:
    """Drawn last, so that the rest of a seed's plan is what it was without it."""
    if generator.random() < 0.6:
        return None
    return generator.choice((2 * KIB, 16 * KIB, 64 * KIB)) - 8 * generator.randrange(200)


def _draw_step(cast: Cast, mix: Mix, generator: random.Random) -> Step:
    names = list(mix.weights)
    fault = FAULTS[generator.choices(names, [mix.weights[name] for name in names])[0]]
    length_s = round(generator.expovariate(1 / mix.mean_length_s), 3) if fault.lasting else 0.0
    strike = _draw_strike(cast, mix, fault, generator)
    near = strike.targets[0] if strike.targets and generator.random() < 0.5 else ""
    return Step(fault.name, strike, _draw_trigger(cast, mix, near, generator), length_s)


def _draw_strike(cast: Cast, mix: Mix, fault: Fault, generator: random.Random) -> Strike:
    while True:
        strike = fault.draw(cast, generator)
        if not mix.spares_pageservers or _concerns_consensus(cast, strike):
            return strike


def _concerns_consensus(cast: Cast, strike: Strike) -> bool:
    """Whether it strikes more than a pageserver or a single link of one."""
    return len(strike.targets) > 2 or not set(strike.targets) & set(cast.pageservers)


def _draw_sure_step(cast: Cast, mix: Mix, steps: list[Step], generator: random.Random) -> Step:
    """One that surely has an effect, so that no short plan proves nothing: nothing else strikes
    its target, which would be taken or down already."""
    struck = {target for step in steps for target in step.strike.targets}
    targets = [name for name in cast.nodes if name not in struck] or cast.nodes
    fault = FAULTS[generator.choice(("kill", "kill_host", "pause"))]
    at_s = round(generator.uniform(0.0, mix.duration_s), 3)
    return Step(fault.name, Strike((generator.choice(targets),)), AtTime(at_s), 0.2)


def _draw_trigger(cast: Cast, mix: Mix, near: str, generator: random.Random) -> Trigger:
    if generator.random() >= mix.logical:
        return AtTime(round(generator.uniform(0.0, mix.duration_s), 3))
    if generator.random() < 0.3:
        return AfterCommits(round(COMMITS_MAX ** generator.random()))
    return draw_event(cast, generator, near)


def draw_event(cast: Cast, generator: random.Random, near: str = "") -> OnEvent:
    """A trigger that waits for a report of a node (of ``near``, if that is a storage node): a
    position in a term, a vote, a tenant, a rare state that it reaches…"""
    kind = generator.choice(
        ("lsn",) * 4 + ("mark",) * 4 + ("elected", "vote", "tenant_state", "walreceiver")
    )
    node = near if near in cast.storage else generator.choice(cast.storage)
    if kind == "mark":
        role = "safekeeper" if node in cast.safekeepers else "pageserver"
        names = [mark.label for mark in Mark if mark.value.startswith(role)]
        where = {"name": generator.choice(names)}
        return OnEvent(kind, node if near else "", generator.choice((1, 1, 1, 2, 4)), where)
    if kind != "lsn":
        return OnEvent(kind, count=generator.choice((1, 1, 1, 2, 4)))
    positions = SAFEKEEPER_POSITIONS if node in cast.safekeepers else PAGESERVER_POSITIONS
    return OnEvent(
        kind,
        node,
        where={"name": generator.choice(positions)},
        at_least={"value": MIB + int(10 ** generator.uniform(2, 4.5))},
        term=generator.choice((0, 0, 0, 1, 2)) if node in cast.safekeepers else 0,
    )
