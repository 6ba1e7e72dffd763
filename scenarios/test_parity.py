"""The two worlds are one system: the same workload leaves the same bytes in both."""

from __future__ import annotations

from dataclasses import dataclass, field

import pytest

from harness.pytest_plugin import RunIn
from harness.storage_taps import PageVersion, changed_blocks, page_history, wal_bytes
from harness.topology import Topology
from harness.walgen import timeline_spec
from harness.world import World

TRANSACTIONS = 120


@dataclass
class Left:
    """What a run left in the storage."""

    wal: bytes = b""
    pages: list[PageVersion] = field(default_factory=list)


def first_difference(one: bytes, other: bytes) -> str | None:
    """Where two pieces of WAL part, or ``None``."""
    for offset, (left, right) in enumerate(zip(one, other, strict=False)):
        if left != right:
            return f"byte {offset}: {one[offset : offset + 32]!r} {other[offset : offset + 32]!r}"
    return None if len(one) == len(other) else f"length {len(one)} and {len(other)}"


async def write_and_collect(world: World, left: Left) -> None:
    """One client's sequence of transactions; then the WAL and every page version of it."""
    cluster = await world.start(Topology())
    endpoint = await cluster.endpoint("main")
    choices = world.generator("parity workload")
    for number in range(TRANSACTIONS):
        keys = {choices.randrange(200) for _ in range(choices.randrange(1, 4))}
        deleted = choices.random() < 0.1
        await endpoint.txn({key: None if deleted else f"{number}" * 20 for key in sorted(keys)})

    start = timeline_spec(cluster, endpoint.timeline).start_lsn
    end = await cluster.caught_up(cluster.pageserver(0), endpoint.timeline)
    left.wal = await wal_bytes(cluster.safekeeper(0), endpoint.timeline, start, end)
    changes = changed_blocks(
        left.wal,
        start,
        pg_version=cluster.topology.pg_version,
        wal_segment_size=cluster.topology.wal_segment_size,
    )
    left.pages = await page_history(cluster.pageserver(0), endpoint.timeline, list(changes))


@pytest.mark.row("P4.layers", worlds=("sim", "real"))
def test_both_worlds_leave_the_same_wal_and_pages(run_in: RunIn) -> None:
    """A difference would mean that one world runs another system than the other."""
    in_sim, in_real = Left(), Left()

    run_in("sim", lambda world: write_and_collect(world, in_sim))
    run_in("real", lambda world: write_and_collect(world, in_real))

    assert len(in_sim.wal) > 10_000
    assert first_difference(in_sim.wal, in_real.wal) is None
    assert len(in_sim.pages) >= TRANSACTIONS
    assert len({version.sha256 for version in in_sim.pages}) == len(in_sim.pages)
    assert in_sim.pages == in_real.pages
