"""The simulated broker's troubles: leases, lag, broken and half-open streams, lost elections."""

import asyncio

import pytest

import sim
from sim.broker import BrokerOptions, SimBroker
from sim.latency import Constant, Uniform
from sim.loop import SimLoop
from sim.run import run_on
from storage.errors import BrokerError
from storage.ports import BrokerUpdate


class Process:
    def __init__(self):
        self.alive = True


def run(test, seed=0, options=None):
    loop = SimLoop(seed)

    async def main():
        return await test(SimBroker(loop, loop.seeds.child("broker"), options), loop)

    return run_on(loop, main)


async def until(updates, key, value):
    async for update in updates:
        if update == BrokerUpdate(key, value):
            return


def test_a_lease_ends_between_its_deadline_and_a_granularity_later():
    async def test(broker, loop):
        view = broker.view("a")
        await view.publish("k", b"x", ttl_s=3.0)
        published_s = loop.time()
        async with broker.admin().subscribe("k") as updates:
            await until(updates, "k", None)
        assert broker.effects()["leases_expired"] == 1
        return loop.time() - published_s

    lives = [run(test, seed) for seed in range(30)]

    assert 2.9 <= min(lives) < 3.6
    assert 5.0 < max(lives) <= 6.1 + 1.0


def test_publishing_again_renews():
    async def test(broker, loop):
        view = broker.view("a")
        for _ in range(20):
            await view.publish("k", b"x", ttl_s=1.0)
            await asyncio.sleep(0.9)
        assert await view.get("k") == {"k": b"x"}
        await asyncio.sleep(2.1)
        assert await view.get("k") == {}

    run(test)


def test_changes_lag_but_keep_their_order():
    options = BrokerOptions(watch_lag=Uniform(0.0, 5.0), skip_probability=0.0)

    async def test(broker, loop):
        view, seen = broker.view("a"), []
        async with broker.view("b").subscribe("k") as updates:
            for number in range(10):
                await view.publish("k", b"%d" % number, ttl_s=60.0)
            published_s = loop.time()
            async for update in updates:
                seen.append(int(update.value))
                if seen[-1] == 9:
                    break
        assert seen == list(range(10))
        return loop.time() - published_s

    assert max(run(test, seed, options) for seed in range(5)) > 1.0


def test_an_unread_value_may_be_skipped_for_a_newer_one():
    async def test(broker, loop):
        view = broker.view("a")
        async with broker.view("b").subscribe("k") as updates:
            for number in range(20):
                await view.publish("k", b"%d" % number, ttl_s=60.0)
            await asyncio.sleep(10)
            seen = [0]
            while seen[-1] != 19:
                seen.append(int((await anext(updates)).value))
            return seen[1:]

    seen = run(test)

    assert 1 < len(seen) < 20
    assert seen == sorted(seen)


def test_an_outage_stops_the_clock_of_leases_and_renews_them():
    async def test(broker, loop):
        await broker.view("a").publish("k", b"x", ttl_s=2.0)
        broker.outage()
        await asyncio.sleep(100)
        assert await broker.admin().get("k") == {"k": b"x"}
        broker.restore()
        await asyncio.sleep(1.9)
        assert await broker.admin().get("k") == {"k": b"x"}
        await asyncio.sleep(2.2)
        assert await broker.admin().get("k") == {}

    run(test)


def test_an_outage_breaks_streams_once():
    async def test(broker, loop):
        async with broker.view("a").subscribe("k") as updates:
            broker.outage()
            with pytest.raises(BrokerError, match="went away"):
                await anext(updates)
        with pytest.raises(BrokerError):
            async with broker.view("a").subscribe("k"):
                pytest.fail("there is no broker to subscribe to")
        broker.restore()
        assert broker.effects()["streams_broken"] == 1

    run(test)


def test_a_half_open_stream_is_silent_until_its_keep_alive_notices():
    async def test(broker, loop):
        view = broker.view("a")
        async with view.subscribe("k") as updates:
            broker.half_open("a")
            muted_s = loop.time()
            await view.publish("k", b"x", ttl_s=60.0)
            assert await view.get("k") == {"k": b"x"}
            with pytest.raises(BrokerError, match="keep-alive"):
                await anext(updates)
            assert loop.time() - muted_s == pytest.approx(broker.options.keepalive_s)
        async with view.subscribe("k") as updates:
            assert await anext(updates) == BrokerUpdate("k", b"x")
        assert broker.effects()["streams_muted"] == 1

    run(test)


def test_a_short_cut_only_delays_a_stream():
    options = BrokerOptions(skip_probability=0.0)

    async def test(broker, loop):
        async with broker.view("b").subscribe("k") as updates:
            broker.cut("b")
            for number in range(3):
                await broker.view("a").publish("k", b"%d" % number, ttl_s=60.0)
            reading = asyncio.ensure_future(anext(updates))
            await asyncio.sleep(options.keepalive_s / 2)
            assert not reading.done()
            broker.heal("b")
            assert (await reading).value == b"0"
            assert (await anext(updates)).value == b"1"
            await asyncio.sleep(options.keepalive_s)
            assert (await anext(updates)).value == b"2"
        assert broker.effects()["streams_broken"] == 0

    run(test, options=options)


def test_leaving_or_dying_ends_a_watch_on_the_brokers_side():
    async def test(broker, loop):
        process = Process()
        async with broker.view("a").subscribe(""):
            pass
        dying = broker.view("b", process).subscribe("")
        await dying.__aenter__()
        process.alive = False
        await broker.view("c").publish("k", b"", ttl_s=60.0)
        assert broker._watches == []

    run(test)


def test_a_subscription_cancelled_at_any_moment_leaves_no_watch():
    async def test(broker, loop):
        async def subscribe():
            async with broker.view("a").subscribe("") as updates:
                await anext(updates)

        for turn in range(60):
            task = asyncio.ensure_future(subscribe())
            await asyncio.sleep(turn * 0.0001)
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
        await asyncio.sleep(10)
        await broker.view("c").publish("k", b"", ttl_s=60.0)
        assert broker._watches == []

    run(test)


def test_a_crashed_leaders_lease_runs_out_and_a_dead_candidate_never_wins():
    async def test(broker, loop):
        processes = {name: Process() for name in "abc"}
        views = {name: broker.view(name, process) for name, process in processes.items()}
        first = await views["a"].campaign("e", "a", ttl_s=2.0)
        dead = asyncio.ensure_future(views["b"].campaign("e", "b", ttl_s=2.0))
        await asyncio.sleep(1)
        waiting = asyncio.ensure_future(views["c"].campaign("e", "c", ttl_s=2.0))
        await asyncio.sleep(1)
        processes["a"].alive = processes["b"].alive = False
        crashed_s = loop.time()
        second = await waiting
        assert await broker.admin().leader("e") == "c"
        assert second.fencing_token > first.fencing_token
        assert 1.0 < loop.time() - crashed_s < 5.0
        dead.cancel()

    for seed in range(5):
        run(test, seed)


def test_a_paused_leader_loses_its_lease_and_learns_it_when_it_resumes():
    async def test(broker, loop):
        async def lead():
            leadership = await broker.view("a", incarnation).campaign("e", "a", ttl_s=2.0)
            leading.set()
            await leadership.lost()
            learned.set()

        leading, learned = asyncio.Event(), asyncio.Event()
        with loop.nodes.acting_as("a") as incarnation:
            loop.create_task(lead())
        await leading.wait()
        loop.nodes.pause("a")
        other = await broker.view("b").campaign("e", "b", ttl_s=2.0)
        assert not learned.is_set()
        loop.nodes.resume("a")
        await asyncio.wait_for(learned.wait(), 2.0)
        await other.resign()

    run(test)


def test_a_leader_that_is_cut_off_knows_before_its_lease_can_end():
    async def test(broker, loop):
        leadership = await broker.view("a").campaign("e", "a", ttl_s=3.0)
        await asyncio.sleep(10)
        broker.cut("a")
        cut_s = loop.time()
        await leadership.lost()
        assert 2.0 - 0.01 <= loop.time() - cut_s <= 3.0
        assert await broker.admin().leader("e") == "a"

    for seed in range(10):
        run(test, seed)


def test_two_leaders_may_believe_in_themselves_but_their_tokens_tell_them_apart():
    """A leader whose clock stood still still leads in its own eyes: check the token."""

    async def test(broker, loop):
        with loop.nodes.acting_as("a") as incarnation:
            old = await broker.view("a", incarnation).campaign("e", "a", ttl_s=2.0)
        loop.nodes.pause("a")
        new = await broker.view("b").campaign("e", "b", ttl_s=2.0)
        assert not old._over.is_set()
        assert new.fencing_token > old.fencing_token
        await new.resign()

    run(test)


def test_a_lease_can_be_expired_by_hand():
    async def test(broker, loop):
        leadership = await broker.view("a").campaign("e", "a", ttl_s=30.0)
        [key] = await broker.admin().get("e/")
        broker.expire(key)
        assert await broker.admin().leader("e") is None
        await asyncio.wait_for(leadership.lost(), 11.0)
        with pytest.raises(ValueError, match="nothing"):
            broker.expire("nothing")

    run(test)


def test_a_waiting_candidate_whose_lease_ran_out_is_told():
    async def test(broker, loop):
        leadership = await broker.view("a").campaign("e", "a", ttl_s=30.0)
        waiting = asyncio.ensure_future(broker.view("b").campaign("e", "b", ttl_s=30.0))
        await asyncio.sleep(1)
        broker.expire(sorted(await broker.admin().get("e/"))[1])
        with pytest.raises(BrokerError, match="ran out"):
            await waiting
        await leadership.resign()

    run(test)


def test_a_campaign_under_faults_leaves_nothing_when_it_fails():
    async def test(broker, loop):
        for _ in range(30):
            campaign = asyncio.ensure_future(broker.view("a").campaign("e", "a", ttl_s=2.0))
            await asyncio.sleep(broker._generator.random() * 0.02)
            broker.outage()
            outcome = (await asyncio.gather(campaign, return_exceptions=True))[0]
            broker.restore()
            if not isinstance(outcome, BaseException):
                await outcome.resign()
        await asyncio.sleep(10)
        assert await broker.admin().get("e/") == {}
        assert broker.store._leases == {}
        assert len(asyncio.all_tasks()) == 1

    run(test)


def test_the_oracle_sees_past_every_fault():
    async def test(broker, loop):
        await broker.view("a").publish("k", b"x", ttl_s=60.0)
        broker.outage()
        begun_s = loop.time()
        assert await broker.admin().get("") == {"k": b"x"}
        async with broker.admin().subscribe("") as updates:
            assert await anext(updates) == BrokerUpdate("k", b"x")
        assert loop.time() == begun_s

    run(test)


def test_same_seed_same_story():
    async def test(broker, loop):
        seen = []
        async with broker.view("b").subscribe("") as updates:
            for number in range(20):
                await broker.view("a").publish(f"k{number % 3}", b"%d" % number, ttl_s=1.0)
            while len(await broker.admin().get("")):
                update = await anext(updates)
                seen.append((loop.time(), update.key, update.value))
        return seen

    assert run(test, 1) == run(test, 1)
    assert run(test, 1) != run(test, 2)


def test_constant_costs_are_constant():
    options = BrokerOptions(watch_lag=Constant(0.5), skip_probability=0.0)

    async def test(broker, loop):
        async with broker.view("b").subscribe("k") as updates:
            await broker.admin().publish("k", b"x", ttl_s=60.0)
            published_s = loop.time()
            await anext(updates)
            assert loop.time() - published_s == pytest.approx(0.5)

    run(test, options=options)
    assert sim.current_node() == "harness"
