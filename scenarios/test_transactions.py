"""Transactions that read what they change go on while nodes die and the tenant moves.

What could go wrong: a lost or repeated append, half of a transfer, a read of a state that never
was, on the primary or on a replica that reads an older LSN. The oracles ``list_append`` and
``conservation`` judge every answer.
"""

from __future__ import annotations

import pytest

from harness.cluster import Cluster
from harness.endpoint_handle import EndpointHandle
from harness.topology import THREE_SAFEKEEPERS, TWO_PAGESERVERS
from harness.transactions import BankOptions, ListAppendOptions, Mixed
from harness.world import World

AROUND = 40


def transactions() -> Mixed:
    """Clients of lists and of a bank, two each."""
    return Mixed((ListAppendOptions(), BankOptions()), clients=4)


async def read_everywhere(readers: list[EndpointHandle]) -> None:
    """All lists and all accounts, through each reader, one after the other."""
    for reader in readers:
        await reader.scan(2048, 2048 + 64)
        await reader.scan(4096, 4096 + 512)


async def test_transactions_under_two_deaths(world: World) -> None:
    """A compute and a safekeeper die; then a quorum is lost for a while."""
    cluster = await world.start(THREE_SAFEKEEPERS)
    endpoint = await cluster.endpoint("main")
    async with world.load(endpoint, transactions()) as load:
        await load.progress(AROUND)
        await cluster.safekeeper(0).kill(host=True)
        await load.progress(AROUND)
        await endpoint.kill()
        await endpoint.start()
        await load.progress(AROUND)
        await cluster.safekeeper(1).kill()
        await cluster.safekeeper(0).start()
        await load.progress(AROUND)
        await cluster.safekeeper(1).start()

    await endpoint.restart()
    await read_everywhere([endpoint])


async def migrate(cluster: Cluster, endpoint: EndpointHandle) -> None:
    """Move the endpoint's tenant from ``ps0`` to ``ps1``."""
    old, new = cluster.pageservers
    await new.attach(endpoint.timeline.tenant_id)
    await cluster.subscribe(endpoint.timeline, new)
    await cluster.caught_up(new, endpoint.timeline)
    await endpoint.move(new)
    await old.detach(endpoint.timeline.tenant_id)


@pytest.mark.row("A3.load")
async def test_transactions_during_migration(world: World) -> None:
    """The tenant moves to another pageserver under load."""
    cluster = await world.start(TWO_PAGESERVERS)
    endpoint = await cluster.endpoint("main")
    async with world.load(endpoint, transactions()) as load:
        await load.progress(AROUND)
        await migrate(cluster, endpoint)
        await load.progress(AROUND)
    await endpoint.restart()
    await read_everywhere([endpoint])


@pytest.mark.computes("walgen", reason="PostgreSQL tells no LSN to pin a reader to")
async def test_primary_and_pinned_readers_agree_on_one_order(world: World) -> None:
    """Readers pinned to LSNs that were current for a moment see states of the primary's order."""
    cluster = await world.start(THREE_SAFEKEEPERS)
    primary = await cluster.endpoint("main")
    readers: list[EndpointHandle] = []
    async with world.load(primary, transactions()) as load:
        for number in range(3):
            await load.progress(AROUND)
            lsn = world.history.acknowledged_lsn(str(primary.timeline))
            readers.append(await cluster.replica(f"reader{number}", lsn, of=primary))
            await read_everywhere([*readers, primary])
        await cluster.pageserver(0).kill(host=True)
        await cluster.pageserver(0).start()
        await read_everywhere([*reversed(readers), primary])
