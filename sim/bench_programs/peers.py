"""Runs the programs in another simulator: ``python peers.py PROGRAM PEER COUNT``.

Prints messages or seeds per second in the best of some slices, each of COUNT messages or seeds;
exits with 3 if the peer is not installed.
"""

from __future__ import annotations

import asyncio
import sys
import time
from collections.abc import Callable
from importlib import import_module
from typing import Any

_HERE = __package__ + "." if __package__ else ""
SLICES = 40
"""Short slices and their best, because a shared machine is seldom quiet for long."""

pingpong: Any = import_module(f"{_HERE}pingpong")
quorum: Any = import_module(f"{_HERE}quorum")


def simloop_pingpong(rounds: int) -> int:
    """simloop's streams between two of its hosts, its trace on as always."""
    loop = import_module("simloop").SimLoop(0)

    async def main() -> int:
        loop.net.set_defaults(latency=(0.0002, 0.001))
        loop.net.host("b").create_task(pingpong.serve("b"))
        await asyncio.sleep(1)
        messages: int = await loop.net.host("a").create_task(pingpong.play("b", rounds))
        return messages

    messages: int = loop.run_until_complete(main())
    loop.trace_hash()
    return messages


def simloop_quorum(seed: int) -> int:
    """One seed on simloop; its ready order is random and its trace hash is taken."""
    loop = import_module("simloop").SimLoop(seed)

    async def acceptor(name: str) -> None:
        await quorum.accept(await quorum.bind(name))

    async def proposer() -> int:
        targets = tuple((name, quorum.PORT) for name in quorum.ACCEPTORS)
        committed: int = await quorum.propose(await quorum.bind("p"), targets)
        return committed

    async def main() -> int:
        loop.net.set_defaults(
            latency=quorum.LATENCY_S, drop=quorum.LOSS, duplicate=quorum.DUPLICATION
        )
        tasks = [loop.net.host(name).create_task(acceptor(name)) for name in quorum.ACCEPTORS]
        await asyncio.sleep(0)
        committed: int = await loop.net.host("p").create_task(proposer())
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        return committed

    committed: int = loop.run_until_complete(main())
    loop.trace_hash()
    loop.close()
    return committed


def seedloop_quorum(seed: int) -> int:
    """One seed on seedloop: its own endpoints (1 to 20 ms), its ready order is first come."""
    committed = 0

    async def scenario(world: Any) -> None:
        nonlocal committed
        links = {"loss": quorum.LOSS, "duplicate": quorum.DUPLICATION}
        boxes = [world.net.bind(number, **links) for number in range(4)]
        for box in boxes[1:]:
            world.start(_Runs(quorum.accept, box))
        committed = await quorum.propose(boxes[0], (1, 2, 3))

    import_module("seedloop").replay(scenario, seed=seed)
    return committed


class _Runs:
    """A seedloop node."""

    def __init__(self, program: Callable[[Any], Any], box: Any) -> None:
        self._program = program
        self._box = box

    async def run(self) -> None:
        """Run the program until the world ends."""
        await self._program(self._box)


def main(arguments: list[str]) -> int:
    """Measure and print; see the module."""
    program, peer, count = arguments[0], arguments[1], int(arguments[2])
    try:
        import_module(peer)
    except ImportError:
        return 3
    best = 0.0
    for _ in range(SLICES):
        started_s = time.perf_counter()
        done = _slice(program, peer, count)
        best = max(best, done / (time.perf_counter() - started_s))
    print(best)
    return 0


def _slice(program: str, peer: str, count: int) -> int:
    if program == "pingpong":
        return simloop_pingpong(count)
    run = simloop_quorum if peer == "simloop" else seedloop_quorum
    for seed in range(count):
        assert run(seed) == quorum.COMMITS, f"{peer} did not commit everything, seed {seed}"
    return count


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
