"""A crashed incarnation runs nothing more, whatever its code would like to do at its end."""

import asyncio
import gc
import warnings

import pytest

import sim
from sim.errors import SimulationError
from sim.run import run_on


class Witness:
    """Counts what ran, and whether it ran while the world lived."""

    def __init__(self):
        self.seen = []

    def note(self, what):
        self.seen.append(what)


def run_world(main, seed=0, policy=None):
    loop = sim.SimLoop(seed, sim.LoopOptions(policy=policy or sim.Fifo()))
    return run_on(loop, lambda: main(loop))


def start(loop, name, coroutine):
    with loop.nodes.acting_as(name):
        return loop.create_task(coroutine)


async def stubborn(witness):
    try:
        await asyncio.sleep(1000)
    except asyncio.CancelledError:
        witness.note("cancelled")
        raise
    except GeneratorExit:
        witness.note("generator exit")
        raise
    finally:
        witness.note("finally")


@pytest.mark.parametrize("host", [False, True])
def test_neither_finally_nor_except_runs_while_the_world_lives(host):
    witness = Witness()

    async def main(loop):
        start(loop, "a", stubborn(witness))
        await asyncio.sleep(1)
        loop.nodes.crash("a", host=host)
        await asyncio.sleep(5000)
        gc.collect()
        return list(witness.seen)

    assert run_world(main) == []


def test_a_finally_of_the_dead_writes_nothing_to_disk_even_at_the_worlds_end():
    from sim.disk import SimDisk

    async def writer(disk):
        file = await disk.open("journal", create=True)
        try:
            await asyncio.sleep(1000)
        finally:
            await file.pwrite(0, b"last words")
            await file.fsync()

    loop = sim.SimLoop(1)
    disk = SimDisk(loop, loop.seeds.child("disk/a"))

    async def main():
        with loop.nodes.acting_as("a") as incarnation:
            loop.create_task(writer(disk.view(incarnation)))
        await asyncio.sleep(1)
        loop.nodes.crash("a")
        await asyncio.sleep(100)

    run_on(loop, main)
    assert disk.snapshot().files == {"journal": b""}


def test_timers_and_ready_callbacks_of_the_dead_do_not_run():
    witness = Witness()

    async def main(loop):
        with loop.nodes.acting_as("a"):
            loop.call_later(1, witness.note, "timer")
            loop.call_soon(witness.note, "soon")
        loop.nodes.crash("a")
        await asyncio.sleep(10)
        return list(witness.seen)

    assert run_world(main) == []


def test_a_result_given_to_the_dead_wakes_nobody():
    witness = Witness()

    async def waiter(future):
        await future
        witness.note("woken")

    async def main(loop):
        future = loop.create_future()
        start(loop, "a", waiter(future))
        await asyncio.sleep(1)
        loop.nodes.crash("a")
        future.set_result(None)
        await asyncio.sleep(1)
        return list(witness.seen)

    assert run_world(main) == []


def test_asynchronous_generators_of_the_dead_are_not_closed():
    witness = Witness()

    async def numbers():
        try:
            for number in range(10):
                yield number
                await asyncio.sleep(1)
        finally:
            witness.note("generator closed")

    async def consume():
        async for number in numbers():
            if number == 3:
                await asyncio.sleep(1000)

    async def abandon():
        generator = numbers()
        await generator.__anext__()
        await asyncio.sleep(1000)

    async def main(loop):
        start(loop, "a", consume())
        start(loop, "a", abandon())
        await asyncio.sleep(10)
        loop.nodes.crash("a")
        await asyncio.sleep(100)
        gc.collect()
        return list(witness.seen)

    assert run_world(main) == []


def test_a_crash_in_the_middle_of_a_callback_of_that_node():
    witness = Witness()

    async def suicide(loop, reader, writer):
        loop.nodes.crash("a")
        writer.write(b"from the grave")
        loop.call_soon(witness.note, "soon")
        loop.create_task(stubborn(witness))
        await asyncio.sleep(0)
        witness.note("went on")

    async def serve(loop, into):
        into.append(await asyncio.start_server(lambda r, w: suicide(loop, r, w), "a", 1))
        await asyncio.sleep(1000)

    async def main(loop):
        start(loop, "a", serve(loop, []))
        await asyncio.sleep(1)
        reader, _ = await asyncio.open_connection("a", 1)
        with pytest.raises(ConnectionResetError):
            await reader.read()
        await asyncio.sleep(100)
        return list(witness.seen)

    assert run_world(main) == []


def test_the_dead_cannot_listen_or_connect_and_its_ports_are_free_again():
    async def serve(word):
        async def answer(reader, writer):
            writer.write(word)
            writer.close()

        await asyncio.start_server(answer, "a", 1)

    async def ask():
        reader, writer = await asyncio.open_connection("a", 1)
        answer = await reader.read()
        writer.close()
        return answer

    async def main(loop):
        start(loop, "a", serve(b"first"))
        await asyncio.sleep(1)
        assert await ask() == b"first"
        loop.nodes.crash("a")
        with pytest.raises(ConnectionRefusedError):
            await ask()
        start(loop, "a", serve(b"second"))
        await asyncio.sleep(1)
        return await ask()

    assert run_world(main) == b"second"


def test_an_old_incarnations_code_does_not_run_under_the_new_one():
    witness = Witness()

    async def tick(word):
        while True:
            await asyncio.sleep(1)
            witness.note(word)

    async def main(loop):
        start(loop, "a", tick("old"))
        await asyncio.sleep(2.5)
        loop.nodes.crash("a")
        start(loop, "a", tick("new"))
        await asyncio.sleep(2.5)
        return list(witness.seen)

    assert run_world(main) == ["old", "old", "new", "new"]


def test_a_gathering_parent_elsewhere_just_waits():
    """A live task that awaits a dead one is not told; nobody can know of a silent death."""
    witness = Witness()

    async def main(loop):
        task = start(loop, "a", stubborn(witness))
        await asyncio.sleep(1)
        loop.nodes.crash("a")
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(asyncio.shield(task), 10)
        return list(witness.seen)

    assert run_world(main) == []


def test_stubborn_coroutines_make_no_noise_when_they_are_disposed_of(capsys):
    witness = Witness()

    async def await_in_finally():
        try:
            await asyncio.sleep(1000)
        finally:
            await asyncio.sleep(1)

    async def swallow_everything():
        while True:
            try:
                await asyncio.sleep(1000)
            except BaseException:
                witness.note("refused to die")

    async def spawn_in_finally():
        try:
            await asyncio.sleep(1000)
        finally:
            asyncio.get_running_loop().create_task(asyncio.sleep(1))

    async def never_awaited():
        try:
            await asyncio.sleep(1000)
        finally:
            asyncio.sleep(5)

    async def main(loop):
        for work in (await_in_finally, swallow_everything, spawn_in_finally, never_awaited):
            start(loop, "a", work())
        await asyncio.sleep(1)
        loop.nodes.crash("a")
        await asyncio.sleep(1)

    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        run_world(main)
        gc.collect()
    assert [str(each.message) for each in caught] == []
    assert capsys.readouterr().err == ""


def test_a_dying_coroutine_cannot_touch_the_world_at_its_end():
    """Disposal runs ``finally`` blocks, but loop, transports and events are inert by then."""
    loop = sim.SimLoop(0)
    errors = []

    async def talker():
        _, writer = await asyncio.open_connection("b", 1)
        try:
            await asyncio.sleep(1000)
        finally:
            writer.write(b"last words")
            try:
                loop.create_task(asyncio.sleep(1))
            except Exception as error:
                errors.append(error)
            loop.call_soon(errors.append, "ran")
            loop.call_later(1, errors.append, "rang")

    async def main():
        server = await loop.create_server(asyncio.Protocol, "b", 1)
        start(loop, "a", talker())
        await asyncio.sleep(1)
        loop.nodes.crash("a")
        await asyncio.sleep(1)
        server.close()

    run_on(loop, main)
    digest = loop.trace.digest()
    gc.collect()
    assert errors == []
    assert loop.trace.digest() == digest


def test_crashing_twice_names_the_nodes_that_are_known():
    async def main(loop):
        start(loop, "a", asyncio.sleep(1000))
        loop.nodes.crash("a")
        with pytest.raises(SimulationError, match=r"node 'a' is not running.*a"):
            loop.nodes.crash("a")

    run_world(main)


def test_paused_callbacks_run_in_order_at_resume():
    witness = Witness()

    async def tick():
        for number in range(3):
            await asyncio.sleep(1)
            witness.note(number)

    async def main(loop):
        with loop.nodes.acting_as("a"):
            loop.create_task(tick())
            loop.call_later(2, witness.note, "two")
            loop.call_later(3, witness.note, "three")
        await asyncio.sleep(0.5)
        loop.nodes.pause("a")
        await asyncio.sleep(10)
        assert witness.seen == []
        loop.nodes.resume("a")
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        assert witness.seen == ["two", "three", 0]
        await asyncio.sleep(10)
        return witness.seen

    assert run_world(main) == ["two", "three", 0, 1, 2]


def test_a_paused_node_can_be_killed_and_restarted():
    witness = Witness()

    async def main(loop):
        start(loop, "a", stubborn(witness))
        await asyncio.sleep(1)
        loop.nodes.pause("a")
        await asyncio.sleep(2000)
        loop.nodes.crash("a")
        start(loop, "a", asyncio.sleep(1))
        await asyncio.sleep(10)
        return list(witness.seen)

    assert run_world(main) == []


def test_pausing_twice_and_resuming_the_running_are_refused():
    async def main(loop):
        start(loop, "a", asyncio.sleep(1000))
        with pytest.raises(SimulationError, match="not paused"):
            loop.nodes.resume("a")
        loop.nodes.pause("a")
        with pytest.raises(SimulationError, match="paused already"):
            loop.nodes.pause("a")

    run_world(main)
