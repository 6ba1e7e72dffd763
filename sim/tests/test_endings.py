"""How runs end: deadlock, livelock, failures nobody awaited, left-over tasks, whole worlds."""

import asyncio
import gc
import threading
import weakref

import pytest

import sim


def test_deadlock_names_what_every_task_awaits():
    async def main():
        async def stuck_on_a_queue():
            await asyncio.Queue().get()

        loop = asyncio.get_running_loop()
        with loop.nodes.acting_as("sk0"):
            task = loop.create_task(stuck_on_a_queue(), name="stuck")
        await asyncio.shield(task)

    with pytest.raises(
        sim.Deadlock,
        match=r"\[harness\] main: .*\n.*\[sk0\] stuck: .*stuck_on_a_queue .* > Queue.get",
    ):
        sim.run(main)


def test_a_deadlock_on_a_paused_node_says_so():
    async def main():
        loop = asyncio.get_running_loop()
        with loop.nodes.acting_as("sk0"):
            task = loop.create_task(asyncio.sleep(5))
        await asyncio.sleep(1)
        loop.nodes.pause("sk0")
        await asyncio.shield(task)

    with pytest.raises(sim.Deadlock, match=r"\[sk0, paused\] task-\d+: sleep"):
        sim.run(main)


def test_other_threads_cannot_call_the_loop():
    caught = []

    def call(loop):
        try:
            loop.call_soon_threadsafe(print)
        except sim.Nondeterminism as error:
            caught.append(str(error))

    loop = sim.SimLoop(0)
    thread = threading.Thread(target=call, args=(loop,))
    thread.start()
    thread.join()
    loop.close()
    assert caught == ["another thread called the loop; a simulation has one thread only"]


def test_livelock_names_the_callback():
    async def main():
        while True:  # noqa: ASYNC110
            await asyncio.sleep(0)

    loop = sim.SimLoop(0, sim.LoopOptions(callbacks_per_instant_max=1000))
    with pytest.raises(sim.Livelock, match=r"more than 1000 callbacks.*task main"):
        sim.run_on(loop, main)


def test_the_scenarios_own_failures_fail_the_run():
    async def fail():
        raise ValueError("background")

    async def failing_task():
        task = asyncio.create_task(fail())
        await asyncio.sleep(1)
        assert task.done()

    async def dropped_task():
        asyncio.create_task(fail())  # noqa: RUF006
        await asyncio.sleep(1)

    async def failing_callback():
        asyncio.get_running_loop().call_soon(lambda: 1 / 0)
        await asyncio.sleep(1)

    for main, message in (
        (failing_task, "background"),
        (dropped_task, "background"),
        (failing_callback, "division by zero"),
    ):
        with pytest.raises(sim.ScenarioFailed, match=message):
            sim.run(main)


def test_a_cleanup_that_fails_does_not_hide_the_first_failure():
    async def main():
        async def stuck():
            try:
                await asyncio.sleep(1000)
            finally:
                await asyncio.get_running_loop().create_future()

        task = asyncio.create_task(stuck())
        await asyncio.sleep(1)
        raise ValueError(f"first, before {task.get_name()}")

    with pytest.raises(ValueError, match="first") as caught:
        sim.run(main)
    assert "wait for ever" in caught.value.__notes__[0]


def test_a_failure_somebody_awaits_later_is_no_failure_of_the_run():
    async def main():
        async def fail():
            raise ValueError("expected")

        task = asyncio.create_task(fail())
        await asyncio.sleep(1)
        with pytest.raises(ValueError, match="expected"):
            await task
        results = await asyncio.gather(fail(), fail(), return_exceptions=True)
        return [str(each) for each in results]

    assert sim.run(main) == ["expected", "expected"]


def test_an_exception_handler_takes_over():
    async def main():
        seen = []
        loop = asyncio.get_running_loop()
        loop.set_exception_handler(lambda loop, context: seen.append(context["exception"]))
        loop.call_soon(lambda: 1 / 0)
        await asyncio.sleep(1)
        assert loop.get_exception_handler() is not None
        return [type(each) for each in seen]

    assert sim.run(main) == [ZeroDivisionError]


def test_tasks_left_over_are_cancelled_and_may_clean_up():
    seen = []

    async def forever():
        try:
            await asyncio.sleep(1e9)
        finally:
            await asyncio.sleep(1)
            seen.append("cleaned up")

    async def main():
        task = asyncio.create_task(forever())
        await asyncio.sleep(1)
        assert not task.done()

    sim.run(main)
    assert seen == ["cleaned up"]


def test_asynchronous_generators_are_closed_at_the_end():
    seen = []

    async def numbers():
        try:
            yield 1
        finally:
            seen.append("closed")

    async def main():
        generator = numbers()
        await anext(generator)
        seen.append(generator)

    sim.run(main)
    assert seen[1:] == ["closed"]


def test_worlds_in_one_process_do_not_grow():
    async def main():
        loop = asyncio.get_running_loop()

        async def stubborn():
            try:
                await asyncio.sleep(1000)
            finally:
                await asyncio.sleep(1)

        async def serve():
            await loop.create_server(asyncio.Protocol, "a", 1)
            await stubborn()

        with loop.nodes.acting_as("a"):
            tasks = [loop.create_task(work) for work in (stubborn(), serve())]
        await asyncio.sleep(1)
        _, writer = await asyncio.open_connection("a", 1)
        writer.close()
        loop.nodes.crash("a")
        await asyncio.sleep(1)
        assert not any(task.done() for task in tasks)

    def world():
        loop = sim.SimLoop(0)
        sim.run_on(loop, main)
        return weakref.ref(loop)

    loops = [world() for _ in range(50)]
    gc.collect()
    before = len(gc.get_objects())
    loops += [world() for _ in range(2000)]
    gc.collect()
    alive = [ref for ref in loops if ref() is not None]
    assert len(alive) <= 1  # asyncio's C code remembers the last loop that ran.
    assert len(gc.get_objects()) - before < 200 + len(loops)
