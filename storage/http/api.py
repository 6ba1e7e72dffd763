"""Routes of an HTTP API and the requests their handlers get; knows no HTTP library."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Coroutine, Mapping
from dataclasses import dataclass, replace
from typing import Any

from storage.errors import BadRequest, RequestError
from storage.http.schema import Schema, check, check_schema, convert_query, object_of
from storage.ids import TenantId, TimelineId
from storage.lsn import Lsn

PREFIX = "/v1"
"""Every route is mounted below this path."""

JSON_TYPE = "application/json"
"""What an operation answers with unless it says otherwise."""


class RouteMissing(RequestError):
    """No route has this path."""

    kind = "not_found"
    http_status = 404


class MethodNotAllowed(RequestError):
    """The path exists, but not for this method; ``allowed`` lists those it has."""

    kind = "method_not_allowed"
    http_status = 405

    def __init__(self, message: str, allowed: tuple[str, ...]) -> None:
        super().__init__(message)
        self.allowed = allowed


@dataclass(frozen=True, slots=True)
class Reply:
    """An answer with a status of its own; ``data`` is JSON-able."""

    status: int
    data: Any = None


@dataclass(frozen=True, slots=True)
class Text:
    """An answer that is not JSON, such as metrics."""

    content_type: str
    text: str


class Request:
    """A request that matched a route: path and query parameters, and the parsed JSON body."""

    __slots__ = ("body", "path", "query")

    def __init__(self, path: Mapping[str, str], query: Mapping[str, Any], body: Any) -> None:
        self.path = path
        self.query = query
        self.body = body

    def _find(self, name: str) -> Any:
        for place in (self.path, self.query, self.body if isinstance(self.body, dict) else {}):
            if name in place:
                return place[name]
        raise BadRequest(f"{name!r} is missing")

    def _parse(self, name: str, parse: Callable[[str], Any]) -> Any:
        value = self._find(name)
        try:
            return parse(value)
        except (ValueError, TypeError) as error:
            raise BadRequest(f"{name}: {error}") from None

    def tenant_id(self, name: str = "tenant_id") -> TenantId:
        """The tenant id of this name in path, query or body; ``BadRequest`` if it is none."""
        tenant_id = self._parse(name, TenantId)
        assert isinstance(tenant_id, TenantId)
        return tenant_id

    def timeline_id(self, name: str = "timeline_id") -> TimelineId:
        """The timeline id of this name in path, query or body; ``BadRequest`` if it is none."""
        timeline_id = self._parse(name, TimelineId)
        assert isinstance(timeline_id, TimelineId)
        return timeline_id

    def lsn(self, name: str = "lsn") -> Lsn:
        """The LSN of this name in path, query or body; ``BadRequest`` if it is none."""
        lsn = self._parse(name, Lsn.parse)
        assert isinstance(lsn, Lsn)
        return lsn

    def has(self, name: str) -> bool:
        """Whether path, query or body carry this name."""
        body = self.body if isinstance(self.body, dict) else {}
        return name in self.path or name in self.query or name in body


Handler = Callable[[Request], Awaitable[Any]]
"""Answers with JSON-able data (200), a :class:`Reply` or a :class:`Text`, or raises."""


@dataclass(frozen=True, slots=True)
class Route:
    """One operation; ``segments`` are the path's parts below the prefix."""

    method: str
    path: str
    segments: tuple[str, ...]
    handler: Handler
    summary: str
    body: Schema | None
    query: Schema
    answer: Schema | None
    answer_type: str

    def match(self, segments: tuple[str, ...]) -> dict[str, str] | None:
        """Path parameters if the path is this route's, else ``None``."""
        if len(segments) != len(self.segments):
            return None
        parameters = {}
        for pattern, segment in zip(self.segments, segments, strict=True):
            if pattern.startswith("{"):
                parameters[pattern[1:-1]] = segment
            elif pattern != segment:
                return None
        return parameters

    def request(self, path: Mapping[str, str], query: Mapping[str, str], body: Any) -> Request:
        """Check query and body against the schemas; ``BadRequest`` names what does not fit."""
        kinds = self.query.get("properties", {})
        converted = {
            name: convert_query(name, text, kinds.get(name, {})) for name, text in query.items()
        }
        check(converted, self.query, "query")
        if self.body is not None:
            check({} if body is None else body, self.body, "body")
        elif body is not None:
            raise BadRequest(f"{self.method} {self.path} takes no body")
        return Request(path, converted, body)

    def check_answer(self, data: Any) -> None:
        """Our own answer must be what the OpenAPI document promises; ``AssertionError`` if not."""
        if self.answer is not None:
            try:
                check(data, self.answer, "answer")
            except BadRequest as error:
                raise AssertionError(f"{self.method} {self.path}: {error}") from error


class Api:
    """The operations of one node; ``title`` names the node's role in the OpenAPI document."""

    def __init__(self, title: str) -> None:
        self.title = title
        self.routes: list[Route] = []

    def add(  # noqa: PLR0913 - the keywords read as one declaration at the call
        self,
        method: str,
        path: str,
        handler: Handler,
        *,
        summary: str,
        body: Schema | None = None,
        query: Schema | None = None,
        answer: Schema | None = None,
        answer_type: str = JSON_TYPE,
    ) -> None:
        """Declare an operation. ``path`` is below ``/v1``, with ``{name}`` for parameters.

        ``body``, ``query`` and ``answer`` are schemas of ``schema.py``, the first two objects.
        Raises ``ValueError`` for a path taken or a schema not understood.
        """
        if not path.startswith("/"):
            raise ValueError(f"path {path!r} does not start with /")
        if self.has(method, path):
            raise ValueError(f"{method} {path} is declared twice")
        for name, schema in (("body", body), ("query", query), ("answer", answer)):
            if schema is not None:
                check_schema(schema, f"{method} {path} {name}")
        segments = tuple(path[1:].split("/"))
        self.routes.append(
            Route(
                method,
                path,
                segments,
                handler,
                summary,
                body,
                query or object_of(),
                answer,
                answer_type,
            )
        )

    def carry_by(self, carry: Callable[[Callable[[], Coroutine[Any, Any, Any]]], Any]) -> None:
        """Have ``carry(work)`` run the handlers declared so far, in the place they belong to."""

        def carried(handler: Handler) -> Handler:
            async def carry_one(request: Request) -> Any:
                async def handle() -> Any:
                    return await handler(request)

                return await carry(handle)

            return carry_one

        self.routes = [replace(route, handler=carried(route.handler)) for route in self.routes]

    def has(self, method: str, path: str) -> bool:
        """Whether the operation is declared."""
        return any(route.method == method and route.path == path for route in self.routes)

    def find(
        self, method: str, path: str, segments: tuple[str, ...]
    ) -> tuple[Route, dict[str, str]]:
        """The route of a request below the prefix, first declared first."""
        allowed = []
        for route in self.routes:
            parameters = route.match(segments)
            if parameters is None:
                continue
            if route.method == method:
                return route, parameters
            allowed.append(route.method)
        if allowed:
            methods = tuple(dict.fromkeys(allowed))
            raise MethodNotAllowed(f"{path} allows {', '.join(methods)}, not {method}", methods)
        raise RouteMissing(f"no such path: {path}; {PREFIX}/openapi.json lists what there is")
