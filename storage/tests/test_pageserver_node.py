"""The pageserver as a node: HTTP API, libpq commands, stop."""

from __future__ import annotations

import asyncio
import io
import tarfile
from collections.abc import AsyncIterator
from typing import Any

import pytest

from sim.disk_faults import DiskFault, DiskOperation
from storage.errors import BadRequest
from storage.http.client import HttpError
from storage.lsn import Lsn
from storage.tests.pageserver_node import IDS, PATH, Node, play
from storage.tests.pageserver_world import START, TENANT, TIMELINE
from storage.wire.client import Client
from storage.wire.errors import ServerError

# HTTP.


def test_the_api_creates_shows_and_ends_tenants() -> None:
    async def story(stage: Node) -> None:
        await stage.timeline(20)
        end = str(stage.history.end)
        assert [t["state"] for t in await stage.http("GET", "/tenant")] == ["Active"]
        shown = await stage.http("GET", PATH)
        assert shown["state"] == "Active"
        assert shown["last_record_lsn"] == end
        assert shown["disk_consistent_lsn"] == str(START)
        assert shown["initdb_lsn"] == str(START)
        assert shown["walreceiver"]["state"] == "streaming"
        assert shown["ancestor_timeline_id"] is None

        shown = await stage.http("POST", f"{PATH}/checkpoint")
        assert shown["remote_consistent_lsn"] == end
        kinds = {task["kind"] for task in await stage.http("GET", "/tasks")}
        assert {"wal_receiver", "layer_flush", "upload", "compaction"} <= kinds

        assert (await stage.http("POST", f"/tenant/{TENANT}/attach"))["state"] == "Active"
        assert (await stage.http("POST", f"/tenant/{TENANT}/detach"))["state"] == "Detached"
        with pytest.raises(HttpError) as caught:
            await stage.http("GET", f"/tenant/{TENANT}")
        assert (caught.value.status, caught.value.kind) == (404, "not_found")
        assert caught.value.trace_id
        await stage.http("POST", f"/tenant/{TENANT}/attach")
        assert (await stage.http("GET", PATH))["last_record_lsn"] == end

    play(story)


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ({}, "timeline_id"),
        ({"timeline_id": "xyz"}, "xyz"),
        ({"timeline_id": TIMELINE}, "start_lsn"),
        ({"timeline_id": TIMELINE, "start_lsn": "0/16", "pg_version": 15}, "0/16"),
        ({"timeline_id": TIMELINE, "start_lsn": "0/100000", "pg_version": 11}, "11"),
        ({"timeline_id": TIMELINE, "start_lsn": "0/100000", "speed": 1}, "speed"),
        ({"timeline_id": TIMELINE, "ancestor_start_lsn": "0/100000"}, "ancestor_timeline_id"),
        (
            {"timeline_id": TIMELINE, "ancestor_timeline_id": TIMELINE, "pg_version": 15},
            "pg_version",
        ),
    ],
)
def test_bad_requests_are_refused_by_name(body: dict[str, Any], message: str) -> None:
    async def story(stage: Node) -> None:
        await stage.http("POST", f"/tenant/{TENANT}")
        with pytest.raises(HttpError, match=message) as caught:
            await stage.http("POST", f"/tenant/{TENANT}/timeline", body)
        assert caught.value.status == 400
        assert (await stage.http("GET", f"/tenant/{TENANT}"))["timelines"] == []

    play(story)


def test_branches_over_http() -> None:
    async def story(stage: Node) -> None:
        await stage.timeline(10)
        body = {"timeline_id": "c" * 32, "ancestor_timeline_id": TIMELINE}
        shown = await stage.http("POST", f"/tenant/{TENANT}/timeline", body)
        assert shown["ancestor_lsn"] == shown["last_record_lsn"] == str(stage.history.end)
        body = {**body, "timeline_id": "d" * 32, "ancestor_start_lsn": str(Lsn(START - 8))}
        with pytest.raises(HttpError) as caught:
            await stage.http("POST", f"/tenant/{TENANT}/timeline", body)
        assert (caught.value.status, caught.value.kind) == (416, "lsn_out_of_scope")

    play(story)


# libpq commands.


def test_commands_for_people() -> None:
    async def story(stage: Node) -> None:
        await stage.timeline(20)
        client = await stage.client()
        lsn = stage.history.ends[10]
        for run in (client.query, client.execute):
            result = await run(f"get_page {IDS} 1663 16384 16385 0 1 {lsn}")
            page = stage.history.page(1, lsn)
            assert page is not None
            assert result.rows == [(str(lsn), "\\x" + page.hex())]
            (row,) = (await run("status")).rows
            assert row[:4] == (TENANT, TIMELINE, "Active", str(stage.history.end))
        await client.close()

    play(story)


@pytest.mark.row("D2.simple", "D2.extended", "C1.client", "D1.basebackup", worlds=("sim",))
@pytest.mark.parametrize(
    ("command", "sqlstate", "message"),
    [
        ("destroy everything", "22023", "unknown command 'destroy'"),
        (f"basebackup {TENANT}", "22023", "takes TENANT TIMELINE"),
        ("pagestream 12 34", "22023", "'12' is not a TenantId"),
        (f"pagestream {TIMELINE} {TIMELINE}", "42704", "not attached"),
        (f"basebackup {TENANT} {TENANT}", "42704", "no timeline"),
        (f"basebackup {IDS} 0/FFFF8", "22003", "0/FFFF8 is before initdb_lsn 0/100000"),
        (f"basebackup {IDS} 0/900000", "57P03", "did not reach LSN 0/900000"),
        (f"fullbackup {IDS}", "22023", "holds no PostgreSQL data directory"),
        (f"get_page {IDS} 1 2 3 0 9", "42704", "block 9 of relation"),
        (f"get_page {IDS} 1 2 3 0 x", "22023", "'x' is not a number"),
        (f"callmemaybe {IDS} nowhere", "22023", "'nowhere' is not the address"),
        (f"callmemaybe {TIMELINE} {TIMELINE} sk0:5454", "42704", "not attached"),
    ],
)
def test_errors_reach_the_client_and_the_session_lives_on(
    command: str, sqlstate: str, message: str
) -> None:
    async def story(stage: Node) -> None:
        await stage.timeline(3)
        client = await stage.client()
        for run in (client.query, client.execute):
            with pytest.raises(ServerError, match=message) as caught:
                await run(command)
            assert caught.value.sqlstate == sqlstate
            assert (await run("status")).tag == "SELECT 1"
        await client.close()

    play(story, wait_lsn_timeout_s=1.0)


def test_a_base_backup_names_the_end_and_the_last_record() -> None:
    async def story(stage: Node) -> None:
        await stage.timeline(20)
        client = await stage.client()
        end, older = stage.history.ends[-1], stage.history.ends[-5]
        prev = stage.history.ends[-2]
        assert await _signal(client, f"basebackup {IDS}") == f"PREV LSN: {prev}\nLSN: {end}\n"
        assert await _signal(client, f"basebackup {IDS} {end}") == (
            f"PREV LSN: {prev}\nLSN: {end}\n"
        )
        assert await _signal(client, f"basebackup {IDS} {older}") == (
            f"PREV LSN: 0/0\nLSN: {older}\n"
        )
        await client.close()

    play(story)


async def _signal(client: Client, command: str) -> str:
    data = b"".join([chunk async for chunk in client.copy_out(command)])
    with tarfile.open(fileobj=io.BytesIO(data)) as archive:
        (member,) = archive.getmembers()
        assert member.name == "seawall.signal"
        file = archive.extractfile(member)
        assert file is not None
        return file.read().decode()


def test_a_failed_import_leaves_nothing() -> None:
    async def story(stage: Node) -> None:
        await stage.http("POST", f"/tenant/{TENANT}")
        client = await stage.client()

        async def garbage() -> AsyncIterator[bytes]:
            yield b"this is not a tar archive" * 100

        with pytest.raises(ServerError):
            await client.copy_in(f"import basebackup {IDS} 0/1000000 15", garbage())
        assert (await stage.http("GET", f"/tenant/{TENANT}"))["timelines"] == []
        assert (await client.query("status")).rows == []
        with pytest.raises(ServerError, match="only a basebackup"):
            await client.query(f"import wal {IDS} 0/1000000 15")
        assert not [key for key in stage.store.bucket.list("") if TIMELINE in key.key]
        await client.close()

    play(story)


# The node's end.


def test_the_node_stops_with_clients_inside_and_ships_what_it_has() -> None:
    async def story(stage: Node) -> None:
        await stage.timeline(20)
        end = stage.history.end
        idle, waiting = await stage.client(), await stage.client()
        stream = await idle.copy_both(f"pagestream {IDS}")
        far = asyncio.ensure_future(
            waiting.query(f"get_page {IDS} 1663 16384 16385 0 0 {Lsn(end + 800)}")
        )
        await asyncio.sleep(1)
        started = stage.loop.time()
        await stage.stop()
        assert stage.loop.time() - started < 4.0
        with pytest.raises((ServerError, ConnectionError)):
            await far
        with pytest.raises((ServerError, ConnectionError)):
            await stream.receive()
        await stage.start()
        await stage.http("POST", f"/tenant/{TENANT}/attach")
        shown = await stage.http("GET", PATH)
        assert shown["remote_consistent_lsn"] == shown["last_record_lsn"] == str(end)

    play(story)


def test_the_node_stops_while_the_store_is_away() -> None:
    async def story(stage: Node) -> None:
        await stage.timeline(20)
        stage.store.outage()
        started = stage.loop.time()
        await stage.stop()
        assert stage.loop.time() - started < 10.0
        stage.store.restore()
        await stage.start()

    play(story, stop_flush_timeout_s=2.0)


def test_a_disk_that_fails_for_a_moment_does_not_prevent_the_start() -> None:
    async def story(stage: Node) -> None:
        await stage.timeline(5)
        await stage.stop()
        stage.disk.arm(DiskFault.EIO, DiskOperation.OPEN, path_prefix="attached", times=2)
        await stage.start()
        assert stage.disk.effects["calls_failed"] == 2
        await stage.http("POST", f"/tenant/{TENANT}/attach")
        assert (await stage.http("GET", PATH))["last_record_lsn"] == str(stage.history.end)

    play(story)


def test_a_wrong_option_is_named() -> None:
    async def story(stage: Node) -> None:
        raise AssertionError("the node must not start")

    with pytest.raises(BadRequest, match="'speed'"):
        play(story, speed=9)


def test_metrics_and_maintenance_over_http():
    async def story(stage: Node) -> None:
        await stage.timeline(40)
        await stage.http("POST", f"{PATH}/checkpoint")
        metrics = await stage.http("GET", "/metrics")
        text = metrics if isinstance(metrics, str) else metrics.decode()
        end = int(stage.history.end)
        labels = f'{{tenant_id="{TENANT}",timeline_id="{TIMELINE}"}}'
        shown = text.partition(f"pageserver_remote_consistent_lsn{labels} ")[2].partition("\n")[0]
        assert float(shown) == end
        assert f'pageserver_tenant_state{{state="Active",tenant_id="{TENANT}"}} 1.0\n' in text
        assert "# TYPE pageserver_layer_downloads_total counter\n" in text
        assert 'seawall_tasks{kind="compaction",runtime="main"} 1.0\n' in text

        leased = str(stage.history.ends[10])
        lease = await stage.http("POST", f"{PATH}/lease", {"lsn": leased})
        assert lease["valid_for_s"] > 50
        body = {"gc_horizon": 0, "pitr_interval_s": 0}
        done = await stage.http("POST", f"{PATH}/gc", body)
        assert (done["cutoff"], done["held_by"]) == (leased, "lease")
        with pytest.raises(HttpError, match=f"{stage.history.ends[3]}.*{leased}") as caught:
            await stage.http("POST", f"{PATH}/lease", {"lsn": str(stage.history.ends[3])})
        assert caught.value.status == 416
        now = await stage.http("GET", f"{PATH}/lsn_by_timestamp?timestamp_us=9999999999999999")
        assert now == {"lsn": leased, "kind": "nodata"}, "its commits tell no time"

        assert (await stage.http("DELETE", PATH))["state"] == "Deleted"
        for method in ("GET", "DELETE"):
            with pytest.raises(HttpError, match="not_found"):
                await stage.http(method, PATH)
        new = {"timeline_id": TIMELINE, "start_lsn": "0/100000", "pg_version": 15}
        with pytest.raises(HttpError, match="was deleted"):
            await stage.http("POST", f"/tenant/{TENANT}/timeline", new)

    play(story)
