"""Every fault of the vocabulary does what it says: in a run of its own its effect is counted.

A fault whose counters stay at zero here would strike nothing anywhere, and the run is inconclusive.
"""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

import pytest

from harness.backend import HARNESS
from harness.fault_ports import CALM, NO_FAULTS, DiskFault, LinkFaults, ServiceFaults
from harness.faulting.campaign import run_campaign
from harness.faulting.fault import Strike
from harness.faulting.nemesis import Fate, Nemesis
from harness.faulting.plan import AtTime, Plan, Step
from harness.faulting.vocabulary import FAULTS
from harness.topology import KIB, THREE_SAFEKEEPERS, Topology
from harness.world import World

UNSUPPORTED = Path(__file__).with_name("unsupported_faults.json")
REPEATS = 3
LASTS_S = {"object_store_stale_list": 5.3}
"""How long a fault must last to have an effect, where that is more than a moment."""
MIGRATIONS = ((0.7, "ps1"), (2.2, "ps0"), (3.7, "ps1"), (5.2, "ps0"))
LISTINGS = ("object_store_failing_list", "object_store_stale_list")
"""Faults of what only happens when somebody attaches a tenant."""
BUSY = Topology(
    pageservers=2,
    pageserver_options={
        "checkpoint_distance": 8 * KIB,
        "checkpoint_timeout_s": 0.3,
        "compaction_period_s": 0.3,
        "compaction_threshold": 2,
        "page_cache_size": 0,
    },
    safekeeper_options={"control_file_save_s": 0.05},
    compute_options={"cache_pages": 2},
)
"""Uploads, compacts and rereads all the time, so that every kind of call is there to be struck."""

LINK, PAGESERVER, SAFEKEEPER = ("main", "sk0"), ("ps0",), ("sk0",)
CLOCKS = ("sk0", "sk1", "sk2", "ps0")
ALL = ("sk0", "main", "sk1", "ps0", "sk2", "ps1")
CHANCE = {"chance": 0.7}
STRIKES = {
    "fragmentation": Strike(LINK, CHANCE),
    "datagram_loss": Strike((HARNESS, "sk0"), CHANCE),
    "datagram_duplication": Strike((HARNESS, "sk0"), CHANCE),
    "datagram_reordering": Strike((HARNESS, "sk0"), CHANCE),
    "cut_one_way": Strike(LINK),
    "black_hole": Strike(LINK),
    "isolate": Strike(ALL),
    "partition": Strike(ALL, {"size": 1}),
    "majority_ring": Strike(ALL),
    "hold": Strike(LINK),
    "delay": Strike(LINK, {"delay_s": 0.05}),
    "reset": Strike(LINK),
    "kill": Strike(SAFEKEEPER),
    "kill_host": Strike(SAFEKEEPER),
    "stop": Strike(SAFEKEEPER),
    "pause": Strike(SAFEKEEPER),
    "restart": Strike(SAFEKEEPER),
    "wipe": Strike(SAFEKEEPER),
    "replace": Strike(SAFEKEEPER),
    "lose_unsynced": Strike(("sk0", "sk1", "sk2", "ps0"), {"dirty_s": 0.6}),
    "lose_per_file": Strike(("sk0", "sk1", "sk2", "ps0"), {"dirty_s": 0.6}),
    "lose_sizes": Strike(PAGESERVER, {"dirty_s": 0.6}),
    "lose_names": Strike(PAGESERVER, {"dirty_s": 0.6}),
    "tear_writes": Strike(("sk0", "sk1", "sk2", "ps0"), {"dirty_s": 0.6}),
    "disk_error": Strike(PAGESERVER, {"times": 2}),
    "no_space": Strike(PAGESERVER, {"times": 2}),
    "short_read": Strike(PAGESERVER, {"times": 2}),
    "drop_syncs": Strike(PAGESERVER, {"times": 2}),
    "misdirect_writes": Strike(PAGESERVER, {"times": 2}),
    "disk_full": Strike(SAFEKEEPER, {"free_bytes": 100}),
    "disk_stall": Strike(SAFEKEEPER),
    "disk_slow": Strike(SAFEKEEPER, {"by_s": 0.01}),
    "bit_rot": Strike(PAGESERVER, {"part": ""}),
    "older_copy": Strike(PAGESERVER, {"age_s": 0.5}),
    "object_store_outage": Strike(),
    "object_store_out_of_sight": Strike(PAGESERVER),
    "object_store_errors": Strike((), CHANCE),
    "object_store_slow_down": Strike((), CHANCE),
    "object_store_lost_replies": Strike((), CHANCE),
    "object_store_late_effects": Strike((), CHANCE),
    "object_store_slow": Strike((), {**CHANCE, "slow_s": 0.2}),
    "object_store_failing_list": Strike((), CHANCE),
    "object_store_stale_list": Strike(),
    "object_store_slow_deletes": Strike((), {"by_s": 0.5}),
    "object_store_credentials": Strike(PAGESERVER),
    "broker_outage": Strike(),
    "broker_out_of_sight": Strike(SAFEKEEPER),
    "broker_lost_replies": Strike((), CHANCE),
    "watch_lag": Strike((), {"by_s": 0.5}),
    "half_open_watch": Strike(PAGESERVER),
    "lease_expiry": Strike(),
    "clock_offset": Strike(CLOCKS, {"by_us": -3_600_000_000}),
    "clock_jump": Strike(SAFEKEEPER, {"by_us": 3_600_000_000}),
    "clock_drift": Strike(CLOCKS, {"ppm": 100_000.0}),
    "compute_crash": Strike(("main",), {"host": False}),
    "second_compute": Strike(("main",)),
    "zombie": Strike(("main",)),
    "late_delivery": Strike(("main", "sk0"), {"sending_s": 0.3}),
    "cancelling_client": Strike((), {"times": 20, "patience_s": 0.0005}),
    "deaf_client": Strike((), {"times": 100}),
    "migrate": Strike(("ps1",)),
    "delete_copy": Strike(SAFEKEEPER),
    "repeat_requests": Strike((), {"times": 2, "patience_s": 1.0}),
    "concurrent_requests": Strike((), {"times": 2, "patience_s": 1.0}),
    "crash_at": Strike(SAFEKEEPER, {"place": "sk-before-flush", "skip": 2, "host": True}),
    "fail_at": Strike(PAGESERVER, {"place": "ps-layer-uploaded", "times": 2}),
    "slow_at": Strike(SAFEKEEPER, {"place": "sk-after-write", "delay_s": 0.05}),
    "abandon_requests": Strike((), {"times": 5, "patience_s": 0.0002}),
}


def test_every_fault_has_a_strike_here() -> None:
    """A fault that is new must be shown to work."""
    assert set(STRIKES) == set(FAULTS)


@pytest.mark.computes("walgen", reason="the strikes name its nodes")
@pytest.mark.parametrize("name", list(FAULTS))
async def test_fault_has_its_effect(world: World, name: str) -> None:
    """One fault, thrice, over a busy cluster that must survive it."""
    fault = FAULTS[name]
    if fault.needs is not None:
        world.needs(fault.needs)
    for_s = LASTS_S.get(name, 0.7) if fault.lasting else 0.0
    steps = tuple(
        Step(name, STRIKES[name], AtTime(0.5 + 1.2 * number), for_s) for number in range(REPEATS)
    )
    companions = tuple(
        Step("migrate", Strike((target,)), AtTime(at_s))
        for at_s, target in MIGRATIONS
        if name in LISTINGS
    )
    duration_s = 6.0 if name in LISTINGS else 4.0
    core = ("sk0", "sk1", "sk2")
    plan = Plan("one fault", BUSY, steps + companions, duration_s, core, think_s=0.03)
    stranger = await send_datagrams() if name.startswith("datagram") else None
    nemesis = await run_campaign(world, plan)
    if stranger is not None:
        stranger.close()
    assert sum(record.effect for record in nemesis.records if record.fault is fault) > 0
    check_told(world, nemesis)


def check_told(world: World, nemesis: Nemesis) -> None:
    """Each fault that struck is among the run's events, with its end and its effect."""
    told = [event.fields for event in world.backend.events() if event.kind == "fault"]
    for record in nemesis.records:
        if record.fate is Fate.OVER:
            mine = [fields for fields in told if fields.get("step") == record.number]
            assert [fields["verb"] for fields in mine] == [record.fault.name, "end"], str(record)
            assert mine[1]["fault"] == record.fault.name, str(record)
            assert mine[1]["effect"] == record.effect, str(record)


async def send_datagrams() -> asyncio.DatagramTransport:
    """Nodes of the system send none; a stranger does."""
    loop = asyncio.get_running_loop()
    transport, _ = await loop.create_datagram_endpoint(
        asyncio.DatagramProtocol, remote_addr=("sk0", 9)
    )

    def send() -> None:
        if not transport.is_closing():
            transport.sendto(b"hello")
            loop.call_later(0.01, send)

    send()
    return transport


def test_real_can_do_two_thirds_of_the_vocabulary() -> None:
    """Faults that only a simulation knows prove nothing about the system in the field."""
    missing = json.loads(UNSUPPORTED.read_text(encoding="utf-8"))["real"]

    assert set(missing) <= set(FAULTS)
    assert len(FAULTS) - len(missing) >= len(FAULTS) * 2 / 3, f"real lacks {', '.join(missing)}"


async def test_every_switch_tells_its_faults(world: World) -> None:
    """What a scenario does by itself, past any plan, is among the run's events all the same."""
    cluster = await world.start(Topology(pageservers=1))
    endpoint = await cluster.endpoint("main")
    await endpoint.put(1, "a")
    before = len(told_faults(world))

    strike_every_switch(world)

    assert told_faults(world)[before:] == TOLD


@pytest.mark.computes("walgen", reason="what a world can do does not depend on the compute")
async def test_what_this_world_cannot_do_was_reviewed(world: World) -> None:
    """A fault that silently stopped to work in a world would be skipped for ever."""
    cluster = await world.start(THREE_SAFEKEEPERS)
    endpoint = await cluster.endpoint("main")
    await endpoint.put(1, "a")

    missing = {
        fault.name: fault.needs.value
        for fault in FAULTS.values()
        if fault.needs is not None and fault.needs not in world.backend.abilities
    }

    assert missing == json.loads(UNSUPPORTED.read_text(encoding="utf-8"))[world.name]


def told_faults(world: World) -> list[str]:
    """The fault events of a run so far, in short."""
    told = []
    for event in world.backend.events():
        if event.kind == "fault":
            names = ("verb", "fault", "what", "source", "target")
            told.append(" ".join(str(event.fields[n]) for n in names if n in event.fields))
    return told


TOLD = [
    "cut main sk0",
    "heal main sk0",
    "disturb main sk0",
    "calm main sk0",
    "reset main sk0",
    "outage s3",
    "restore s3",
    "inject s3",
    "end inject s3",
    "slow_deletes s3",
    "end slow_deletes s3",
    "freeze_listings s3",
    "end freeze_listings s3",
    "deny ps0 s3",
    "end deny ps0 s3",
    "cut ps0 s3",
    "heal ps0 s3",
    "outage broker",
    "restore broker",
    "cut ps0 broker",
    "heal ps0 broker",
    "lag_watches broker",
    "end lag_watches broker",
    "half_open ps0 broker",
    "expire_leases broker",
    "arm EIO sk0",
    "end arm sk0",
    "stall every call sk0",
    "end stall sk0",
    "stall syncs sk0",
    "end stall sk0",
    "slow sk0",
    "end slow sk0",
    "fill sk0",
    "end fill sk0",
    "clock_jump sk0",
    "clock_drift sk0",
    "end clock_drift sk0",
]


def strike_every_switch(world: World) -> None:
    """Cause what both worlds can, and undo it at once."""
    backend = world.backend
    network, s3, broker = backend.network, backend.object_store, backend.broker
    network.cut("main", "sk0")
    network.heal("main", "sk0")
    network.disturb("main", "sk0", LinkFaults(fragmentation=0.5))
    network.disturb("main", "sk0", CALM)
    network.reset("main", "sk0")
    s3.outage()
    s3.restore()
    s3.inject(ServiceFaults(slow=1.0))
    s3.inject(NO_FAULTS)
    s3.slow_deletes(1.0)
    s3.slow_deletes(0.0)
    s3.freeze_listings()
    s3.thaw_listings()
    s3.deny("ps0")
    s3.allow("ps0")
    s3.cut("ps0")
    s3.heal("ps0")
    broker.outage()
    broker.restore()
    broker.cut("ps0")
    broker.heal("ps0")
    broker.lag_watches(1.0)
    broker.lag_watches(0.0)
    broker.half_open("ps0")
    broker.expire_leases("seawall/")
    disk, clock = backend.disk("sk0"), backend.clock("sk0")
    disk.arm(DiskFault.EIO)
    disk.disarm()
    disk.stall()
    disk.resume()
    disk.stall(syncs_only=True)
    disk.resume()
    disk.slow(0.001)
    disk.slow(0.0)
    disk.fill(0)
    disk.fill(None)
    clock.jump(1_000_000)
    clock.drift(100.0)
    clock.drift(0.0)
