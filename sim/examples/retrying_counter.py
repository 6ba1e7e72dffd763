"""A counter server that loses its memory, and a client that retries: what can go wrong?

The client adds one ten times, each time again until it is acknowledged. Run a few seeds with
``python -m sim.examples.retrying_counter``: links are cut while an answer is on its way, so some
additions happen twice. A failing seed fails again, always at the same virtual instant.
"""

from __future__ import annotations

import asyncio
import sys

import sim

PORT = 9000
ADDITIONS = 10


class Counter:
    """An asyncio server; nothing in it knows of the simulation."""

    def __init__(self) -> None:
        self.count = 0

    async def serve(self) -> None:
        """Listen as this node and count until cancelled."""
        server = await asyncio.start_server(self._answer, "counter", PORT)
        await server.serve_forever()

    async def _answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while await reader.readline():
            self.count += 1
            writer.write(b"%d\n" % self.count)
        writer.close()


async def add() -> None:
    """Ask the counter to add one, until it says that it did."""
    while True:
        writer = None
        try:
            async with asyncio.timeout(1):
                reader, writer = await asyncio.open_connection("counter", PORT)
                writer.write(b"add\n")
                if await reader.readline():
                    return
        except (OSError, TimeoutError):
            await asyncio.sleep(0.1)
        finally:
            if writer is not None:
                writer.close()


async def scenario() -> int:
    """Additions while the link breaks now and then; returns what the counter says at the end."""
    loop = asyncio.get_running_loop()
    assert isinstance(loop, sim.SimLoop), "run this with sim.run"
    entropy = loop.seeds.child("faults")
    counter = Counter()
    with loop.nodes.acting_as("counter"):
        serving = loop.create_task(counter.serve())
    await asyncio.sleep(0)
    for _ in range(ADDITIONS):
        with loop.nodes.acting_as("client"):
            adding = loop.create_task(add())
        await asyncio.sleep(entropy.uniform(0, 0.01))
        loop.network.cut("counter", "client", both=False)
        await asyncio.sleep(entropy.uniform(0, 2))
        loop.network.heal("counter", "client")
        await adding
    assert not serving.done(), "the counter stopped"
    return counter.count


def main(seeds: int = 20) -> dict[int, int]:
    """Run some seeds; returns seed → count where the count is wrong."""
    wrong = {}
    for seed in range(seeds):
        count = sim.run(scenario, seed=seed, policy=sim.SeededRandom())
        if count != ADDITIONS:
            wrong[seed] = count
    return wrong


if __name__ == "__main__":
    found = main()
    for seed, count in found.items():
        print(f"seed {seed}: {ADDITIONS} additions were acknowledged, but the count is {count}")
    sys.exit(1 if found else 0)
