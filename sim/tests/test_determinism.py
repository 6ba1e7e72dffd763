"""Same seed, same run: in a fresh or used process, under any hash seed, for every policy."""

import os
import subprocess
import sys

import pytest

import sim
from sim.tests import program
from sim.trace import first_divergence

SEED = 11


def digest_of_a_fresh_process(policy, hash_seed):
    environment = {**os.environ, "PYTHONHASHSEED": str(hash_seed)}
    command = [sys.executable, "-m", "sim.tests.program", str(SEED), policy]
    finished = subprocess.run(
        command, env=environment, capture_output=True, text=True, timeout=60, check=True
    )
    return finished.stdout.strip()


@pytest.mark.parametrize("policy", sim.POLICIES)
def test_fresh_processes_with_different_hash_seeds_and_a_used_one_agree(policy):
    fresh = [digest_of_a_fresh_process(policy, hash_seed) for hash_seed in (0, 4711)]
    program.run(SEED + 1, policy)
    used = program.run(SEED, policy).digest()
    assert [used, used] == fresh


@pytest.mark.parametrize("policy", sim.POLICIES)
def test_two_runs_have_no_first_divergence(policy):
    one, other = program.run(SEED, policy), program.run(SEED, policy)
    assert first_divergence(one, other) is None
    assert len(one) > 500


def test_seeds_and_policies_differ():
    digests = {(s, p): program.run(s, p).digest() for s in (1, 2) for p in sim.POLICIES}
    assert len(set(digests.values())) == len(digests)


def test_the_first_divergence_is_found():
    one, other = program.run(1, "fifo"), program.run(2, "fifo")
    assert first_divergence(one, other).startswith("entry ")


def test_a_bounded_trace_has_the_same_digest():
    whole, bounded = program.run(SEED, "random"), program.run(SEED, "random", entries_max=0)
    assert whole.digest() == bounded.digest()
    assert len(whole) == len(bounded)
    assert len(bounded.entries()) < len(whole.entries())
    assert bounded.observations() == whole.observations()


def test_reading_the_trace_midway_changes_nothing():
    import asyncio

    def main(loop, read):
        async def program_():
            await asyncio.start_server(lambda reader, writer: writer.close(), "b", 1)
            for _ in range(50):
                reader, writer = await asyncio.open_connection("b", 1)
                await reader.read()
                writer.close()
                if read:
                    loop.trace.events()

        return program_

    digests = []
    for read in (False, True):
        loop = sim.SimLoop(3)
        sim.run_on(loop, main(loop, read))
        digests.append(loop.trace.digest())
    assert digests[0] == digests[1]


def test_order_of_ready_tasks_depends_on_policy_and_seed():
    import asyncio

    async def main():
        order = []

        async def note(number):
            order.append(number)

        async with asyncio.TaskGroup() as group:
            for number in range(20):
                group.create_task(note(number))
        return tuple(order)

    fifo = {sim.run(main, seed=seed) for seed in range(5)}
    assert fifo == {tuple(range(20))}
    for policy in (sim.SeededRandom(), sim.Pct()):
        orders = [sim.run(main, seed=seed, policy=policy) for seed in range(5)]
        assert len(set(orders)) == 5
        assert sim.run(main, seed=0, policy=policy) == orders[0]
        assert sorted(orders[0]) == list(range(20))
