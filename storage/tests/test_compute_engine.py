"""The primary's core: group commit, isolation, what a read may show, and the page cache's rules."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Coroutine
from typing import Any

import pytest

from storage.compute.commit_log import OutcomeUnknown
from storage.compute.transact import Add, Append, Read, Step
from storage.errors import BadRequest, CorruptData, NotReady, SeawallError
from storage.kv import page as kv
from storage.lsn import Lsn
from storage.tests.compute_world import START, Compute, turns

AsyncTest = Callable[[], Coroutine[Any, Any, None]]


def run(test: AsyncTest) -> None:
    asyncio.run(asyncio.wait_for(test(), 10))


def test_writes_are_read_back_through_a_cache_smaller_than_the_data() -> None:
    async def test() -> None:
        compute = Compute(capacity=2)
        entropy = random.Random(5)
        model: dict[int, bytes] = {}
        for number in range(600):
            key = entropy.randrange(300)
            value = None if entropy.random() < 0.2 else b"v%d" % number
            await compute.engine.write({key: value})
            model.pop(key, None)
            if value is not None:
                model[key] = value
            probe = entropy.randrange(300)
            assert await compute.value(probe) == model.get(probe)
            assert len(compute.cache) <= 2
        assert await compute.rows(0, 300) == model
        assert await compute.rows(100, 200) == {k: v for k, v in model.items() if 100 <= k < 200}
        assert len(compute.pageserver.requests) > 100

    run(test)


def test_steps_see_what_steps_before_left_and_count_once() -> None:
    async def test() -> None:
        compute = Compute(capacity=1)
        await compute.engine.write({1: b"a", 40: b"10"})
        steps = [
            Append(1, b"b"),
            Read(1),
            Add(40, -25),
            Append(90, b"c"),
            Read(91),
            Append(1, b"d"),
        ]
        executed, lsn = await compute.engine.transact(steps)
        assert executed.values == [b"a,b", b"a,b", b"-15", b"c", None, b"a,b,d"]
        assert await compute.rows(0, 100) == {1: b"a,b,d", 40: b"-15", 90: b"c"}
        assert (await compute.engine.get(1)).lsn == lsn

    run(test)


def test_concurrent_steps_on_one_key_lose_nothing() -> None:
    async def test() -> None:
        compute = Compute()
        found = await asyncio.gather(
            *(compute.engine.transact([Append(7, b"%d" % n), Add(70, 1)]) for n in range(30))
        )
        lengths = [len(executed.values[0].split(b",")) for executed, _ in found]
        assert sorted(lengths) == list(range(1, 31))
        assert [lsn for _, lsn in found] == sorted({lsn for _, lsn in found})
        assert await compute.value(70) == b"30"

    run(test)


@pytest.mark.parametrize("steps", [[Append(1, b"x" * 240)], [Add(1, 1)]])
def test_steps_that_cannot_be_done_change_nothing(steps: list[Step]) -> None:
    async def test() -> None:
        compute = Compute()
        before = await compute.engine.write({1: b"word"})
        with pytest.raises(BadRequest):
            await compute.engine.transact([Append(2, b"z"), *steps])
        assert await compute.rows(0, 9) == {1: b"word"}
        assert (await compute.engine.get(1)).lsn == before

    run(test)


def test_concurrent_transactions_leave_in_one_run_and_in_order_of_arrival() -> None:
    async def test() -> None:
        compute = Compute()
        results = await asyncio.gather(*(compute.engine.write({key: b"x"}) for key in (3, 1, 2, 1)))
        assert len(compute.quorum.runs) == 1
        assert results == sorted(results)
        assert len(set(results)) == 4

    run(test)


def test_transactions_on_one_page_build_on_each_other_before_any_is_committed() -> None:
    async def test() -> None:
        compute = Compute(commits_by_itself=False)
        writes = [asyncio.create_task(compute.engine.write({n % 8: b"n%d" % n})) for n in range(40)]
        await turns()
        compute.quorum.commit()
        await asyncio.gather(*writes)
        compute.pageserver.redo()
        page = kv.decode(compute.pageserver.pages[0])
        assert page is not None
        assert page.version == 40
        assert page.entries == {n % 8: b"n%d" % n for n in range(32, 40)}

    run(test)


def test_a_write_is_acknowledged_exactly_when_its_end_is_committed() -> None:
    async def test() -> None:
        compute = Compute(commits_by_itself=False)
        first = asyncio.create_task(compute.engine.write({1: b"a"}))
        second = asyncio.create_task(compute.engine.write({2: b"b"}))
        await turns()
        end_of_first = compute.quorum.end_lsn
        compute.quorum.commit(Lsn(START + 8))
        await turns()
        assert not first.done()
        records = compute.log.end_lsn
        compute.quorum.commit(Lsn(records - 1))
        await turns()
        assert first.done()
        assert not second.done()
        compute.quorum.commit(records)
        await turns()
        assert (await first) < (await second) == records == end_of_first

    run(test)


def test_a_read_waits_for_the_commit_of_what_it_saw() -> None:
    async def test() -> None:
        compute = Compute(commits_by_itself=False)
        write = asyncio.create_task(compute.engine.write({1: b"new"}))
        await turns()
        read = asyncio.create_task(compute.engine.get(1))
        scan = asyncio.create_task(compute.engine.scan(0, 10))
        elsewhere = asyncio.create_task(compute.engine.get(100))
        await turns()
        assert not read.done()
        assert not scan.done()
        assert (await elsewhere) == ([], START)
        compute.quorum.commit()
        assert (await read).rows[0].value == b"new"
        assert (await read).lsn == await write
        assert (await scan).lsn == await write

    run(test)


def test_a_scan_sees_one_instant_while_transactions_go_on() -> None:
    async def test() -> None:
        compute = Compute(capacity=3)
        keys = [block * 32 for block in range(40)]
        for half in (keys[:20], keys[20:]):
            await compute.engine.write({key: b"0" for key in half})
        snapshots: list[set[bytes]] = []

        async def reader() -> None:
            for _ in range(10):
                rows = await compute.rows(0, 40 * 32)
                assert len(rows) == 40
                snapshots.append({rows[key] for key in keys[:20]})

        async def writer() -> None:
            for number in range(200):
                await compute.engine.write({key: b"%d" % number for key in keys[:20]})

        await asyncio.gather(writer(), reader(), reader())
        assert all(len(values) == 1 for values in snapshots)
        assert len({min(values) for values in snapshots}) > 3

    run(test)


def test_a_deposed_compute_acknowledges_nothing_any_more() -> None:
    async def test() -> None:
        compute = Compute(commits_by_itself=False)
        write = asyncio.create_task(compute.engine.write({1: b"a"}))
        await turns()
        read = asyncio.create_task(compute.engine.get(1))
        await turns()
        compute.log.fail(RuntimeError("term 9 rules"))
        compute.quorum.commit()
        with pytest.raises(OutcomeUnknown, match="term 9 rules"):
            await write
        with pytest.raises(OutcomeUnknown, match="term 9 rules"):
            await read
        with pytest.raises(OutcomeUnknown):
            await compute.engine.write({1: b"b"})
        with pytest.raises(OutcomeUnknown):
            await compute.engine.get(1)

    run(test)


def test_a_proposer_that_takes_no_more_fails_the_log(monkeypatch: pytest.MonkeyPatch) -> None:
    async def test() -> None:
        compute = Compute()

        def refuse(begin_lsn: Lsn, data: bytes) -> None:
            raise SeawallError("closed")

        monkeypatch.setattr(compute.quorum, "append", refuse)
        with pytest.raises(OutcomeUnknown, match="closed"):
            await compute.engine.write({1: b"a"})

    run(test)


def test_deleting_what_is_absent_writes_no_record() -> None:
    async def test() -> None:
        compute = Compute()
        assert await compute.engine.write({5: None}) == START
        put = await compute.engine.write({5: b"x", 6: None})
        assert await compute.engine.write({7: None}) == put
        assert len(compute.quorum.runs) == 1

    run(test)


def test_wal_depends_on_the_transactions_only() -> None:
    async def wal(capacity: int, pause: int) -> bytes:
        compute = Compute(capacity=capacity)
        entropy = random.Random(1)
        for number in range(300):
            keys = [entropy.randrange(400) for _ in range(3)]
            await compute.engine.write({key: b"%d" % number for key in keys})
            await turns(pause)
        return compute.quorum.wal

    async def test() -> None:
        assert await wal(1, 0) == await wal(1000, 3)

    run(test)


def test_an_uncommitted_page_is_never_evicted() -> None:
    async def test() -> None:
        compute = Compute(capacity=1, commits_by_itself=False)
        writes = [
            asyncio.create_task(compute.engine.write({block * 32: b"x"})) for block in range(5)
        ]
        await turns()
        assert len(compute.cache) == 5
        assert compute.cache.choose_victim() is None
        compute.quorum.commit()
        await asyncio.gather(*writes)
        await compute.value(0)
        assert compute.cache.choose_victim() == 1
        late = asyncio.create_task(compute.engine.write({1000: b"y"}))
        await turns()
        assert len(compute.cache) == 1
        compute.quorum.commit()
        await late
        assert await compute.value(32) == b"x"

    run(test)


def test_readers_of_one_absent_page_share_one_request() -> None:
    async def test() -> None:
        compute = Compute(capacity=1)
        await compute.engine.write({0: b"x"})
        await compute.engine.write({32: b"y"})
        compute.pageserver.gate.clear()
        reads = [asyncio.create_task(compute.value(0)) for _ in range(5)]
        reads[0].cancel()
        await turns()
        compute.pageserver.gate.set()
        assert await asyncio.gather(*reads[1:]) == [b"x"] * 4
        assert len(compute.pageserver.requests) == 1

    run(test)


def test_a_failed_load_fails_its_readers_and_is_tried_again() -> None:
    async def test() -> None:
        compute = Compute(capacity=1)
        await compute.engine.write({0: b"x"})
        await compute.engine.write({32: b"y"})
        good = compute.pageserver.pages
        compute.pageserver.redo()
        compute.pageserver.pages = {0: b"broken"}
        with pytest.raises(CorruptData):
            await compute.value(0)
        with pytest.raises(CorruptData):
            await compute.engine.write({0: b"z"})
        compute.pageserver.pages = good
        assert await compute.value(0) == b"x"
        await turns()
        assert compute.registry.snapshot() == []

    run(test)


@pytest.mark.parametrize(
    ("lsn_change", "error", "says"),
    [(-8, CorruptData, "as of"), (8, NotReady, "another compute")],
)
def test_a_page_that_is_not_as_this_compute_left_it_is_refused(
    lsn_change: int, error: type[Exception], says: str
) -> None:
    async def test() -> None:
        compute = Compute(capacity=1)
        await compute.engine.write({0: b"x"})
        await compute.engine.write({32: b"y"})
        compute.pageserver.redo()
        page = kv.decode(compute.pageserver.pages[0])
        assert page is not None
        page.lsn += lsn_change
        compute.pageserver.pages[0] = kv.encode(page)
        with pytest.raises(error, match=says):
            await compute.value(0)

    run(test)


def test_a_transaction_of_too_many_pages_is_refused_without_effect() -> None:
    async def test() -> None:
        compute = Compute(capacity=1)
        await compute.engine.write({block * 32: b"x" for block in range(32)})
        with pytest.raises(BadRequest, match="33 pages"):
            await compute.engine.write({block * 32: b"y" for block in range(33)})
        assert set((await compute.rows(0, 33 * 32)).values()) == {b"x"}

    run(test)


def test_sum_adds_integers_and_names_a_key_that_holds_none() -> None:
    async def test() -> None:
        compute = Compute(capacity=1)
        assert await compute.engine.sum() == (0, START)
        lsn = await compute.engine.write({key: b"%d" % key for key in range(0, 320, 10)})
        assert await compute.engine.sum() == (sum(range(0, 320, 10)), lsn)
        await compute.engine.write({5: b"five"})
        with pytest.raises(BadRequest, match="key 5"):
            await compute.engine.sum()

    run(test)
