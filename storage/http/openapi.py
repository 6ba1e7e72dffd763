"""The OpenAPI 3.1 document of an :class:`Api`, made from the very routes that serve requests."""

from __future__ import annotations

from typing import Any

from storage.http.api import JSON_TYPE, PREFIX, Api, Route
from storage.http.schema import TEXT, Schema, object_of

ERROR_SCHEMA: Schema = object_of({"msg": TEXT, "kind": TEXT, "trace_id": TEXT})


def openapi_document(api: Api) -> dict[str, Any]:
    """The whole document, JSON-able; paths in the order they were declared."""
    paths: dict[str, dict[str, Any]] = {}
    for route in api.routes:
        paths.setdefault(PREFIX + route.path, {})[route.method.lower()] = _operation(route)
    return {
        "openapi": "3.1.0",
        "info": {"title": api.title, "version": "1"},
        "paths": paths,
        "components": {"schemas": {"Error": ERROR_SCHEMA}},
    }


def _operation(route: Route) -> dict[str, Any]:
    operation: dict[str, Any] = {"summary": route.summary}
    parameters = _path_parameters(route) + _query_parameters(route)
    if parameters:
        operation["parameters"] = parameters
    if route.body is not None:
        operation["requestBody"] = {
            "required": bool(route.body.get("required")),
            "content": {"application/json": {"schema": route.body}},
        }
    answer = route.answer or ({} if route.answer_type == JSON_TYPE else TEXT)
    operation["responses"] = {
        "200": {"description": "Done", "content": {route.answer_type: {"schema": answer}}},
        "default": {
            "description": "Refused or failed",
            "content": {"application/json": {"schema": {"$ref": "#/components/schemas/Error"}}},
        },
    }
    return operation


def _path_parameters(route: Route) -> list[dict[str, Any]]:
    return [
        {"name": segment[1:-1], "in": "path", "required": True, "schema": TEXT}
        for segment in route.segments
        if segment.startswith("{")
    ]


def _query_parameters(route: Route) -> list[dict[str, Any]]:
    required = route.query.get("required", [])
    return [
        {"name": name, "in": "query", "required": name in required, "schema": schema}
        for name, schema in route.query.get("properties", {}).items()
    ]
