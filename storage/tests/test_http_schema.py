"""Schemas: each rule on both sides of its boundary; what is not understood is refused early."""

from __future__ import annotations

from typing import Any

import pytest

from storage.errors import BadRequest
from storage.http.json_text import dump
from storage.http.schema import (
    BOOLEAN,
    INTEGER,
    LSN,
    NATURAL,
    NUMBER,
    TENANT_ID,
    TEXT,
    Schema,
    check,
    check_schema,
    convert_query,
    list_of,
    object_of,
)
from storage.ids import TenantId
from storage.lsn import Lsn
from storage.tasks import TaskInfo, TaskKind

TIMELINE = object_of({"start_lsn": LSN}, {"peers": list_of(TEXT), "size": NATURAL})


@pytest.mark.parametrize(
    ("schema", "good", "bad", "complaint"),
    [
        (TEXT, "x", 1, "v: 1 is not of type string"),
        (INTEGER, -1, 1.0, "not of type integer"),
        (INTEGER, 0, True, "True is not of type integer"),
        (NUMBER, 1.5, "1", "not of type number"),
        (NUMBER, 1, False, "not of type number"),
        (BOOLEAN, False, 0, "not of type boolean"),
        (NATURAL, 0, -1, "v: -1 is less than 0"),
        ({"type": "integer", "maximum": 9}, 9, 10, "10 is more than 9"),
        ({"type": ["string", "null"]}, None, 1, "not of type string or null"),
        (LSN, "0/16B3740", "16B3740", "does not match"),
        (LSN, "FFFFFFFF/0", "FFFFFFFFF/0", "does not match"),
        (LSN, "0/0", "0/0\n", "does not match"),
        (TENANT_ID, "a" * 32, "A" * 32, "does not match"),
        (TENANT_ID, "0" * 32, "0" * 33, "does not match"),
        ({"enum": ["a", None]}, None, "b", "v: 'b' is none of"),
        (list_of(INTEGER), [1, 2], [1, "2"], r"v\[1\]: '2' is not of type integer"),
        ({"type": "array", "minItems": 1}, [0], [], "0 items, at least 1"),
        (TIMELINE, {"start_lsn": "0/1"}, {}, "v: 'start_lsn' is missing"),
        (
            TIMELINE,
            {"start_lsn": "0/1", "size": 1},
            {"start_lsn": "0/1", "sise": 1},
            "unknown name",
        ),
        (TIMELINE, {"start_lsn": "0/1", "peers": []}, {"start_lsn": 1}, "v.start_lsn: 1 is not"),
        ({"type": "object", "additionalProperties": INTEGER}, {"x": 1}, {"x": "1"}, "v.x: '1'"),
    ],
)
def test_each_rule_on_both_sides(schema: Schema, good: Any, bad: Any, complaint: str) -> None:
    check_schema(schema, "test")
    check(good, schema, "v")
    with pytest.raises(BadRequest, match=complaint):
        check(bad, schema, "v")


@pytest.mark.parametrize(
    "schema",
    [{"typ": "string"}, {"type": "text"}, object_of({"a": {"oneOf": []}}), list_of({"x": 1})],
)
def test_a_schema_that_is_not_understood_is_refused_at_declaration(schema: Schema) -> None:
    with pytest.raises(ValueError, match="test"):
        check_schema(schema, "test")


@pytest.mark.parametrize(
    ("text", "schema", "value"),
    [("7", INTEGER, 7), ("-7", NATURAL, -7), ("1.5", NUMBER, 1.5), ("true", BOOLEAN, True),
     ("false", BOOLEAN, False), ("7", TEXT, "7"), ("0/1", LSN, "0/1")],
)  # fmt: skip
def test_query_values_are_converted(text: str, schema: Schema, value: Any) -> None:
    assert convert_query("n", text, schema) == value


@pytest.mark.parametrize(("text", "schema"), [("x", INTEGER), ("", NUMBER), ("True", BOOLEAN)])
def test_query_values_of_the_wrong_type_are_named(text: str, schema: Schema) -> None:
    with pytest.raises(BadRequest, match=f"query.n: {text!r} is not of type"):
        convert_query("n", text, schema)


def test_long_values_are_shown_in_part() -> None:
    with pytest.raises(BadRequest) as caught:
        check("x" * 10_000, INTEGER, "v")
    assert len(str(caught.value)) < 200


def test_lsns_and_ids_are_text_in_json() -> None:
    tenant = TenantId("a" * 32)
    info = TaskInfo(1, TaskKind.GC, "n", tenant, None, False, True)
    assert dump({"lsn": Lsn(0x16B3740), "list": (Lsn(0), 5), "ü": None}) == (
        '{"lsn":"0/16B3740","list":["0/0",5],"ü":null}'.encode()
    )
    assert dump(info) == (
        b'{"number":1,"kind":"gc","name":"n","tenant_id":"' + b"a" * 32 +
        b'","timeline_id":null,"critical":false,"stopping":true,"runtime":"main"}'
    )  # fmt: skip
    with pytest.raises(TypeError, match="set has no JSON form"):
        dump({"x": {1}})
    with pytest.raises(ValueError, match="not JSON compliant"):
        dump(float("nan"))
