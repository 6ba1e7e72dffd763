"""HTTP server and client together on the simulated loop: answers, typed errors, the end."""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import pytest

import sim
from sim.policy import SeededRandom
from storage.errors import Conflict, PortError
from storage.http import server as http_server
from storage.http.client import HttpError, call
from storage.http.schema import INTEGER, LSN, TENANT_ID, TEXT, object_of
from storage.http.server import Api, HttpServer, Reply, Request, Text, serve
from storage.lsn import Lsn
from storage.tasks import ShutdownRequested, TaskKind, TaskRegistry, interruptible

TENANT = "a" * 32


@dataclass
class World:
    """A server with a few routes."""

    registry: TaskRegistry
    running: asyncio.Event = field(default_factory=asyncio.Event)
    server: HttpServer | None = None

    async def call(self, method: str, path: str, body: Any = None, **options: Any) -> Any:
        return await call(method, "ps0", 9898, "/v1" + path, body, **options)

    async def raw(self, *pieces: bytes) -> bytes:
        """Send bytes, return everything that comes back."""
        reader, writer = await asyncio.open_connection("ps0", 9898)
        for piece in pieces:
            writer.write(piece)
        answer = await reader.read()
        writer.close()
        return answer


async def _attach(request: Request) -> Any:
    if request.has("fail"):
        raise {"conflict": Conflict("busy"), "port": PortError("no disk")}[request.query["fail"]]
    return {
        "tenant_id": request.tenant_id(),
        "start": request.lsn("start_lsn"),
        "next": Lsn(request.lsn("start_lsn") + request.query.get("add", 0)),
    }


async def _bug(_request: Request) -> Any:
    try:
        raise KeyError("inner")
    except KeyError as error:
        raise ValueError("outer") from error


async def _lies(_request: Request) -> Any:
    return {"count": "many"}


async def _created(request: Request) -> Reply:
    return Reply(201, {"name": request.path["name"], "lsn": Lsn(1)})


async def _metrics(_request: Request) -> Text:
    return Text("text/plain", "up 1\n")


def _api(world: World) -> Api:
    async def hang(_request: Request) -> None:
        world.running.set()
        await asyncio.get_running_loop().create_future()

    async def listen(_request: Request) -> str:
        world.running.set()
        try:
            async with interruptible():
                await asyncio.get_running_loop().create_future()
        except ShutdownRequested:
            return "stopped politely"
        return "never"

    api = Api("pageserver")
    api.add(
        "POST", "/tenant/{tenant_id}/attach", _attach, summary="Attach a tenant",
        body=object_of({"start_lsn": LSN}, {"note": TEXT}),
        query=object_of(optional={"add": INTEGER, "fail": TEXT}),
        answer=object_of({"tenant_id": TENANT_ID, "start": LSN, "next": LSN}),
    )  # fmt: skip
    api.add("GET", "/bug", _bug, summary="A defect")
    api.add("GET", "/lies", _lies, summary="Lies", answer=object_of({"count": INTEGER}))
    api.add("PUT", "/thing/{name}", _created, summary="Make a thing")
    api.add("GET", "/metrics", _metrics, summary="Numbers")
    api.add("GET", "/hang", hang, summary="Hangs")
    api.add("GET", "/listen", listen, summary="Waits for the end")
    return api


@asynccontextmanager
async def http_world() -> AsyncIterator[World]:
    world = World(TaskRegistry("ps0"))
    world.server = await serve(_api(world), "ps0", 9898, world.registry)
    yield world
    await world.server.close()
    assert world.registry.snapshot() == []


def run(story: Callable[[World], Awaitable[Any]]) -> Any:
    async def main() -> Any:
        async with http_world() as world:
            return await story(world)

    return sim.run(main)


def test_answers_of_every_kind() -> None:
    async def story(world: World) -> None:
        path = f"/tenant/{TENANT}/attach"
        assert await world.call("POST", path + "?add=16", {"start_lsn": Lsn(0xF0)}) == {
            "tenant_id": TENANT, "start": "0/F0", "next": "0/100",
        }  # fmt: skip
        assert await world.call("PUT", "/thing/a%2Fb%20c") == {"name": "a/b c", "lsn": "0/1"}
        assert await world.call("GET", "/metrics") == "up 1\n"
        status = await world.call("GET", "/status")
        assert (status["title"], status["node"]) == ("pageserver", "ps0")
        tasks = await world.call("GET", "/tasks")
        assert [(task["kind"], task["name"]) for task in tasks] == [
            ("http_server", "ps0:9898"), ("http_request", "GET /v1/tasks"),
        ]  # fmt: skip

    run(story)


ATTACH = f"/tenant/{TENANT}/attach"
GOOD = {"start_lsn": "0/1"}


@pytest.mark.parametrize(
    ("method", "path", "body", "status", "kind", "msg"),
    [
        ("POST", "/tenant/x/attach", GOOD, 400, "bad_request", "tenant_id: 'x' is not a TenantId"),
        ("POST", ATTACH, {"start_lsn": "1"}, 400, "bad_request", "body.start_lsn: '1' does not"),
        ("POST", ATTACH, None, 400, "bad_request", "body: 'start_lsn' is missing"),
        ("POST", ATTACH, [], 400, "bad_request", "body: .. is not of type object"),
        ("POST", ATTACH, {**GOOD, "x": 1}, 400, "bad_request", "body: unknown name 'x'; known are"),
        ("POST", ATTACH + "?x=1", GOOD, 400, "bad_request", "query: unknown name 'x'"),
        ("POST", ATTACH + "?add=x", GOOD, 400, "bad_request", "query.add: 'x' is not of type int"),
        ("POST", ATTACH + "?add=1&add=2", GOOD, 400, "bad_request", "'add' is given twice"),
        ("POST", ATTACH + "?fail=conflict", GOOD, 409, "conflict", "busy"),
        ("POST", ATTACH + "?fail=port", GOOD, 503, "unavailable", "no disk"),
        ("GET", "/bug", None, 500, "internal", "internal error: ValueError: outer: caused by: Key"),
        ("GET", "/bug", {}, 400, "bad_request", "GET /bug takes no body"),
        ("GET", "/lies", None, 500, "internal", "answer.count: 'many' is not of type integer"),
        ("GET", "/nothing", None, 404, "not_found", "no such path: /v1/nothing"),
        ("GET", "", None, 404, "not_found", "no such path: /v1; all paths begin with /v1/"),
        ("DELETE", ATTACH, None, 405, "method_not_allowed", "allows POST, not DELETE"),
        ("PATCH", "/status", None, 405, "method_not_allowed", "allows GET"),
    ],
)  # fmt: skip
def test_every_refusal_is_typed_json(
    method: str, path: str, body: Any, status: int, kind: str, msg: str
) -> None:
    async def story(world: World) -> None:
        with pytest.raises(HttpError, match=msg) as caught:
            await world.call(method, path, body)
        assert (caught.value.status, caught.value.kind) == (status, kind)
        assert caught.value.trace_id == "ps0-1"

    run(story)


@pytest.mark.parametrize(
    ("request_bytes", "status", "msg"),
    [
        (b"NONSENSE\r\n\r\n", 400, "malformed HTTP request"),
        (b"GET /v1/status HTTP/1.1\r\nbad header\r\n\r\n", 400, "malformed HTTP request"),
        (b"GET /" + b"x" * 20_000 + b" HTTP/1.1\r\n\r\n", 400, "malformed HTTP request"),
        (b"POST " + f"/v1{ATTACH}".encode() + b" HTTP/1.1\r\nHost: x\r\nConnection: close\r\n"
         b"Content-Length: 5\r\n\r\n{nope", 400, "the body is not JSON"),
        (b"POST " + f"/v1{ATTACH}".encode() + b" HTTP/1.1\r\nHost: x\r\nConnection: close\r\n"
         b"Content-Length: 999999999\r\n\r\n", 413, "a body of more than"),
    ],
)  # fmt: skip
def test_malformed_requests_are_typed_json_too(request_bytes: bytes, status: int, msg: str) -> None:
    async def story(world: World) -> None:
        answer = await world.raw(request_bytes)
        head, _, body = answer.partition(b"\r\n\r\n")
        assert head.split()[1] == str(status).encode()
        error = json.loads(body)
        assert sorted(error) == ["kind", "msg", "trace_id"]
        assert msg in error["msg"]
        await world.call("GET", "/status")

    run(story)


def test_chunked_bodies_are_read_and_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http_server, "BODY_BYTES_MAX", 100)
    head = (
        b"POST "
        + f"/v1{ATTACH}".encode()
        + (b" HTTP/1.1\r\nHost: x\r\nConnection: close\r\nTransfer-Encoding: chunked\r\n\r\n")
    )

    async def story(world: World) -> None:
        body = b'{"start_lsn":"0/1"}'
        answer = await world.raw(head + b"%x\r\n" % len(body) + body + b"\r\n0\r\n\r\n")
        assert answer.startswith(b"HTTP/1.1 200 ")
        padded = b" " * (100 - len(body)) + body
        answer = await world.raw(head + b"64\r\n" + padded + b"\r\n0\r\n\r\n")
        assert answer.startswith(b"HTTP/1.1 200 ")
        answer = await world.raw(head + b"65\r\n " + padded + b"\r\n0\r\n\r\n")
        assert answer.startswith(b"HTTP/1.1 413 ")

    run(story)


def test_a_client_that_expects_a_continue_gets_it() -> None:
    async def story(world: World) -> None:
        head = (
            f"POST /v1{ATTACH} HTTP/1.1\r\nHost: x\r\nConnection: close\r\nExpect: 100-continue\r\n"
            "Content-Length: 19\r\n\r\n"
        )
        reader, writer = await asyncio.open_connection("ps0", 9898)
        writer.write(head.encode())
        assert await reader.readexactly(25) == b"HTTP/1.1 100 Continue\r\n\r\n"
        writer.write(b'{"start_lsn":"0/1"}')
        assert (await reader.read()).startswith(b"HTTP/1.1 200 ")
        writer.close()

    run(story)


def test_the_allowed_methods_are_in_the_header() -> None:
    async def story(world: World) -> None:
        answer = await world.raw(b"PUT /v1/status HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
        assert b"\r\nAllow: GET\r\n" in answer

    run(story)


def test_unexpected_failure_is_in_the_log_with_its_trace_id(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.INFO)

    async def story(world: World) -> None:
        for path in ("/nothing", "/bug"):
            with pytest.raises(HttpError):
                await world.call("GET", path)

    run(story)
    records = [each for each in caplog.records if each.name == "storage.http.server"]
    assert [(each.levelno, each.exc_info is None) for each in records] == [
        (logging.INFO, True),
        (logging.ERROR, False),
    ]
    assert "GET /v1/nothing refused [ps0-1]: no such path" in caplog.text
    assert "GET /v1/bug failed [ps0-2]: ValueError: outer: caused by: KeyError" in caplog.text
    assert caplog.text.count("Traceback (most recent call last)") == 2


def test_two_runs_send_the_same_bytes_and_none_of_the_wall_clock() -> None:
    async def story(world: World) -> bytes:
        requests = (b"GET /v1/openapi.json", b"GET /v1/nothing", b"GET /v1/bug")
        tail = b" HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"
        return b"".join([await world.raw(each + tail) for each in requests])

    first, second = run(story), run(story)
    assert first == second
    assert b"Date: Thu, 01 Jan 1970 00:00:00 GMT\r\n" in first


def test_the_document_describes_every_route() -> None:
    async def story(world: World) -> dict[str, Any]:
        document = await world.call("GET", "/openapi.json")
        assert isinstance(document, dict)
        return document

    document = run(story)
    assert document["openapi"] == "3.1.0"
    assert sorted(document["paths"]) == sorted(
        f"/v1{path}"
        for path in (
            "/tenant/{tenant_id}/attach", "/bug", "/lies", "/thing/{name}", "/metrics", "/hang",
            "/listen", "/openapi.json", "/status", "/tasks", "/failpoints", "/failpoints/{name}",
        )
    )  # fmt: skip
    attach = document["paths"]["/v1/tenant/{tenant_id}/attach"]["post"]
    assert [(each["name"], each["in"], each["required"]) for each in attach["parameters"]] == [
        ("tenant_id", "path", True), ("add", "query", False), ("fail", "query", False),
    ]  # fmt: skip
    assert attach["requestBody"]["required"] is True
    schema = attach["requestBody"]["content"]["application/json"]["schema"]
    assert schema["required"] == ["start_lsn"]
    assert set(attach["responses"]) == {"200", "default"}


@pytest.mark.parametrize(("path", "within_s"), [("/hang", 3.0), ("/listen", 0.1)])
def test_close_asks_requests_to_stop_and_cancels_the_deaf(path: str, within_s: float) -> None:
    async def story(world: World) -> None:
        assert world.server is not None
        asking = asyncio.ensure_future(world.call("GET", path, timeout_s=100))
        await world.running.wait()
        start = asyncio.get_running_loop().time()
        await world.server.close(within_s=3.0)
        assert asyncio.get_running_loop().time() - start <= within_s + 0.1
        assert world.registry.snapshot() == []
        if path == "/listen":
            assert await asking == "stopped politely"
        else:
            with pytest.raises(ConnectionError):
                await asking
        with pytest.raises(ConnectionError):
            await world.call("GET", "/status")

    run(story)


def test_close_does_not_wait_for_idle_connections() -> None:
    async def story(world: World) -> None:
        reader, writer = await asyncio.open_connection("ps0", 9898)
        writer.write(b"GET /v1/status HTTP/1.1\r\nHost: x\r\n\r\n")
        await reader.readuntil(b"}")
        start = asyncio.get_running_loop().time()
        await world.registry.shutdown(kind=TaskKind.HTTP_SERVER)
        assert asyncio.get_running_loop().time() - start < 0.5
        assert await reader.read() == b""
        writer.close()

    run(story)


def test_requests_leave_the_registry() -> None:
    async def story(world: World) -> None:
        for _ in range(200):
            await world.call("GET", "/status")
        assert [info.kind for info in world.registry.snapshot()] == [TaskKind.HTTP_SERVER]

    run(story)


def test_a_slow_server_times_out_and_a_missing_one_is_a_connection_error() -> None:
    async def story(world: World) -> None:
        start = asyncio.get_running_loop().time()
        with pytest.raises(TimeoutError):
            await world.call("GET", "/hang", timeout_s=2.5)
        assert asyncio.get_running_loop().time() - start == pytest.approx(2.5)
        with pytest.raises(ConnectionError):
            await call("GET", "ps0", 1, "/v1/status")
        with pytest.raises(ConnectionError):
            await call("GET", "no-such-host", 9898, "/v1/status")

    run(story)


def test_clients_that_hang_up_at_any_moment_leave_no_trace(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async def ask_and_leave(pieces: int) -> None:
        _, writer = await asyncio.open_connection("ps0", 9898)
        for _ in range(pieces):
            writer.write(b"GET /v1/metrics HTTP/1.1\r\nHost: ps0\r\n\r\n")
        writer.close()

    async def main() -> None:
        async with http_world():
            await asyncio.gather(*(ask_and_leave(number % 3) for number in range(12)))
            await asyncio.sleep(1)

    for seed in range(40):
        sim.run(main, seed=seed, policy=SeededRandom())
    assert [record.getMessage() for record in caplog.records if record.levelname == "ERROR"] == []
