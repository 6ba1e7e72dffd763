"""The page service and the HTTP API of a pageserver as their clients see them when things go wrong.

Whatever fails, and however far a command had come: the client is told in words and in a code, the
operator finds the causes in the log, and both the connection and the server go on.
"""

from __future__ import annotations

from typing import Any

import pytest

from harness.backup_client import backup_client
from harness.endpoint import Refused
from harness.errors import NotYet
from harness.patience import HttpError
from harness.topology import Topology
from harness.world import World
from storage.lsn import Lsn

BROKEN = "the disk is on fire"
STRANGER = "0" * 32


@pytest.mark.row("D2.simple", "D2.extended", "C1.log", "C1.client", "D1.basebackup")
@pytest.mark.computes("walgen", reason="the backup of a PostgreSQL is larger, and no different")
@pytest.mark.parametrize("extended", [False, True])
async def test_error_inside_a_base_backup(world: World, extended: bool) -> None:
    """A copy that breaks off in the middle used to take the connection along, or the server."""
    cluster = await world.start(Topology())
    world.expect_log(BROKEN, reason="it is injected")
    primary = await cluster.endpoint("main")
    await primary.put(1, "before")
    end = await cluster.caught_up(cluster.pageserver(0), primary.timeline)
    base = f"basebackup {primary.timeline.tenant_id} {primary.timeline.timeline_id}"

    async with backup_client("ps0", extended=extended) as client:
        whole = await client.backup(f"{base} {end}")
        async with world.faults.failpoint(
            cluster.pageserver(0), "ps-basebackup-sent", "return", message=BROKEN, count=1
        ):
            with pytest.raises(Refused, match=BROKEN) as broken:
                await client.backup(f"{base} {end}")
        assert client.received == len(whole), "the error came before the copy, not inside of it"
        assert broken.value.sqlstate == "58030"
        assert await client.rows("status") == 1
        for lsn, sqlstate, words in (
            (Lsn(8), "22003", "0/8 is before initdb_lsn 0/100000"),
            ("nonsense", "22023", "nonsense"),
        ):
            with pytest.raises(Refused, match=words) as refused:
                await client.backup(f"{base} {lsn}")
            assert refused.value.sqlstate == sqlstate
        assert await client.backup(f"{base} {end}") == whole

    await logged(world, BROKEN, "Traceback")
    await primary.put(1, "after")
    assert await primary.get(1) == "after"


async def logged(world: World, *words: str) -> None:
    """Wait until some line of the pageserver's log has all of these words."""

    async def found() -> None:
        lines = [line.text for line in world.backend.logs() if line.node == "ps0"]
        if not any(all(word in text for word in words) for text in lines):
            raise NotYet(f"{words} are not in the log")

    await world.eventually(found)


@pytest.mark.row("A1.errors", "P5.errors", "P5.openapi", "D1.branch")
@pytest.mark.computes("walgen", reason="PostgreSQL tells no LSN to branch at")
async def test_refusals_of_a_pageserver_are_typed(world: World) -> None:
    """Every kind of wrong request, by its status, its kind and words that help; and the API's own
    description has a route for each right one."""
    cluster = await world.start(Topology())
    primary = await cluster.endpoint("main")
    await primary.put(1, "before")
    home, tenant, timeline = cluster.pageserver(0), *primary.timeline
    here = f"/tenant/{tenant}/timeline/{timeline}"
    branch = {"timeline_id": "1" * 32, "ancestor_timeline_id": timeline}
    refused: list[tuple[str, str, Any, int, str, str]] = [
        ("GET", "/tenant/xyz", None, 400, "bad_request", "xyz"),
        ("GET", f"/tenant/{STRANGER}", None, 404, "not_found", "not attached"),
        ("POST", f"/tenant/{STRANGER}/attach", None, 404, "not_found", STRANGER),
        ("POST", f"/tenant/{STRANGER}/detach", None, 404, "not_found", STRANGER),
        ("POST", f"{here}/gc", {"gc_horizon": -1}, 400, "bad_request", "gc_horizon"),
        ("POST", f"{here}/lease", {}, 400, "bad_request", "'lsn' is missing"),
        ("POST", f"{here}/lease", {"lsn": "0/8"}, 416, "lsn_out_of_scope", "0/8 is before"),
        ("GET", f"{here}/lsn_by_timestamp", None, 400, "bad_request", "timestamp_us"),
        ("POST", f"/tenant/{tenant}/timeline", {**branch, "ancestor_start_lsn": "0/8"},
         416, "lsn_out_of_scope", "0/8 is before initdb_lsn 0/100000"),
        ("PUT", "/failpoints/nowhere", {"action": "off"}, 400, "bad_request", "nowhere"),
        ("PATCH", "/tasks", None, 405, "method_not_allowed", "PATCH"),
    ]  # fmt: skip
    for method, path, body, status, kind, words in refused:
        with pytest.raises(HttpError, match=words) as caught:
            await home.http(method, path, body)
        assert (caught.value.status, caught.value.kind) == (status, kind), caught.value
        await logged(world, f"[{caught.value.trace_id}]")

    document = await home.http("GET", "/openapi.json")
    for path, operations in document["paths"].items():
        if "get" in operations and "{" not in path:
            await home.http("GET", path.removeprefix("/v1"))
    for route in ("gc", "checkpoint", "compact", "lease", "lsn_by_timestamp"):
        assert "/v1/tenant/{tenant_id}/timeline/{timeline_id}/" + route in document["paths"]
    assert await primary.get(1) == "before"
