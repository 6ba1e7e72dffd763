"""The public surface, and the example that an outsider would start from."""

import asyncio

import sim
from sim.examples import retrying_counter


def test_the_public_surface_is_what_it_says():
    assert [name for name in sim.__all__ if not hasattr(sim, name)] == []
    assert len(set(sim.__all__)) == len(sim.__all__)
    undocumented = [name for name in sim.__all__ if not getattr(sim, name).__doc__]
    assert undocumented == []


def test_the_example_finds_its_bug_and_replays_it():
    wrong = retrying_counter.main(seeds=10)
    assert wrong
    assert retrying_counter.main(seeds=10) == wrong


def test_where_code_runs_is_known():
    async def main():
        loop = asyncio.get_running_loop()
        names = [sim.current_node()]

        async def note():
            names.append(sim.current_node())

        with loop.nodes.acting_as("sk0"):
            await loop.create_task(note())
            names.append(sim.current_node())
        names.append(sim.current_node())
        return names

    assert sim.run(main) == ["harness", "sk0", "sk0", "harness"]


def test_without_latency_messages_arrive_within_the_instant():
    async def main():
        loop = asyncio.get_running_loop()
        loop.network.options = sim.LinkOptions(latency=sim.Constant(0.0))

        async def answer(reader, writer):
            while line := await reader.readline():
                writer.write(line)
            writer.close()

        await asyncio.start_server(answer, "b", 1)
        reader, writer = await asyncio.open_connection("b", 1)
        started = loop.time()
        for _ in range(100):
            writer.write(b"x\n")
            await reader.readline()
        writer.close()
        return loop.time() - started

    for policy in sim.POLICIES.values():
        assert sim.run(main, policy=policy) == 0.0
