"""The background load: its mix, its counts, and how it meets failures."""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

import sim
from harness.checkers.acknowledged_commits import check_acknowledged_commits, read_back
from harness.checkers.commit_order import check_commit_order
from harness.checkers.linearizable import check_linearizable
from harness.checkers.reads_equal_model import check_reads
from harness.endpoint import Answer, Client, OutcomeUnknown, Recording, Refused
from harness.errors import CheckFailed, HarnessError, NotLive
from harness.history import History, Kind
from harness.kv_endpoint import KvEndpoint
from harness.workload import Load, LoadOptions
from storage.lsn import Lsn
from storage.tests.walgen_node import WalgenRig
from storage.tests.walgen_node import play as play_on_walgen


class MemoryEndpoint:
    """A store in memory that commits each write at the next LSN, unless told to misbehave."""

    def __init__(self) -> None:
        self.data: dict[int, str] = {}
        self.lsn = 0
        self.failure: Exception | None = None
        self.gate = asyncio.Event()
        self.gate.set()

    async def run(self, kind: Kind, args: tuple[Any, ...]) -> Answer:
        await asyncio.sleep(0.001)
        await self.gate.wait()
        if self.failure is not None:
            raise self.failure
        if kind is Kind.GET:
            return Answer(self.data.get(args[0]), Lsn(self.lsn))
        if kind is Kind.SCAN:
            rows = [(k, self.data[k]) for k in sorted(self.data) if args[0] <= k < args[1]]
            return Answer(rows, Lsn(self.lsn))
        changes: dict[int, str | None] = (
            args[0] if kind is Kind.TXN else {args[0]: args[1] if kind is Kind.PUT else None}
        )
        for key, value in changes.items():
            self.data.pop(key, None)
            if value is not None:
                self.data[key] = value
        self.lsn += 8
        return Answer(None, Lsn(self.lsn))

    async def sql(self, statement: str) -> list[tuple[str | None, ...]]:
        raise NotImplementedError

    async def status(self) -> dict[str, Any]:
        raise NotImplementedError

    async def move(self, pageserver: str) -> None:
        raise NotImplementedError

    async def disconnect(self) -> None:
        return


class Bench:
    def __init__(self, options: LoadOptions) -> None:
        self.endpoint = MemoryEndpoint()
        self.history = History()
        now_s = asyncio.get_running_loop().time
        client = Client(self.endpoint, Recording(self.history, now_s, "tl"), "main")
        self.load = Load(client, options, random.Random(9))


def play(story: Callable[[Bench], Awaitable[None]], options: LoadOptions | None = None) -> History:
    async def main() -> History:
        bench = Bench(options or LoadOptions())
        await story(bench)
        return bench.history

    return sim.run(main, seed=1)


def check_everything(history: History, final: dict[int, str]) -> None:
    check_reads(history)
    check_linearizable(history)
    check_commit_order(history)
    check_acknowledged_commits(history, "tl", final)


def test_a_load_mixes_operations_and_counts_them() -> None:
    async def story(bench: Bench) -> None:
        async with bench.load as load:
            await load.progress(500)
        counts = load.counts
        kinds = Counter(operation.kind for operation in bench.history)
        assert counts.commits == bench.history.commits() >= 500
        assert counts.reads == kinds[Kind.GET] + kinds[Kind.SCAN]
        assert 0.4 < counts.reads / len(bench.history) < 0.6
        assert min(kinds[kind] for kind in (Kind.PUT, Kind.DELETE, Kind.TXN, Kind.SCAN)) > 10
        check_everything(bench.history, bench.endpoint.data)

    play(story)


def test_values_are_unique_and_keys_stay_in_their_range() -> None:
    async def story(bench: Bench) -> None:
        async with bench.load as load:
            await load.progress(300)

    history = play(story, LoadOptions(clients=3, keys=40, first_key=500))
    values = [v for op in history for v in op.changes().values() if v is not None]
    assert len(values) == len(set(values))
    keys = {key for op in history for key in op.changes()}
    assert min(keys) >= 500
    assert max(keys) < 540
    by_key: dict[int, set[str]] = {}
    for operation in history:
        for key in operation.changes():
            by_key.setdefault(key, set()).add(operation.source.process)
    assert {len(writers) for writers in by_key.values()} == {1, 3}


def test_the_same_generator_gives_the_same_operations() -> None:
    async def story(bench: Bench) -> None:
        async with bench.load as load:
            await load.progress(50)

    assert list(play(story)) == list(play(story))


def test_failures_are_counted_and_the_load_goes_on() -> None:
    async def story(bench: Bench) -> None:
        async with bench.load as load:
            await load.progress(10)
            bench.endpoint.failure = Refused("no")
            await asyncio.sleep(1)
            bench.endpoint.failure = OutcomeUnknown("who knows")
            await asyncio.sleep(1)
            bench.endpoint.failure = None
            await load.progress(10)
        assert load.counts.failed > 5
        assert load.counts.unknown > 5
        assert 1.8 < load.counts.longest_stall_s < 2.5
        check_everything(bench.history, bench.endpoint.data)

    play(story)


def test_a_load_without_progress_is_not_live() -> None:
    async def story(bench: Bench) -> None:
        async with bench.load as load:
            bench.endpoint.failure = Refused("no")
            with pytest.raises(NotLive, match="0 of 10 commits within 5 s"):
                await load.progress(10, within_s=5)

    play(story)


def test_a_broken_tool_ends_the_load_at_once() -> None:
    async def story(bench: Bench) -> None:
        with pytest.raises(HarnessError, match="broken"):
            async with bench.load as load:
                bench.endpoint.failure = HarnessError("broken")
                await load.progress(10)

    play(story)


def test_waiting_on_a_load_that_died_earlier_ends_at_once() -> None:
    async def story(bench: Bench) -> None:
        bench.load.start()
        bench.endpoint.failure = HarnessError("broken")
        await asyncio.sleep(5)
        began_s = asyncio.get_running_loop().time()
        with pytest.raises(HarnessError, match="broken"):
            await bench.load.progress(10)
        assert asyncio.get_running_loop().time() == began_s
        with pytest.raises(HarnessError, match="broken"):
            await bench.load.stop()

    play(story)


def test_time_paused_is_no_stall() -> None:
    async def story(bench: Bench) -> None:
        async with bench.load as load:
            await load.progress(20)
            load.pause()
            await asyncio.sleep(50)
            seen = len(bench.history)
            await asyncio.sleep(50)
            assert len(bench.history) == seen
            load.resume()
            await load.progress(20)
        assert load.counts.longest_stall_s < 1
        assert load.counts.longest_wait_s < 1

    play(story)


def test_a_client_that_hangs_does_not_hang_the_stop() -> None:
    async def story(bench: Bench) -> None:
        async with bench.load as load:
            await load.progress(5)
            bench.endpoint.gate.clear()
            await asyncio.sleep(1)
        assert load.counts.longest_stall_s > 1
        assert load.counts.longest_wait_s > 30, "it waited until it was cancelled"

    history = play(story)
    assert {str(operation.outcome) for operation in history} == {"ok", "unknown"}


@pytest.mark.parametrize(
    "wrong", [{"clients": 0}, {"keys": 7}, {"read_fraction": 1.0}, {"read_fraction": -0.1}]
)
def test_useless_options_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(HarnessError):
        LoadOptions(**wrong)


def test_oracles_see_a_store_that_forgets() -> None:
    async def story(bench: Bench) -> None:
        async with bench.load as load:
            await load.progress(100)
            bench.endpoint.data = dict(list(bench.endpoint.data.items())[:10])
            await load.progress(300)
        with pytest.raises(CheckFailed):
            check_reads(bench.history)
        with pytest.raises(CheckFailed):
            check_acknowledged_commits(bench.history, "tl", bench.endpoint.data)

    play(story)


def test_a_load_on_walgen_satisfies_every_oracle(monkeypatch: pytest.MonkeyPatch) -> None:
    async def story(rig: WalgenRig) -> None:
        history = History()
        await rig.start()
        client = Client(KvEndpoint("main"), Recording(history, rig.loop.time, "tl"), "main")
        async with Load(client, LoadOptions(clients=8, keys=300), random.Random(3)) as load:
            await load.progress(200)
            await client.endpoint.move("ps1:6400")
            await load.progress(200)
        check_everything(history, await read_back(client, history, "tl"))
        assert load.counts.failed == load.counts.unknown == 0
        assert len(rig.pageservers[0].requests) > 50
        assert len(rig.pageservers[1].requests) > 50

    play_on_walgen(story, monkeypatch)
