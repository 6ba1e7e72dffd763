"""Seeds, policies, latencies and the trace, each by itself."""

import asyncio
import random
import statistics
from itertools import pairwise

import pytest

import sim
from sim.environment import SimEnvironment
from sim.handles import Delivery, SimHandle
from sim.policy import Pct
from sim.trace import Trace, TraceOptions
from storage.ids import TenantId
from storage.lsn import Lsn


def test_children_depend_on_root_and_name_only():
    draws = [sim.Seeds(7).child("link/a>b").random() for _ in range(2)]
    assert draws[0] == draws[1]
    others = [sim.Seeds(8).child("link/a>b"), sim.Seeds(7).child("link/b>a")]
    assert len({draws[0], *(child.random() for child in others)}) == 3


def test_a_draw_in_one_child_moves_no_other():
    seeds = sim.Seeds(7)
    one, other = seeds.child("one"), seeds.child("other")
    expected = seeds.child("other").random()
    one.random()
    assert other.random() == expected
    assert seeds.below("part").child("one").random() != seeds.child("one").random()


def test_negative_and_large_roots_are_roots():
    assert len({sim.Seeds(root).number("x") for root in (-1, 0, 1, 1 << 80)}) == 4


@pytest.mark.parametrize(
    ("latency", "low", "median", "high"),
    [
        (sim.Constant(0.5), 0.5, 0.5, 0.5),
        (sim.Uniform(1.0, 3.0), 1.0, 2.0, 3.0),
        (sim.Skewed(1.0, 3.0), 1.0, 1.5, 3.0),
        (sim.LogNormal(1.0, 0.5, 4.0), 0.0, 1.0, 4.0),
    ],
)
def test_latencies_follow_their_distribution(latency, low, median, high):
    sample = latency.sampler(random.Random(1))
    draws = [sample() for _ in range(4000)]
    assert low <= min(draws)
    assert max(draws) <= high
    assert statistics.median(draws) == pytest.approx(median, rel=0.05)


def context():
    import contextvars

    return contextvars.copy_context()


def taken(queue):
    order = []
    while queue:
        order.append(queue.take()._args[0])
    return order


def fill(queue, kind, count):
    for number in range(count):
        queue.push(kind(print, (number,), context()))


@pytest.mark.parametrize("policy", sim.POLICIES.values(), ids=lambda policy: policy.name)
def test_plain_callbacks_keep_their_order_and_none_is_lost(policy):
    for seed in range(20):
        queue = policy.ready_queue(random.Random(seed))
        fill(queue, SimHandle, 30)
        assert taken(queue) == list(range(30))


@pytest.mark.parametrize("policy", [sim.SeededRandom(), sim.Pct()], ids=lambda policy: policy.name)
def test_deliveries_are_permuted_and_none_is_lost(policy):
    orders = set()
    for seed in range(20):
        queue = policy.ready_queue(random.Random(seed))
        fill(queue, Delivery, 10)
        order = taken(queue)
        assert sorted(order) == list(range(10))
        orders.add(tuple(order))
    assert len(orders) == 20


def test_random_order_is_uniform():
    firsts = []
    for seed in range(3000):
        queue = sim.SeededRandom().ready_queue(random.Random(seed))
        fill(queue, Delivery, 3)
        firsts.append(queue.take()._args[0])
    assert all(850 < firsts.count(number) < 1150 for number in range(3))


def test_pct_with_depth_one_never_changes_priorities_and_more_depth_does():
    async def main():
        order = []

        async def work(number):
            for _ in range(20):
                order.append(number)
                await asyncio.sleep(0)

        async with asyncio.TaskGroup() as group:
            for number in range(3):
                group.create_task(work(number))
        return order

    def switches(depth, seed):
        order = sim.run(main, seed=seed, policy=Pct(depth=depth, steps=60))
        return sum(1 for one, other in pairwise(order) if one != other)

    assert {switches(1, seed) for seed in range(10)} == {2}
    assert max(switches(4, seed) for seed in range(10)) > 2
    with pytest.raises(AssertionError, match="depth of at least 1"):
        Pct(depth=0).ready_queue(random.Random(0))


def test_pct_does_not_let_a_spinner_starve_the_others():
    async def main():
        done = []

        async def spin():
            while not done:  # noqa: ASYNC110
                await asyncio.sleep(0)

        async def work():
            done.append(True)

        await asyncio.gather(spin(), work())

    for seed in range(10):
        sim.run(main, seed=seed, policy=sim.Pct())


def test_the_digest_does_not_depend_on_when_it_is_folded():
    def digest(fold_every):
        trace = Trace(TraceOptions(), 0.0)
        for number in range(100):
            trace.append((float(number), "instant", number))
            if fold_every and number % fold_every == 0:
                trace.fold()
        return trace.digest()

    assert digest(0) == digest(1) == digest(7)


def test_the_digest_sees_every_field():
    def digest(**changes):
        trace = Trace(TraceOptions(), 0.0)
        event = {"at_s": 1.0, "node": "a", "kind": "lsn", "fields": {"value": 1}} | changes
        trace.observe(**event)
        return trace.digest()

    variants = [
        {},
        {"at_s": 1.5},
        {"node": "b"},
        {"kind": "term"},
        {"fields": {"value": 2}},
        {"fields": {"valve": 1}},
        {"fields": {"value": "1"}},
        {"fields": {"value": None}},
    ]
    assert len({digest(**variant) for variant in variants}) == len(variants)


def test_values_of_our_own_types_become_plain():
    trace = Trace(TraceOptions(), 10.0)
    fields = {"tenant": TenantId("0" * 32), "lsn": Lsn(17), "yes": True, "none": None}
    trace.observe(11.5, "sk0", "lsn", fields)
    (event,) = trace.events()
    assert (event.at_s, event.node, event.kind) == (1.5, "sk0", "lsn")
    assert [type(value) for value in event.fields.values()] == [str, int, bool, type(None)]
    assert trace.digest()


def test_events_and_deliveries_come_in_order():
    async def main():
        loop = asyncio.get_running_loop()
        await loop.create_server(asyncio.Protocol, "b", 1)
        writer, _ = await loop.create_connection(asyncio.Protocol, "b", 1)
        loop.observe("harness", "before", {})
        writer.write(b"12345")
        await asyncio.sleep(1)
        loop.observe("harness", "after", {})
        writer.close()
        return loop.trace.events()

    before, message, after = sim.run(main)
    assert [before.kind, message.kind, after.kind] == ["before", "message", "after"]
    sent_us = message.fields["sent_us"]
    assert message.fields == {"src": "harness", "dst": "b", "bytes": 5, "sent_us": sent_us}
    assert before.at_s * 1e6 - 1 <= sent_us < message.at_s * 1e6
    assert before.at_s < message.at_s < after.at_s == pytest.approx(1, abs=0.01)


class Bell:
    def __init__(self, rung, name):
        self._cancelled = False
        self._rung = rung
        self._name = name

    def ring(self):
        self._rung.append(self._name)


def test_the_environment_rings_alarms_between_simpys_events():
    environment = SimEnvironment(100.0)
    rung = []
    environment.ring_at(102.0, Bell(rung, "second"))
    environment.ring_at(101.0, Bell(rung, "first"))
    environment.timeout(2.0).callbacks.append(lambda event: rung.append("simpy"))
    times = []
    while environment.advance():
        times.append(environment.now)
    assert (rung, times) == (["first", "simpy", "second"], [101.0, 102.0])


def test_an_alarm_in_the_past_rings_now():
    environment = SimEnvironment(100.0)
    rung = []
    environment.ring_at(50.0, Bell(rung, "late"))
    assert environment.advance()
    assert (rung, environment.now) == (["late"], 100.0)
    assert not environment.advance()
