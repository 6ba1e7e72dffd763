"""Benchmark: a proposer commits 50 numbers on three acceptors over lossy datagrams, per seed.

1 to 20 ms latency, 5 % loss, 5 % duplication; random order and digest on; a fresh world per seed.
"""

from __future__ import annotations

import asyncio
import platform
from collections.abc import Mapping
from typing import Any

from sim.bench_figures import best_slice, measure_peer, table
from sim.bench_programs import quorum
from sim.latency import Uniform
from sim.link import LinkOptions
from sim.loop import LoopOptions, SimLoop
from sim.policy import SeededRandom
from sim.run import run_on

AIM_PER_S = 500
_SEEDS = 30
_OPTIONS = LoopOptions(policy=SeededRandom())
_LINK = LinkOptions(
    latency=Uniform(*quorum.LATENCY_S),
    datagram_loss=quorum.LOSS,
    datagram_duplication=quorum.DUPLICATION,
)


async def _accept(name: str) -> None:
    await quorum.accept(await quorum.bind(name))


async def _propose() -> int:
    targets = tuple((name, quorum.PORT) for name in quorum.ACCEPTORS)
    return await quorum.propose(await quorum.bind("p"), targets)


def run_seed(seed: int) -> str:
    """One seed in a fresh world; returns its digest."""
    loop = SimLoop(seed, _OPTIONS)
    loop.network.options = _LINK

    async def main() -> int:
        acceptors = []
        for name in quorum.ACCEPTORS:
            with loop.nodes.acting_as(name):
                acceptors.append(loop.create_task(_accept(name)))
        await asyncio.sleep(0)
        with loop.nodes.acting_as("p"):
            committed: int = await loop.create_task(_propose())
        assert not any(task.done() for task in acceptors), "an acceptor ended"
        return committed

    committed = run_on(loop, main)
    assert committed == quorum.COMMITS, f"seed {seed} committed {committed} of {quorum.COMMITS}"
    return loop.trace.digest()


def run_seeds(count: int = _SEEDS) -> int:
    """Many seeds, each with a digest of its own."""
    digests = {run_seed(seed) for seed in range(count)}
    assert len(digests) == count, "two seeds had the same digest"
    return count


def bench() -> Mapping[str, Any]:
    """Measure, print the table with the peers, and return the figures."""
    ours = {"seawall random, digest on": best_slice(run_seeds)}
    peers = [measure_peer("quorum", "simloop", 6), measure_peer("quorum", "seedloop", _SEEDS)]
    print(table("seeds/s", ours, peers))
    per_s = next(iter(ours.values()))
    return {
        "bench": "quorum",
        "unit": "seeds per second",
        "seeds_per_s": round(per_s, 1),
        "ms_per_seed": round(1e3 / per_s, 3),
        "aim": AIM_PER_S,
        "peers": {peer.name: peer.per_s or peer.reason for peer in peers},
        "python": platform.python_version(),
    }
