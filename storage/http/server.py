"""Serves an :class:`Api` over HTTP/1.1 with aiohttp's protocol, and turns errors into JSON.

Every failure, from a malformed request line to a bug in a handler, is answered as
``{"msg", "kind", "trace_id"}``; the trace id is in the log with the whole cause chain. Nothing of
an answer depends on the wall clock, so two runs of one seed send the same bytes.
"""

from __future__ import annotations

import asyncio
import json
import logging
from typing import Any
from urllib.parse import unquote

from aiohttp import web

from storage.errors import BadRequest, PortError, ProtocolError, RequestError, SeawallError
from storage.http.api import (
    PREFIX,
    Api,
    Handler,
    MethodNotAllowed,
    Reply,
    Request,
    RouteMissing,
    Text,
)
from storage.http.failpoints import add_failpoints
from storage.http.json_text import dump, plain
from storage.http.openapi import openapi_document
from storage.listener import Listener
from storage.log import log_failure, one_line
from storage.tasks import Registration, TaskInfo, TaskKind, TaskRegistry

__all__ = ["Api", "Handler", "HttpServer", "Reply", "Request", "Text", "serve"]

logger = logging.getLogger(__name__)

BODY_BYTES_MAX = 16 << 20
"""Largest request body accepted."""

_UNWIND_S = 4.0
"""What closing may take beyond the time given to requests, in seconds."""

# aiohttp would otherwise print the wall clock and its own version.
_FIXED_HEADERS = {"Date": "Thu, 01 Jan 1970 00:00:00 GMT", "Server": "seawall"}


class BodyTooLarge(RequestError):
    """The request's body is larger than this server takes."""

    kind = "body_too_large"
    http_status = 413


def _json_response(status: int, data: Any) -> web.Response:
    return web.Response(
        status=status, body=dump(data), content_type="application/json", headers=_FIXED_HEADERS
    )


def _response(answer: Reply | Text) -> web.Response:
    if isinstance(answer, Reply):
        return _json_response(answer.status, answer.data)
    headers = {**_FIXED_HEADERS, "Content-Type": answer.content_type}
    return web.Response(body=answer.text.encode(), headers=headers)


def status_and_kind(error: BaseException) -> tuple[int, str]:
    """HTTP status and ``kind`` of an error: whose fault it was, for programs."""
    match error:
        case RequestError():
            return error.http_status, error.kind
        case PortError() | OSError() | TimeoutError() | EOFError():
            return 503, "unavailable"
        case ProtocolError():
            return 502, "peer_protocol"
        case _:
            return 500, "internal"


class HttpServer:
    """A running server; made by :func:`serve`."""

    def __init__(self, api: Api, registry: TaskRegistry) -> None:
        self._api = api
        self._registry = registry
        self._listener = Listener(registry, TaskKind.HTTP_SERVER)
        self._protocols = _ProtocolFactory(self)
        self._requests: dict[int, Registration] = {}
        self._request_end_s = 3.0
        self.closed = False

    async def listen(self, host: str, port: int) -> None:
        """Start accepting connections."""
        await self._listener.listen(self._protocols, (host, port), self._end_requests)

    @property
    def port(self) -> int:
        """The port that it listens on; tells which one port 0 became."""
        return self._listener.port

    async def close(self, *, within_s: float = 3.0) -> None:
        """Stop listening at once; requests under way are asked to stop, then cancelled."""
        self._request_end_s = within_s
        await self._registry.stop([self._listener.entry], within_s=within_s + _UNWIND_S)

    async def _end_requests(self) -> None:
        requests = list(self._requests.values())
        await self._registry.stop(requests, within_s=self._request_end_s)
        self.closed = True
        self._protocols.pre_shutdown()
        await self._protocols.shutdown(_UNWIND_S / 4)

    # ---- one request

    async def answer(self, raw: web.BaseRequest) -> web.StreamResponse:
        """Answer one request, whatever happens; for the protocol."""
        doing = f"{raw.method} {raw.rel_url.raw_path}"
        try:
            with self._registry.adopt(TaskKind.HTTP_REQUEST, doing) as entry:
                self._requests[entry.info.number] = entry
                try:
                    return _response(await self._handle(raw))
                finally:
                    del self._requests[entry.info.number]
        except Exception as error:
            return self.failure(doing, error)

    async def _handle(self, raw: web.BaseRequest) -> Any:
        path = raw.rel_url.raw_path
        if not path.startswith(PREFIX + "/"):
            raise RouteMissing(f"no such path: {path}; all paths begin with {PREFIX}/")
        segments = tuple(unquote(part) for part in path[len(PREFIX) + 1 :].split("/"))
        route, parameters = self._api.find(raw.method, path, segments)
        body = await _read_json(raw)
        answer = await route.handler(route.request(parameters, _read_query(raw), body))
        if isinstance(answer, Text):
            return answer
        reply = answer if isinstance(answer, Reply) else Reply(200, answer)
        reply = Reply(reply.status, plain(reply.data))
        route.check_answer(reply.data)
        return reply

    def failure(self, doing: str, error: BaseException) -> web.Response:
        """The answer for an error, which is logged under the same trace id."""
        trace_id = self._registry.trace_ids.next()
        log_failure(logger, doing, error, trace_id=trace_id)
        status, kind = status_and_kind(error)
        expected = isinstance(error, SeawallError)
        msg = str(error) if expected else f"internal error: {one_line(error)}"
        response = _json_response(status, {"msg": msg, "kind": kind, "trace_id": trace_id})
        if isinstance(error, MethodNotAllowed):
            response.headers["Allow"] = ", ".join(error.allowed)
        return response


def _read_query(raw: web.BaseRequest) -> dict[str, str]:
    query: dict[str, str] = {}
    for name, value in raw.rel_url.query.items():
        if name in query:
            raise BadRequest(f"query: {name!r} is given twice")
        query[name] = value
    return query


async def _read_json(raw: web.BaseRequest) -> Any:
    data = await _read_body(raw)
    if not data:
        return None
    try:
        return json.loads(data)
    except ValueError as error:
        raise BadRequest(f"the body is not JSON: {error}") from error


async def _read_body(raw: web.BaseRequest) -> bytes:
    declared = raw.content_length or 0
    if raw.headers.get("Expect", "").lower() == "100-continue" and raw.transport is not None:
        raw.transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")
    chunks: list[bytes] = []
    size = 0
    while declared <= BODY_BYTES_MAX and (chunk := await raw.content.readany()):
        chunks.append(chunk)
        size += len(chunk)
        if size > BODY_BYTES_MAX:
            break
    if max(size, declared) > BODY_BYTES_MAX:
        raise BodyTooLarge(f"a body of more than {BODY_BYTES_MAX} bytes is not taken")
    return b"".join(chunks)


class _ProtocolFactory(web.Server):
    """Makes one protocol object per connection."""

    def __init__(self, server: HttpServer) -> None:
        super().__init__(server.answer, access_log=None, lingering_time=0)
        self.server = server

    def __call__(self) -> web.RequestHandler:
        return _Protocol(self, loop=self._loop, **self._kwargs)


class _Protocol(web.RequestHandler):
    """aiohttp's protocol, except that malformed requests get our typed error too."""

    __slots__ = ("_factory",)

    def __init__(self, factory: _ProtocolFactory, **options: Any) -> None:
        super().__init__(factory, **options)
        self._factory = factory

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Take a connection, unless it was accepted in the last moment before the listener closed:
        the list of those to be closed was made without it."""
        if self._factory.server.closed:
            assert isinstance(transport, asyncio.Transport)
            transport.abort()
            return
        super().connection_made(transport)

    def connection_lost(self, exc: BaseException | None) -> None:
        """The client is gone, perhaps before the task that serves it runs, which aiohttp does not
        reckon with: it would call what it has just cleared."""
        super().connection_lost(exc)
        self._request_factory = _client_is_gone

    async def start(self) -> None:
        """Serve the connection's requests."""
        if self._manager is not None:
            await super().start()

    def handle_error(
        self,
        request: web.BaseRequest,
        status: int = 500,
        exc: BaseException | None = None,
        message: str | None = None,
    ) -> web.StreamResponse:
        """Answer what never reached a handler."""
        error: BaseException = exc or RuntimeError(message or "unknown failure")
        if 400 <= status < 500:
            error = BadRequest(f"malformed HTTP request: {message or error}")
        response = self._factory.server.failure("HTTP request", error)
        response.force_close()
        return response


def _client_is_gone(*_: object) -> web.BaseRequest:
    raise asyncio.CancelledError("the client is gone")


async def serve(api: Api, host: str, port: int, registry: TaskRegistry) -> HttpServer:
    """Listen on ``(host, port)``; adds ``openapi.json``, ``status``, ``tasks``, ``failpoints``."""

    async def document(_request: Request) -> dict[str, Any]:
        return openapi_document(api)

    async def status(_request: Request) -> dict[str, Any]:
        return {
            "title": api.title,
            "node": registry.node,
            "tasks": len(registry.snapshot_of_node()),
        }

    async def tasks(_request: Request) -> list[TaskInfo]:
        return registry.snapshot_of_node()

    add_failpoints(api, registry.failpoints)
    for path, handler, summary in (
        ("/openapi.json", document, "This document"),
        ("/status", status, "Whether the node serves"),
        ("/tasks", tasks, "Every task that runs, with its kind, tenant and timeline"),
    ):
        if not api.has("GET", path):
            api.add("GET", path, handler, summary=summary)
    server = HttpServer(api, registry)
    await server.listen(host, port)
    return server
