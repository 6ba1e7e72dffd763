"""The contract of ``storage.ports.Broker``, on every implementation."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator

import pytest

from scenarios.ports.lab import Lab
from storage.errors import BrokerError
from storage.ports import Broker, BrokerUpdate, Leadership

LONG_S = 60.0
SHORT_S = 1.0
GRANULARITY_S = 1.0
SLACK_S = 1.5
"""What a busy machine may add to a time to live of the real world."""


async def _until(updates: AsyncIterator[BrokerUpdate], key: str, value: bytes | None) -> None:
    async for update in updates:
        if update == BrokerUpdate(key, value):
            return


async def _leads(broker: Broker, candidate: str, *, ttl_s: float = LONG_S) -> Leadership:
    leadership = await broker.campaign("election", candidate, ttl_s=ttl_s)
    assert await broker.leader("election") == candidate
    return leadership


async def test_published_values_are_found_by_prefix(lab: Lab) -> None:
    """The newest value of each key, from any node; a prefix is one of names, not of parts."""
    broker, other = lab.broker("a"), lab.broker("b")
    for key, value in (("p/1", b"old"), ("p/1", b"new"), ("p/22", b"\0\xff"), ("q", b"")):
        await broker.publish(key, value, ttl_s=LONG_S)

    assert await other.get("p/") == {"p/1": b"new", "p/22": b"\0\xff"}
    assert await other.get("p/2") == {"p/22": b"\0\xff"}
    assert await other.get("") == {"p/1": b"new", "p/22": b"\0\xff", "q": b""}
    assert await other.get("nothing") == {}


async def test_two_nodes_may_publish_one_key(lab: Lab) -> None:
    """The last one wins, and the first one may come back."""
    broker, other = lab.broker("a"), lab.broker("b")

    await broker.publish("k", b"1", ttl_s=LONG_S)
    await other.publish("k", b"2", ttl_s=LONG_S / 2)
    assert await broker.get("k") == {"k": b"2"}
    await broker.publish("k", b"3", ttl_s=LONG_S)
    assert await other.get("k") == {"k": b"3"}


async def test_a_time_to_live_must_be_positive(lab: Lab) -> None:
    """Zero is the caller's mistake, not an error of the broker."""
    broker = lab.broker()

    with pytest.raises(ValueError, match="ttl_s"):
        await broker.publish("k", b"", ttl_s=0.0)
    with pytest.raises(ValueError, match="ttl_s"):
        await broker.campaign("election", "a", ttl_s=-1.0)


async def test_a_subscriber_sees_what_is_there_and_what_comes(lab: Lab) -> None:
    """No gap between the two; each key's updates in order, perhaps with some left out."""
    broker, other = lab.broker("a"), lab.broker("b")
    await broker.publish("k/1", b"0", ttl_s=LONG_S)
    await broker.publish("other", b"", ttl_s=LONG_S)
    seen: list[BrokerUpdate] = []

    async with other.subscribe("k/") as updates:
        publishing = asyncio.ensure_future(_publish_numbers(broker, 30))
        async for update in updates:
            seen.append(update)
            if update == BrokerUpdate("k/2", b"30"):
                break
        await publishing

    assert {update.key for update in seen} == {"k/1", "k/2"}
    for key in ("k/1", "k/2"):
        numbers = [int(update.value or b"-1") for update in seen if update.key == key]
        assert numbers == sorted(set(numbers))
        assert numbers[-1] in (29, 30)


async def _publish_numbers(broker: Broker, last: int) -> None:
    for number in range(1, last + 1):
        await broker.publish(f"k/{2 - number % 2}", b"%d" % number, ttl_s=LONG_S)


async def test_subscribers_do_not_disturb_each_other(lab: Lab) -> None:
    """Each has its own stream, and leaving one ends only that."""
    broker = lab.broker("a")
    async with broker.subscribe("k") as first:
        async with broker.subscribe("k/1") as second:
            await broker.publish("k/1", b"x", ttl_s=LONG_S)
            await _until(second, "k/1", b"x")
            await _until(first, "k/1", b"x")
        await broker.publish("k/2", b"y", ttl_s=LONG_S)
        await _until(first, "k/2", b"y")


async def test_values_disappear_unless_they_are_published_again(lab: Lab) -> None:
    """Not before the time to live has passed, and at most a granularity after it."""
    loop = asyncio.get_running_loop()
    broker, other = lab.broker("a"), lab.broker("b")
    async with other.subscribe("k/") as updates:
        await broker.publish("k/renewed", b"", ttl_s=SHORT_S)
        begun_s = loop.time()
        await broker.publish("k/left", b"", ttl_s=SHORT_S)
        renewing = asyncio.ensure_future(_renew(broker, "k/renewed", SHORT_S))

        await _until(updates, "k/left", None)
        lived_s = loop.time() - begun_s

        assert await other.get("k/") == {"k/renewed": b""}
        renewing.cancel()
        await asyncio.gather(renewing, return_exceptions=True)
    assert SHORT_S * 0.9 <= lived_s <= SHORT_S + GRANULARITY_S + SLACK_S


async def _renew(broker: Broker, key: str, ttl_s: float) -> None:
    while True:
        await broker.publish(key, b"", ttl_s=ttl_s)
        await asyncio.sleep(ttl_s / 4)


async def test_the_first_candidate_leads(lab: Lab) -> None:
    """One at a time, in the order of their coming, each with a larger token."""
    brokers = {node: lab.broker(node) for node in ("a", "b", "c")}
    assert await brokers["a"].leader("election") is None
    first = await _leads(brokers["a"], "a")
    second_waits = asyncio.ensure_future(brokers["b"].campaign("election", "b", ttl_s=LONG_S))
    await _candidates(brokers["c"], 2)
    third_waits = asyncio.ensure_future(brokers["c"].campaign("election", "c", ttl_s=LONG_S))
    await _candidates(brokers["c"], 3)
    assert not second_waits.done()

    await first.resign()
    second = await second_waits

    assert await brokers["a"].leader("election") == "b"
    assert not third_waits.done()
    await second.resign()
    third = await third_waits
    assert await brokers["a"].leader("election") == "c"
    assert first.fencing_token < second.fencing_token < third.fencing_token
    await third.resign()
    assert await brokers["a"].leader("election") is None


async def _candidates(broker: Broker, count: int) -> None:
    """Return when so many candidates stand for ``election``."""
    standing: set[str] = set()
    async with broker.subscribe("election/") as updates:
        while len(standing) < count:
            update = await anext(updates)
            (standing.discard if update.value is None else standing.add)(update.key)


async def test_elections_are_independent(lab: Lab) -> None:
    """One node may lead several, even where one name begins like another."""
    broker = lab.broker()

    one = await broker.campaign("election", "a", ttl_s=LONG_S)
    two = await broker.campaign("election-2", "b", ttl_s=LONG_S)

    assert await broker.leader("election") == "a"
    assert await broker.leader("election-2") == "b"
    await one.resign()
    assert await broker.leader("election-2") == "b"
    await two.resign()


async def test_resigning_tells_whoever_waits(lab: Lab) -> None:
    """``lost`` returns, also for one who asks later; resigning again is harmless."""
    leadership = await _leads(lab.broker(), "a")
    waiting = asyncio.ensure_future(leadership.lost())
    await asyncio.sleep(0)
    assert not waiting.done()

    await leadership.resign()

    await waiting
    await leadership.lost()
    await leadership.resign()


async def test_a_cancelled_campaign_leaves_nothing(lab: Lab) -> None:
    """No key that could ever win, and no task that keeps one alive."""
    broker, other = lab.broker("a"), lab.broker("b")
    leader = await _leads(broker, "a")
    waiting = asyncio.ensure_future(other.campaign("election", "b", ttl_s=LONG_S))
    await _candidates(broker, 2)
    assert "lease of b in election" in _task_names()

    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting

    assert len(await broker.get("election/")) == 1
    assert "lease of b in election" not in _task_names()
    await leader.resign()
    assert await broker.leader("election") is None


def _task_names() -> list[str]:
    return [task.get_name() for task in asyncio.all_tasks()]


async def test_a_campaign_cancelled_at_any_moment_leaves_nothing(lab: Lab) -> None:
    """Also before it stands, and also when it has just won."""
    broker, other = lab.broker("a"), lab.broker("b")
    for turns in range(0, 40, 3):
        campaign = asyncio.ensure_future(broker.campaign("election", "a", ttl_s=LONG_S))
        for _ in range(turns):
            await asyncio.sleep(0)
        campaign.cancel()
        outcome = (await asyncio.gather(campaign, return_exceptions=True))[0]
        if not isinstance(outcome, BaseException):
            await outcome.resign()
    assert await other.get("election/") == {}


async def test_a_leader_is_kept_beyond_its_time_to_live(lab: Lab) -> None:
    """Its node renews the lease without being asked."""
    broker, other = lab.broker("a"), lab.broker("b")
    leadership = await _leads(broker, "a", ttl_s=SHORT_S)
    async with other.subscribe("measure") as updates:
        await other.publish("measure", b"", ttl_s=2 * SHORT_S)
        await _until(updates, "measure", None)

    assert await other.leader("election") == "a"
    await leadership.resign()


async def test_a_crashed_leader_is_replaced(lab: Lab) -> None:
    """Its lease runs out by itself; the next one has the larger token."""
    broker, other = lab.broker("a"), lab.broker("b")
    old = await _leads(broker, "a", ttl_s=SHORT_S)

    await lab.crash_broker_client("a")
    new = await _leads(other, "b")

    assert new.fencing_token > old.fencing_token
    await new.resign()


async def test_a_leader_that_is_cut_off_learns_it(lab: Lab) -> None:
    """By its own clock, not later than the lease can be someone else's; then another leads."""
    loop = asyncio.get_running_loop()
    broker, other = lab.broker("a"), lab.broker("b")
    old = await _leads(broker, "a", ttl_s=SHORT_S)
    waiting = asyncio.ensure_future(_leads(other, "b"))

    await lab.cut_broker("a")
    cut_s = loop.time()
    await old.lost()
    learned_s = loop.time() - cut_s
    replaced_before = waiting.done()
    new = await waiting

    assert learned_s <= SHORT_S + SLACK_S
    assert not replaced_before
    assert new.fencing_token > old.fencing_token
    await lab.heal_broker("a")
    await new.resign()


async def test_an_outage_is_an_error_and_ends(lab: Lab) -> None:
    """Calls fail, streams break, campaigns fail; all of it works again afterwards."""
    broker, other = lab.broker("a"), lab.broker("b")
    await broker.publish("k", b"x", ttl_s=LONG_S)
    leadership = await _leads(broker, "a")
    waiting = asyncio.ensure_future(other.campaign("election", "b", ttl_s=LONG_S))
    await _candidates(broker, 2)
    async with other.subscribe("k") as updates:
        await _until(updates, "k", b"x")
        await lab.broker_outage()
        with pytest.raises(BrokerError):
            await anext(updates)
    with pytest.raises(BrokerError):
        await waiting
    for call in (lambda: broker.publish("k", b"y", ttl_s=LONG_S), lambda: broker.get("k")):
        with pytest.raises(BrokerError):
            await call()

    await lab.broker_restore()
    await _eventually_publishes(broker, "after")
    await _eventually_publishes(other, "after")

    async with other.subscribe("after") as updates:
        await _until(updates, "after", b"")
    assert await broker.leader("election") == "a"
    await leadership.resign()


async def _eventually_publishes(broker: Broker, key: str) -> None:
    """A client may need a moment until it has connected again."""
    async with asyncio.timeout(10.0):
        while True:
            with contextlib.suppress(BrokerError):
                await broker.publish(key, b"", ttl_s=LONG_S)
                return
            await asyncio.sleep(0.05)


async def test_a_silent_stream_breaks(lab: Lab) -> None:
    """A subscriber behind a black hole is told in the end, rather than left with old values."""
    broker, other = lab.broker("a"), lab.broker("b")
    await broker.publish("k", b"old", ttl_s=LONG_S)
    async with other.subscribe("k") as updates:
        await _until(updates, "k", b"old")
        await lab.cut_broker("b")
        await broker.publish("k", b"new", ttl_s=LONG_S)
        with pytest.raises(BrokerError):
            await _until(updates, "k", b"new")

    await lab.heal_broker("b")
    await _eventually_publishes(other, "after")
    async with other.subscribe("k") as updates:
        await _until(updates, "k", b"new")
