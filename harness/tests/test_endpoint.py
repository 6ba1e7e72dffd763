"""The endpoint of the deterministic computes: answers, and what each way of failing means."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import pytest

from harness.endpoint import Client, OutcomeUnknown, Recording, Refused
from harness.errors import HarnessError
from harness.history import History, Kind, Outcome
from harness.kv_endpoint import KvEndpoint, is_refusal, statement_of
from storage.tests.scripted_pageserver import Mode
from storage.tests.walgen_node import WalgenRig, play

MonkeyPatch = pytest.MonkeyPatch


def with_client(
    story: Callable[[WalgenRig, Client, History], Awaitable[None]], monkeypatch: MonkeyPatch
) -> History:
    """Run a story with a recording client of a walgen node; returns its history."""
    history = History()

    async def main(rig: WalgenRig) -> None:
        await rig.start()
        endpoint = KvEndpoint("main", timeout_s=20.0)
        client = Client(endpoint, Recording(history, rig.loop.time, "tl"), "c")
        await story(rig, client, history)
        await endpoint.disconnect()

    play(main, monkeypatch)
    return history


def outcomes(history: History) -> list[tuple[Kind, Outcome]]:
    return [(operation.kind, operation.outcome) for operation in history]


def test_every_operation_round_trips(monkeypatch: MonkeyPatch) -> None:
    async def story(rig: WalgenRig, client: Client, history: History) -> None:
        first = await client.put(1, "it's; \"quoted\"\n\\ ä 'x'")
        assert first is not None
        assert await client.get(1) == "it's; \"quoted\"\n\\ ä 'x'"
        assert await client.get(2) is None
        second = await client.txn({1: None, 5: "5", 70: "-3"})
        assert second is not None
        assert second > first
        assert await client.scan(0, 70) == [(5, "5")]
        assert await client.scan(8, 8) == []
        assert await client.sum() == 2
        assert await client.delete(5) == rig.proposer.commit_lsn
        await client.put(3, "")
        assert await client.get(3) == ""
        assert all(operation.lsn is not None for operation in history)
        assert history.commits() == 4
        assert history[2].result is None
        assert history[2].lsn == first
        status = await client.endpoint.status()
        assert status["phase"] == "serving"

    with_client(story, monkeypatch)


def test_a_refused_write_is_failed_and_the_connection_is_used_again(
    monkeypatch: MonkeyPatch,
) -> None:
    async def story(rig: WalgenRig, client: Client, history: History) -> None:
        with pytest.raises(Refused, match="241 bytes") as refusal:
            await client.put(1, "x" * 241)
        assert refusal.value.sqlstate == "22023"
        await client.put(1, "x")

    history = with_client(story, monkeypatch)
    assert outcomes(history) == [(Kind.PUT, Outcome.FAILED), (Kind.PUT, Outcome.OK)]


def test_a_write_cut_off_is_unknown_but_a_read_is_failed(monkeypatch: MonkeyPatch) -> None:
    async def story(rig: WalgenRig, client: Client, history: History) -> None:
        await client.put(1, "x")
        rig.proposer.commits_held = True
        write = asyncio.create_task(client.put(1, "y"))
        await asyncio.sleep(0.5)
        read = asyncio.create_task(client.get(1))
        await asyncio.sleep(0.5)
        rig.loop.nodes.crash("main")
        with pytest.raises(OutcomeUnknown):
            await write
        with pytest.raises(Refused):
            await read

    history = with_client(story, monkeypatch)
    assert [outcome for _, outcome in outcomes(history)] == [
        Outcome.OK,
        Outcome.UNKNOWN,
        Outcome.FAILED,
    ]


def test_a_write_that_times_out_is_unknown(monkeypatch: MonkeyPatch) -> None:
    async def story(rig: WalgenRig, client: Client, history: History) -> None:
        rig.proposer.commits_held = True
        began_s = rig.loop.time()
        with pytest.raises(OutcomeUnknown):
            await client.put(1, "y")
        assert rig.loop.time() - began_s == pytest.approx(20, abs=1)
        rig.proposer.commits_held = False
        rig.proposer.commit()
        assert await client.get(1) == "y"

    with_client(story, monkeypatch)


def test_a_cancelled_operation_is_unknown(monkeypatch: MonkeyPatch) -> None:
    async def story(rig: WalgenRig, client: Client, history: History) -> None:
        rig.proposer.commits_held = True
        write = asyncio.create_task(client.put(1, "y"))
        await asyncio.sleep(0.5)
        write.cancel()
        await asyncio.gather(write, return_exceptions=True)

    assert outcomes(with_client(story, monkeypatch)) == [(Kind.PUT, Outcome.UNKNOWN)]


def test_no_compute_means_certainly_no_effect(monkeypatch: MonkeyPatch) -> None:
    async def story(rig: WalgenRig, client: Client, history: History) -> None:
        rig.loop.nodes.crash("main")
        with pytest.raises(Refused, match="cannot connect to main:5432"):
            await client.put(1, "y")

    assert outcomes(with_client(story, monkeypatch)) == [(Kind.PUT, Outcome.FAILED)]


def test_a_restarted_compute_is_reached_through_new_connections(
    monkeypatch: MonkeyPatch,
) -> None:
    async def story(rig: WalgenRig, client: Client, history: History) -> None:
        await asyncio.gather(*(client.put(key, "x") for key in range(5)))
        rig.loop.nodes.crash("main")
        rig.pages.redo()
        rig.pageservers[0].prev_lsn = str(rig.pages.prev_lsn)
        await rig.start()
        assert await client.get(4) == "x"

    with_client(story, monkeypatch)


def test_a_read_moves_along_with_the_endpoint(monkeypatch: MonkeyPatch) -> None:
    async def story(rig: WalgenRig, client: Client, history: History) -> None:
        for key in (0, 32, 64, 96):
            await client.put(key, "x")
        rig.pageservers[0].mode = Mode.SILENT
        read = asyncio.create_task(client.get(0))
        await asyncio.sleep(1)
        await client.endpoint.move("ps1:6400")
        assert await read == "x"

    with_client(story, monkeypatch)


def test_sql_is_refused_with_a_way_out(monkeypatch: MonkeyPatch) -> None:
    async def story(rig: WalgenRig, client: Client, history: History) -> None:
        with pytest.raises(HarnessError, match="--compute postgres"):
            await client.endpoint.sql("select 1")

    with_client(story, monkeypatch)


@pytest.mark.parametrize(
    ("sqlstate", "refusal"),
    [
        ("22023", True),
        ("25006", True),
        ("40001", True),
        ("57P03", True),
        ("40003", False),
        ("57P01", False),
        ("08006", False),
        ("XX000", False),
    ],
)
def test_which_errors_prove_that_nothing_happened(sqlstate: str, refusal: bool) -> None:
    assert is_refusal(sqlstate) is refusal


def test_statements() -> None:
    assert statement_of(Kind.PUT, (1, "a'b")) == "put 1 'a''b'"
    assert statement_of(Kind.DELETE, (1,)) == "delete 1"
    assert statement_of(Kind.SCAN, (1, 2)) == "scan 1 2"
    assert statement_of(Kind.SUM, ()) == "sum"
    assert statement_of(Kind.TXN, ({1: "ä", 2: None},)) == 'txn {"1": "ä", "2": null}'
