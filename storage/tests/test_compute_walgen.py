"""The node walgen as clients meet it: commands, HTTP, stop, restart, being deposed."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import pytest

from storage.compute.service import describe
from storage.errors import SeawallError
from storage.http.client import HttpError, call
from storage.tests.scripted_pageserver import Mode
from storage.tests.walgen_node import WalgenRig, play
from storage.walproposer.options import Deposed
from storage.wire.client import Client, ServerError, connect

Story = Callable[[WalgenRig], Awaitable[None]]
MonkeyPatch = pytest.MonkeyPatch


async def rows(client: Client, command: str) -> list[tuple[str | None, ...]]:
    return (await client.query(command)).rows


def test_commands_over_the_simple_and_the_extended_protocol(monkeypatch: MonkeyPatch) -> None:
    async def story(rig: WalgenRig) -> None:
        life = await rig.start()
        client = await connect("main", 5432)
        put = await client.query("put 1 'it''s'")
        assert put.tag == "PUT 1"
        assert put.rows == [(str(rig.proposer.commit_lsn),)]
        assert (await client.query("get 1")).rows == [("it's",)]
        assert (await client.query("get 1")).tag == f"GET {rig.proposer.commit_lsn}"
        assert await rows(client, "get 2") == []
        await client.query('txn {"100": "4", "200": "5", "1": null}')
        scan = await client.execute("scan 0 200")
        assert scan.rows == [("100", "4")]
        assert [column.name for column in scan.columns] == ["key", "value"]
        assert await rows(client, "sum") == [("9",)]
        status = dict(await rows(client, "status"))
        assert (status["phase"], status["term"]) == ("serving", "1")
        with pytest.raises(ServerError, match="unknown command") as refusal:
            await client.query("select 1")
        assert refusal.value.sqlstate == "22023"
        assert await rows(client, "get 200;") == [("5",)]
        assert (await client.query(";")).rows == []
        await rig.stop(life)

    play(story, monkeypatch)


@pytest.mark.parametrize(
    ("command", "columns"),
    [
        ("put 1 a", ["commit_lsn"]),
        ("get 1", ["value"]),
        ("scan 0 1", ["key", "value"]),
        ("sum", ["sum"]),
        ("status", ["name", "value"]),
    ],
)
def test_answers_have_the_columns_that_were_described(
    command: str, columns: list[str], monkeypatch: MonkeyPatch
) -> None:
    async def story(rig: WalgenRig) -> None:
        life = await rig.start()
        client = await connect("main", 5432)
        answer = await client.query(command)
        assert [column.name for column in answer.columns] == columns
        assert list(describe(command) or ()) == columns
        await rig.stop(life)

    assert describe(" ;") is None
    play(story, monkeypatch)


def test_a_pageserver_with_damaged_pages_ends_no_compute(monkeypatch: MonkeyPatch) -> None:
    """It may be repaired, or replaced: the compute waits, and a statement fails at once."""

    async def story(rig: WalgenRig) -> None:
        damaged = rig.pageservers[0]
        damaged.mode, damaged.sqlstate = Mode.REFUSE, "XX001"
        starting = rig.loop.create_task(rig.start())
        await asyncio.sleep(20)
        assert not starting.done()
        damaged.mode = Mode.ANSWER
        async with asyncio.timeout(5):
            life = await starting
        client = await connect("main", 5432)
        for key in (1, 1000, 2000, 3000):  # More pages than the compute keeps.
            await client.query(f"put {key} a")
        damaged.mode = Mode.REFUSE
        with pytest.raises(ServerError, match="no page for you"):
            for key in (1, 1000, 2000, 3000):
                await client.query(f"get {key}")
        damaged.mode = Mode.ANSWER
        assert await rows(client, "get 1") == [("a",)]
        await rig.stop(life)

    play(story, monkeypatch)


def test_http_status_and_move(monkeypatch: MonkeyPatch) -> None:
    async def story(rig: WalgenRig) -> None:
        life = await rig.start()
        status = await call("GET", "main", 5480, "/v1/status")
        assert status == {
            "phase": "serving",
            "term": 1,
            "start_lsn": "0/100000",
            "flush_lsn": "0/100000",
            "commit_lsn": "0/100000",
            "pageserver": "ps0:6400",
        }
        await call("PUT", "main", 5480, "/v1/pageserver", {"pageserver": "ps1:6400"})
        assert (await call("GET", "main", 5480, "/v1/status"))["pageserver"] == "ps1:6400"
        for body in ({}, {"pageserver": 1}, {"pageserver": "ps1"}, {"page": "ps1:6400"}):
            with pytest.raises(HttpError) as refusal:
                await call("PUT", "main", 5480, "/v1/pageserver", body)
            assert refusal.value.status == 400
        await rig.stop(life)

    play(story, monkeypatch)


def test_a_successor_finds_everything_and_chains_its_wal(monkeypatch: MonkeyPatch) -> None:
    async def story(rig: WalgenRig) -> None:
        life = await rig.start()
        client = await connect("main", 5432)
        for key in range(0, 300, 7):
            await client.query(f"put {key} v{key}")
        await rig.stop(life)
        rig.pages.redo()
        rig.pageservers[0].prev_lsn = str(rig.pages.prev_lsn)
        life = await rig.start()
        client = await connect("main", 5432)
        found = await rows(client, "scan 0 300")
        assert found == [(str(key), f"v{key}") for key in range(0, 300, 7)]
        await client.query("put 5 new")
        rig.pages.redo()  # Checks xl_prev of the new record too.
        assert dict(await rows(client, "status"))["term"] == "2"
        await rig.stop(life)

    play(story, monkeypatch)


def test_being_deposed_ends_the_compute_and_acknowledges_nothing(
    monkeypatch: MonkeyPatch,
) -> None:
    async def story(rig: WalgenRig) -> None:
        life = await rig.start()
        client = await connect("main", 5432)
        await client.query("put 1 a")
        rig.proposer.commits_held = True
        write = asyncio.create_task(client.query("put 1 b"))
        await asyncio.sleep(1)
        assert not write.done()
        rig.proposer.depose()
        rig.proposer.commit()
        with pytest.raises(Deposed, match="term 9"):
            await life
        with pytest.raises((ServerError, OSError)) as refusal:
            await write
        assert getattr(refusal.value, "sqlstate", "40003") == "40003"
        with pytest.raises(OSError):
            await connect("main", 5432)

    play(story, monkeypatch)


def test_being_deposed_ends_a_compute_that_still_waits_for_its_base(
    monkeypatch: MonkeyPatch,
) -> None:
    async def story(rig: WalgenRig) -> None:
        rig.pageservers[0].base_refusals = 10**9
        start = asyncio.create_task(rig.start())
        await asyncio.sleep(5)
        rig.proposer.depose()
        with pytest.raises(Deposed):
            await start

    play(story, monkeypatch)


def test_a_stop_tells_waiting_clients_that_the_outcome_is_unknown(
    monkeypatch: MonkeyPatch,
) -> None:
    async def story(rig: WalgenRig) -> None:
        life = await rig.start()
        client = await connect("main", 5432)
        rig.proposer.commits_held = True
        write = asyncio.create_task(client.query("put 1 b"))
        await asyncio.sleep(1)
        began_s = rig.loop.time()
        await rig.stop(life)
        assert rig.loop.time() - began_s < 3
        with pytest.raises((ServerError, OSError)) as refusal:
            await write
        assert getattr(refusal.value, "sqlstate", "40003") == "40003"

    play(story, monkeypatch)


def test_an_unreachable_pageserver_refuses_reads_and_writes_that_need_it(
    monkeypatch: MonkeyPatch,
) -> None:
    async def story(rig: WalgenRig) -> None:
        life = await rig.start()
        client = await connect("main", 5432)
        for key in (0, 32, 64, 96):
            await client.query(f"put {key} x")
        await asyncio.sleep(1)
        rig.pageservers[0].mode = Mode.REFUSE
        for command in ("get 0", "put 0 y"):
            with pytest.raises(ServerError, match="no pageserver answered") as refusal:
                await client.query(command)
            assert refusal.value.sqlstate == "57P03"
        assert await rows(client, "get 96") == [("x",)]
        await client.query("put 96 z")
        rig.pageservers[0].mode = Mode.ANSWER
        assert await rows(client, "get 0") == [("x",)]
        await rig.stop(life)

    play(story, monkeypatch)


def test_a_stop_works_while_the_compute_still_waits_for_its_base(
    monkeypatch: MonkeyPatch,
) -> None:
    async def story(rig: WalgenRig) -> None:
        rig.pageservers[0].base_refusals = 10**9
        start = asyncio.create_task(rig.start())
        await asyncio.sleep(5)
        status = await call("GET", "main", 5480, "/v1/status")
        assert status["phase"] == "taking_base"
        assert rig.context is not None
        rig.context.stopping.set()
        await asyncio.sleep(3)
        assert start.done()

    play(story, monkeypatch)


def test_a_base_of_another_lsn_ends_the_compute(monkeypatch: MonkeyPatch) -> None:
    async def story(rig: WalgenRig) -> None:
        async def elsewhere(session: object, lsn: str) -> None:
            await original(session, "0/100008")  # type: ignore[arg-type]

        original = rig.pageservers[0]._basebackup
        monkeypatch.setattr(rig.pageservers[0], "_basebackup", elsewhere)
        with pytest.raises(SeawallError, match=r"taken at 0/100008.*write from 0/100000"):
            await rig.start()

    play(story, monkeypatch)
