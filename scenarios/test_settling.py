"""Idle timelines settle by themselves: all that was committed reaches S3, then nobody streams.

Storage that needs new traffic, or somebody's request, to make old data safe keeps WAL and
connections for ever, and loses them at the worst moment.
"""

from __future__ import annotations

import random
from contextlib import AsyncExitStack, suppress

import pytest

from harness.cluster import Cluster
from harness.endpoint_handle import EndpointHandle
from harness.errors import NotLive, NotYet
from harness.patience import when_ready
from harness.topology import KIB, Discovery, Topology
from harness.workload import LoadOptions
from harness.world import World
from storage.ids import TenantTimelineId

SETTLES_WITHIN_S = 45.0
PROMPT_S = 2.0
FOLLOWS_WITHIN_S = 30.0
HEARTBEATS_S = (1.0, 8.0)
"""With the longer one, whoever waits for a heartbeat is late."""


async def end_compute(endpoint: EndpointHandle, chance: random.Random) -> None:
    """A compute may say goodbye or not."""
    await (endpoint.kill() if chance.random() < 0.5 else endpoint.stop())


async def disturb(cluster: Cluster, chance: random.Random) -> None:
    """One storage node crashes, freezes for a moment, or restarts; each comes back."""
    node = chance.choice(cluster.nodes)
    match chance.randrange(4):
        case 0:
            await node.restart()
        case 1:
            await node.kill()
            await node.start()
        case 2:
            await node.kill(host=True)
            await node.start()
        case _:
            async with cluster.world.faults.object_store_outage():
                await node.restart()


async def die_by_and_by(world: World, cluster: Cluster, endpoint: EndpointHandle) -> None:
    """A busy compute loses its links to some safekeepers, one after the other, then its life."""
    chance = world.generator("death")
    options = LoadOptions(think_s=0.005, read_fraction=0.1)
    async with AsyncExitStack() as cuts, world.load(endpoint, options) as load:
        await load.progress(chance.randrange(1, 20))
        for safekeeper in chance.sample(cluster.safekeepers, chance.randint(1, 3)):
            cut = world.faults.partition(endpoint.name, safekeeper.name)
            await cuts.enter_async_context(cut)
            with suppress(NotLive):
                await load.progress(5, within_s=0.003 * chance.random())
        await endpoint.kill()


async def check_delivered(
    cluster: Cluster, timeline: TenantTimelineId, *, by_all: bool = True
) -> None:
    """``NotYet`` until the pageserver has all that any safekeeper knows to be committed, or, not
    ``by_all``, the one it reads from: the others may know of WAL that this one never had."""
    found = await cluster.pageserver(0).timeline(timeline)
    asked = cluster.safekeepers
    if not by_all:
        source = found.walreceiver["safekeeper"]
        asked = [each for each in asked if each.address == source] or asked
    committed = max([(await safekeeper.timeline(timeline)).commit_lsn for safekeeper in asked])
    if found.last_record_lsn < committed:
        raise NotYet(f"{committed} is committed, the pageserver has {found.last_record_lsn}")


async def check_settled(cluster: Cluster, timeline: TenantTimelineId) -> None:
    """``NotYet`` until everything committed is in S3 and no safekeeper serves the timeline."""
    states = [await safekeeper.timeline(timeline) for safekeeper in cluster.safekeepers]
    committed = max(state.commit_lsn for state in states)
    shown = await when_ready(cluster.world, lambda: cluster.pageserver(0).timeline(timeline))
    if shown.remote_consistent_lsn < committed:
        raise NotYet(f"{committed} is committed, S3 has {shown.remote_consistent_lsn}")
    for safekeeper, state in zip(cluster.safekeepers, states, strict=True):
        if state.active:
            raise NotYet(f"{safekeeper.name} is active, knows {state.remote_consistent_lsn} in S3")
        serving = [task for task in await safekeeper.tasks() if task["kind"] == "wal_sender"]
        if len(serving) > 1:  # One task sends the heartbeats of all.
            raise NotYet(f"{safekeeper.name} still streams: {serving[1:]}")


async def wake_up(world: World, cluster: Cluster, endpoint: EndpointHandle) -> None:
    """Writes again, without one safekeeper, on streams that break: the others have everything."""
    chance = world.generator("awake")
    pageserver = cluster.pageserver(0)
    await endpoint.start()
    left_out = chance.choice(cluster.safekeepers)
    async with world.faults.partition(endpoint.name, left_out.name), world.load(endpoint) as load:
        for _ in range(chance.choice([0, 2, 6])):
            await load.progress(chance.randrange(1, 20))
            for safekeeper in cluster.safekeepers:
                if chance.random() < 0.7:
                    world.faults.reset(pageserver.name, safekeeper.name)
        await load.progress(1)
        await cluster.caught_up(pageserver, endpoint.timeline, within_s=FOLLOWS_WITHIN_S)


@pytest.mark.row("A2.calls", "A2.pauses", "A2.restart", "P4.walreceiver")
@pytest.mark.computes("walgen", reason="PostgreSQL writes WAL when nobody asks it to")
@pytest.mark.parametrize("discovery", ["broker", "callmemaybe"])
async def test_idle_timeline_settles(world: World, discovery: Discovery) -> None:
    """The compute is gone, storage nodes come and go: what was committed settles all the same."""
    chance = world.generator("settling")
    options = {"checkpoint_timeout_s": 5.0, "checkpoint_distance": chance.choice([8, 64]) * KIB}
    cluster = await world.start(
        Topology(
            discovery=discovery,
            pageserver_options=options,
            safekeeper_options={
                "heartbeat_s": chance.choice(HEARTBEATS_S),
                "broker_publish_s": 0.2,
            },
        )
    )
    endpoint = await cluster.endpoint("main")
    async with world.load(endpoint) as load:
        await load.progress(chance.randrange(1, 60))
        if chance.random() < 0.5:
            await disturb(cluster, chance)
            await load.progress(chance.randrange(1, 60))

    await cluster.caught_up(cluster.pageserver(0), endpoint.timeline)
    slowly = chance.random() < 0.5
    if slowly:
        await die_by_and_by(world, cluster, endpoint)
    else:
        await endpoint.put(1, "the last commit")
        await end_compute(endpoint, chance)
    await world.eventually(
        lambda: check_delivered(cluster, endpoint.timeline, by_all=not slowly),
        within_s=PROMPT_S,
        what="the last commit is delivered",
    )
    if chance.random() < 0.7:
        await disturb(cluster, chance)
    await world.eventually(
        lambda: check_settled(cluster, endpoint.timeline),
        within_s=SETTLES_WITHIN_S,
        what="the idle timeline settles",
    )
    await wake_up(world, cluster, endpoint)
