"""The part of JSON Schema that our HTTP APIs are described by, and checking values against it.

One schema both validates a request and is published in the OpenAPI document. Objects refuse keys
that are not among their ``properties``; a keyword this module does not know is refused when the
route is declared, so no rule is silently ignored. Source: JSON Schema draft 2020-12.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any

from storage.errors import BadRequest

Schema = Mapping[str, Any]

TEXT: Schema = {"type": "string"}
INTEGER: Schema = {"type": "integer"}
NATURAL: Schema = {"type": "integer", "minimum": 0}
NUMBER: Schema = {"type": "number"}
BOOLEAN: Schema = {"type": "boolean"}
LSN: Schema = {"type": "string", "pattern": "^[0-9A-Fa-f]{1,8}/[0-9A-Fa-f]{1,8}$"}
TENANT_ID: Schema = {"type": "string", "pattern": "^[0-9a-f]{32}$"}
TIMELINE_ID: Schema = TENANT_ID


def object_of(
    required: Mapping[str, Schema] | None = None, optional: Mapping[str, Schema] | None = None
) -> Schema:
    """An object with these properties and no others."""
    required, optional = required or {}, optional or {}
    schema: dict[str, Any] = {"type": "object", "properties": {**required, **optional}}
    if required:
        schema["required"] = list(required)
    return schema


def list_of(items: Schema) -> Schema:
    """An array whose items all match."""
    return {"type": "array", "items": items}


_TYPES: dict[str, Callable[[Any], bool]] = {
    "object": lambda v: isinstance(v, dict),
    "array": lambda v: isinstance(v, list),
    "string": lambda v: isinstance(v, str),
    "integer": lambda v: isinstance(v, int) and not isinstance(v, bool),
    "number": lambda v: isinstance(v, (int, float)) and not isinstance(v, bool),
    "boolean": lambda v: isinstance(v, bool),
    "null": lambda v: v is None,
}
_ANNOTATIONS = frozenset(("description", "title", "examples", "default", "format"))


def _type(value: Any, wanted: str | list[str], where: str) -> None:
    names = [wanted] if isinstance(wanted, str) else wanted
    if not any(_TYPES[name](value) for name in names):
        raise BadRequest(f"{where}: {_shown(value)} is not of type {' or '.join(names)}")


def _required(value: Any, names: list[str], where: str) -> None:
    for name in names:
        if isinstance(value, dict) and name not in value:
            raise BadRequest(f"{where}: {name!r} is missing")


def _properties(value: Any, properties: Mapping[str, Schema], where: str) -> None:
    if isinstance(value, dict):
        for name, item in value.items():
            if name not in properties:
                known = ", ".join(properties) or "none"
                raise BadRequest(f"{where}: unknown name {name!r}; known are: {known}")
            check(item, properties[name], f"{where}.{name}")


def _additional_properties(value: Any, schema: Schema, where: str) -> None:
    if isinstance(value, dict):
        for name, item in value.items():
            check(item, schema, f"{where}.{name}")


def _items(value: Any, schema: Schema, where: str) -> None:
    if isinstance(value, list):
        for number, item in enumerate(value):
            check(item, schema, f"{where}[{number}]")


def _enum(value: Any, allowed: list[Any], where: str) -> None:
    if value not in allowed:
        raise BadRequest(f"{where}: {_shown(value)} is none of {allowed}")


def _pattern(value: Any, pattern: str, where: str) -> None:
    # In JSON Schema $ is the end of the text; in Python it also matches before a last newline.
    python_pattern = pattern[:-1] + r"\Z" if pattern.endswith("$") else pattern
    if isinstance(value, str) and re.search(python_pattern, value) is None:
        raise BadRequest(f"{where}: {_shown(value)} does not match {pattern}")


def _minimum(value: Any, least: float, where: str) -> None:
    if _TYPES["number"](value) and value < least:
        raise BadRequest(f"{where}: {value} is less than {least}")


def _maximum(value: Any, most: float, where: str) -> None:
    if _TYPES["number"](value) and value > most:
        raise BadRequest(f"{where}: {value} is more than {most}")


def _min_items(value: Any, least: int, where: str) -> None:
    if isinstance(value, list) and len(value) < least:
        raise BadRequest(f"{where}: {len(value)} items, at least {least} are needed")


def _shown(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 80 else text[:80] + "…"


_RULES: dict[str, Callable[[Any, Any, str], None]] = {
    "type": _type,
    "required": _required,
    "properties": _properties,
    "additionalProperties": _additional_properties,
    "items": _items,
    "enum": _enum,
    "pattern": _pattern,
    "minimum": _minimum,
    "maximum": _maximum,
    "minItems": _min_items,
}


def check(value: Any, schema: Schema, where: str) -> None:
    """Raise ``BadRequest`` saying where and why ``value`` does not match ``schema``."""
    for keyword, argument in schema.items():
        rule = _RULES.get(keyword)
        if rule is not None:
            rule(value, argument, where)


def check_schema(schema: Schema, where: str) -> None:
    """Raise ``ValueError`` for a schema that uses a keyword or type this module does not know."""
    for keyword, argument in schema.items():
        if keyword not in _RULES and keyword not in _ANNOTATIONS:
            raise ValueError(
                f"{where}: {keyword!r} is no schema keyword known here: {list(_RULES)}"
            )
        if keyword == "type":
            for name in [argument] if isinstance(argument, str) else argument:
                if name not in _TYPES:
                    raise ValueError(f"{where}: unknown type {name!r}")
        elif keyword == "properties":
            for name, part in argument.items():
                check_schema(part, f"{where}.{name}")
        elif keyword in ("items", "additionalProperties"):
            check_schema(argument, f"{where}.{keyword}")


def convert_query(name: str, text: str, schema: Schema) -> Any:
    """A query parameter's text as the type its schema asks for."""
    wanted = schema.get("type", "string")
    try:
        if wanted == "integer":
            return int(text)
        if wanted == "number":
            return float(text)
        if wanted == "boolean":
            return {"true": True, "false": False}[text]
    except (ValueError, KeyError):
        raise BadRequest(f"query.{name}: {text!r} is not of type {wanted}") from None
    return text
