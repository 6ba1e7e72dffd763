"""The loop keeps asyncio's contracts on virtual time, and says clearly what it does not do."""

import asyncio
import inspect
import math

import pytest

import sim
from sim.errors import WorldOver
from sim.loop import START_S
from sim.unsupported import UnsupportedApis


def test_time_is_virtual_and_starts_far_from_zero():
    async def main():
        loop = asyncio.get_running_loop()
        assert loop.time() == START_S > 1e6
        await asyncio.sleep(3600)
        return loop.time() - START_S

    assert sim.run(main) == 3600


def test_timers_fire_in_order_of_time_then_of_creation():
    async def main():
        loop = asyncio.get_running_loop()
        order = []
        for name, delay in (("c", 2), ("a", 1), ("d", 2), ("b", 1)):
            loop.call_later(delay, order.append, name)
        await asyncio.sleep(3)
        return order

    assert sim.run(main) == ["a", "b", "c", "d"]


def test_callbacks_run_in_order_under_every_policy():
    """What ``call_soon`` promises must hold even where tasks are permuted."""

    async def main():
        order = []
        loop = asyncio.get_running_loop()
        for number in range(20):
            loop.call_soon(order.append, number)
        await asyncio.sleep(1)
        return order

    for policy in sim.POLICIES.values():
        for seed in range(5):
            assert sim.run(main, seed=seed, policy=policy) == list(range(20))


@pytest.mark.parametrize("when", [math.nan, math.inf])
def test_times_that_never_come_are_refused(when):
    async def main():
        with pytest.raises(ValueError, match="cannot schedule"):
            asyncio.get_running_loop().call_at(when, print)

    sim.run(main)


def test_a_timer_in_the_past_fires_now():
    async def main():
        loop = asyncio.get_running_loop()
        fired = loop.create_future()
        loop.call_later(-5, fired.set_result, loop.time())
        return await fired == loop.time()

    assert sim.run(main)


def test_cancelled_timers_do_not_leak():
    async def main():
        loop = asyncio.get_running_loop()
        live = [loop.call_later(10, print) for _ in range(100)]
        for _ in range(20_000):
            loop.call_later(1000, print).cancel()
        assert len(loop.environment) < 500
        for timer in live:
            timer.cancel()
            timer.cancel()
            assert timer.cancelled()
        await asyncio.sleep(1)
        return len(loop.environment)

    assert sim.run(main) < 200


def test_a_cancelled_timer_does_not_move_time():
    async def main():
        loop = asyncio.get_running_loop()
        loop.call_later(500, print).cancel()
        await asyncio.sleep(1)
        return loop.time() - START_S

    assert sim.run(main) == 1
    loop = sim.SimLoop(0)
    loop.call_later(500, print).cancel()
    with pytest.raises(sim.Deadlock):
        loop.run_until_complete(loop.create_future())
    assert loop.time() == START_S
    loop.close()


def test_cancelling_a_ready_handle():
    async def main():
        seen = []
        handle = asyncio.get_running_loop().call_soon(seen.append, 1)
        handle.cancel()
        assert handle.cancelled()
        await asyncio.sleep(1)
        return seen

    assert sim.run(main) == []


def test_asyncio_primitives_work():
    async def main():
        queue, event, condition = asyncio.Queue(1), asyncio.Event(), asyncio.Condition()
        log = []

        async def produce():
            for number in range(3):
                await queue.put(number)
            event.set()

        async def consume():
            for _ in range(3):
                log.append(await queue.get())
            async with condition:
                condition.notify_all()

        async def wait():
            async with condition:
                await condition.wait()
            log.append("notified")

        await asyncio.gather(wait(), produce(), consume(), event.wait())
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(1):
                await asyncio.sleep(2)
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(asyncio.sleep(2), 1)
        assert await asyncio.gather(asyncio.sleep(1, "a"), asyncio.sleep(0.5, "b")) == ["a", "b"]
        async with asyncio.Semaphore(1), asyncio.Lock():
            return log

    assert sim.run(main) == [0, 1, 2, "notified"]


def refusals():
    return [
        name
        for name, member in vars(UnsupportedApis).items()
        if inspect.isfunction(member) and name != "refuse_tls"
    ]


@pytest.mark.parametrize("name", refusals())
def test_unsupported_apis_name_themselves_and_an_alternative(name):
    loop = sim.SimLoop(0)
    with pytest.raises(NotImplementedError, match=rf"no loop\.{name}; \w+"):
        getattr(loop, name)()
    loop.close()


def test_nothing_of_the_abstract_loop_is_left_undefined():
    untouched = {
        name
        for name in dir(asyncio.AbstractEventLoop)
        if not name.startswith("_")
        and getattr(sim.SimLoop, name) is getattr(asyncio.AbstractEventLoop, name)
    }
    assert untouched == set()


def test_threads_through_asyncio_are_refused():
    async def main():
        with pytest.raises(sim.UnsupportedApi, match="no threads"):
            await asyncio.to_thread(print)

    sim.run(main)


def test_task_factories_are_refused():
    loop = sim.SimLoop(0)
    loop.set_task_factory(None)
    with pytest.raises(sim.UnsupportedApi, match="task factories"):
        loop.set_task_factory(lambda loop, coroutine: None)
    assert loop.get_task_factory() is None
    loop.close()


def test_a_closed_loop_starts_nothing():
    loop = sim.SimLoop(0)
    loop.close()
    loop.close()
    assert loop.is_closed()
    with pytest.raises(WorldOver):
        loop.create_task(asyncio.sleep(0))
    with pytest.raises(WorldOver):
        loop.run_forever()


def test_loops_do_not_nest():
    async def main():
        inner = sim.SimLoop(0)
        with pytest.raises(RuntimeError, match="another event loop"):
            inner.run_forever()
        inner.close()

    sim.run(main)


def test_asyncio_runner_can_drive_it():
    async def main():
        await asyncio.sleep(10)
        return asyncio.get_running_loop().time()

    with asyncio.Runner(loop_factory=lambda: sim.SimLoop(0)) as runner:
        assert runner.run(main()) == START_S + 10


def test_simpy_processes_share_the_clock():
    """Ports may use simpy's resources; their events resolve futures of the loop."""

    async def main():
        loop = asyncio.get_running_loop()
        environment = loop.environment
        done = loop.create_future()

        def process():
            yield environment.timeout(5)
            yield environment.timeout(0)
            done.set_result(environment.now)

        environment.process(process())
        return await done - START_S, loop.time() - START_S

    assert sim.run(main) == (5, 5)
