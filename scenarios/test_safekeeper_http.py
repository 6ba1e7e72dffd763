"""A safekeeper's HTTP API as strangers and Prometheus see it."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest

from harness.cluster import Cluster
from harness.errors import NotYet
from harness.nodes import SAFEKEEPER_HTTP_PORT
from harness.topology import Topology
from harness.world import World
from storage.errors import SeawallError
from storage.lsn import Lsn

TIMELINE = f"/tenant/{'1' * 32}/timeline/{'2' * 32}"
IDENTITY: dict[str, Any] = {
    "start_lsn": "0/1000000",
    "system_id": 1,
    "pg_version": 15,
    "wal_segment_size": 1 << 20,
    "safekeepers": ["sk0:5454"],
}

REFUSED: list[tuple[str, str, Any, int, str]] = [
    ("GET", "/tenant/xyz/timeline/" + "2" * 32, None, 400, "bad_request"),
    ("GET", f"/tenant/{'1' * 32}/timeline/{'2' * 31}", None, 400, "bad_request"),
    ("GET", TIMELINE, None, 404, "not_found"),
    ("GET", TIMELINE + "?verbose=1", None, 400, "bad_request"),
    ("GET", TIMELINE, {"a": 1}, 400, "bad_request"),
    ("GET", TIMELINE + "/digest?from_lsn=0/1", None, 400, "bad_request"),
    ("GET", TIMELINE + "/digest?from_lsn=0/1&until_lsn=zero", None, 400, "bad_request"),
    ("POST", TIMELINE, None, 400, "bad_request"),
    ("POST", TIMELINE, [1, 2], 400, "bad_request"),
    ("POST", TIMELINE, {**IDENTITY, "start_lsn": "0/1000001"}, 400, "bad_request"),
    ("POST", TIMELINE, {**IDENTITY, "start_lsn": 17}, 400, "bad_request"),
    ("POST", TIMELINE, {**IDENTITY, "wal_segment_size": 12345}, 400, "bad_request"),
    ("POST", TIMELINE, {**IDENTITY, "pg_version": 9}, 400, "bad_request"),
    ("POST", TIMELINE, {**IDENTITY, "safekeepers": []}, 400, "bad_request"),
    ("POST", TIMELINE, {**IDENTITY, "safekeepers": "sk0"}, 400, "bad_request"),
    ("POST", TIMELINE, {**IDENTITY, "surprise": 1}, 400, "bad_request"),
    ("PATCH", "/status", None, 405, "method_not_allowed"),
    ("GET", "/nowhere", None, 404, "not_found"),
    ("PUT", TIMELINE + "/subscription/ps0:6400", None, 404, "not_found"),
]

MALFORMED = [
    b"POST /v1" + TIMELINE.encode() + b" HTTP/1.1\r\nHost: sk0\r\nContent-Length: 3\r\n\r\n{a}",
    b"complete nonsense\r\n\r\n",
    b"GET /v1/status HTTP/1.1\r\nHost: sk0\r\nContent-Length: -5\r\n\r\n",
    b"GET /v1/status HTTP/1.1\r\nno colon here\r\n\r\n",
    b"GET /v1/" + b"x" * 100_000 + b" HTTP/1.1\r\nHost: sk0\r\n\r\n",
    b"GET /v1/tenant/%ff%fe/timeline/" + b"2" * 32 + b" HTTP/1.1\r\nHost: sk0\r\n\r\n",
]


@pytest.mark.row("P5.errors", "C1.log", "C1.client")
async def test_refusals_are_typed_and_found_in_the_log(world: World) -> None:
    """A client must be told what is wrong, and an operator must find it again."""
    cluster = await world.start(Topology())
    endpoint = await cluster.endpoint("main")
    await endpoint.put(1, "before")
    trace_ids = []
    for method, path, body, status, kind in REFUSED:
        with pytest.raises(SeawallError) as refused:
            await cluster.safekeeper(0).http(method, path, body)
        told: Any = refused.value
        assert (told.status, told.kind) == (status, kind), f"{method} {path}: {told}"
        trace_ids.append(told.trace_id)
    assert len({*trace_ids}) == len(REFUSED)

    async def logged() -> None:
        text = "\n".join(line.text for line in world.backend.logs() if line.node == "sk0")
        missing = [each for each in trace_ids if f"[{each}]" not in text]
        if missing:
            raise NotYet(f"{missing} are not in the log")

    await world.eventually(logged)
    await endpoint.put(1, "after")
    assert await endpoint.get(1) == "after"


async def test_bytes_that_are_no_request_get_typed_errors(world: World) -> None:
    """Whatever a port scanner sends, the service answers in its own words and lives on."""
    cluster = await world.start(Topology())
    endpoint = await cluster.endpoint("main")
    for data in MALFORMED:
        status, answer = await exchange(data)
        assert 400 <= status < 500, f"{data[:60]!r}: {status} {answer}"
        assert answer["kind"] == "bad_request"
        assert answer["trace_id"].startswith("sk0-")
    assert (await cluster.safekeeper(0).http("GET", "/status"))["node"] == "sk0"
    await endpoint.put(1, "still there")
    assert await endpoint.get(1) == "still there"


async def exchange(data: bytes) -> tuple[int, dict[str, Any]]:
    """Send bytes to a safekeeper's HTTP port; status and JSON body of what comes back."""
    reader, writer = await asyncio.open_connection("sk0", SAFEKEEPER_HTTP_PORT)
    try:
        writer.write(data)
        head = await reader.readuntil(b"\r\n\r\n")
        fields = dict(line.split(b": ", 1) for line in head.splitlines()[1:] if line)
        body = await reader.readexactly(int(fields[b"Content-Length"]))
    finally:
        writer.close()
    return int(head.split()[1]), dict(json.loads(body))


@pytest.mark.row("P5.openapi", "B1.registered", "E1.named")
async def test_openapi_and_tasks_describe_the_node(world: World) -> None:
    """The description is made of the very routes; every task says where it runs and for whom."""
    cluster = await world.start(Topology())
    endpoint = await cluster.endpoint("main")
    await endpoint.put(1, "x")
    document = await cluster.safekeeper(0).http("GET", "/openapi.json")
    for path, operations in document["paths"].items():
        if "get" in operations and "{" not in path:
            await cluster.safekeeper(0).http("GET", path.removeprefix("/v1"))
        for operation in operations.values():
            assert operation["responses"]["default"]["description"]

    tasks = await cluster.safekeeper(0).tasks()
    of_timeline = [task for task in tasks if task["timeline_id"] == endpoint.timeline.timeline_id]
    assert [task["runtime"] for task in of_timeline] == ["wal-service"] * len(of_timeline)
    assert "wal flusher" in [task["name"] for task in of_timeline]
    places = {task["runtime"] for task in tasks}
    assert {"wal-service", "http", "broker"} <= places
    critical = [task["name"] for task in tasks if task["critical"]]
    needed = {"publish", "peers", "heartbeat", "control files", "wal flusher", "wal remover"}
    assert needed <= {*critical}


@pytest.mark.row("E3.endpoint")
async def test_metrics_tell_what_the_status_tells(world: World) -> None:
    """One endpoint in both worlds; counters never go back."""
    cluster = await world.start(Topology())
    endpoint = await cluster.endpoint("main")
    await endpoint.put(1, "x")
    before = await scrape(cluster)
    for key in range(20):
        await endpoint.put(key, "y" * 100)

    async def settled() -> dict[str, float]:
        status = await cluster.safekeeper(0).timeline(endpoint.timeline)
        found = await scrape(cluster)
        again = await cluster.safekeeper(0).timeline(endpoint.timeline)
        if status != again or status.commit_lsn != status.flush_lsn:
            raise NotYet(f"it still moves: {status}")
        for name in ("flush_lsn", "commit_lsn", "term", "remote_consistent_lsn"):
            assert found[f"safekeeper_{name}"] == getattr(status, name)
        return found

    after = await world.eventually(settled)
    written = "safekeeper_wal_bytes_flushed_total"
    assert after[written] - before[written] == after["safekeeper_flush_lsn"] - Lsn(
        int(before["safekeeper_flush_lsn"])
    )
    assert after["seawall_runtime_up"] == 1


async def scrape(cluster: Cluster) -> dict[str, float]:
    """Last sample of each name; there is one timeline."""
    text = await cluster.safekeeper(0).http("GET", "/metrics")
    lines = (line.rpartition(" ") for line in text.splitlines() if not line.startswith("#"))
    return {name.partition("{")[0]: float(value) for name, _, value in lines}
