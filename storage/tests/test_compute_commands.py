"""Command texts and node options: what is understood, and how the rest is refused."""

from __future__ import annotations

from typing import Any

import pytest

from storage.compute.commands import Command, Get, Scan, Status, Sum, Transact, Write, parse
from storage.compute.options import ReadonlyOptions, WalgenOptions
from storage.compute.transact import Add, Append, Read
from storage.errors import BadRequest
from storage.kv.page import KEY_MAX

UNDERSTOOD: dict[str, Command] = {
    "put 7 word": Write({7: b"word"}, "PUT"),
    "PUT 7 'two words'": Write({7: b"two words"}, "PUT"),
    "put 7 'it''s; ok'": Write({7: b"it's; ok"}, "PUT"),
    "put 7 '';": Write({7: b""}, "PUT"),
    "put  7   'ä\n' ;": Write({7: "ä\n".encode()}, "PUT"),
    "delete 7": Write({7: None}, "DELETE"),
    "get 7;": Get(7),
    f"get {KEY_MAX}": Get(KEY_MAX),
    "scan 3 9": Scan(3, 9),
    "scan 3 3 ;": Scan(3, 3),
    "sum": Sum(),
    "sum ;": Sum(),
    "status;": Status(),
    'txn {"1": "a", "2": null}': Write({1: b"a", 2: None}, "TXN"),
    'txn {"1": "a"};': Write({1: b"a"}, "TXN"),
    'transact [["read", 1], ["append", 2, "x y"], ["add", 3, -4]];': Transact(
        [Read(1), Append(2, b"x y"), Add(3, -4)]
    ),
}

REFUSED = {
    "": "unknown command",
    "select 1": "unknown command 'select 1'",
    "put 7": "put KEY WORD",
    "put 7 two words": "put KEY WORD",
    "put 7 it's": "put KEY WORD",
    "put x y": "put KEY WORD",
    "put -1 y": "put KEY WORD",
    f"put {KEY_MAX + 1} y": "is not a key",
    "put 1 '" + "x" * 241 + "'": "241 bytes",
    "get": "get KEY",
    "get 1 2": "get KEY",
    "delete 1 2": "delete KEY",
    "scan 1": "scan FIRST END",
    "scan 2 1": "FIRST ≤ END",
    "sum 1": "sum takes no argument",
    "status x": "status takes no argument",
    "txn": "no JSON",
    "txn {}": "KEY",
    "txn [1]": "KEY",
    'txn {"a": "b"}': "'a' is not a key",
    'txn {"1": 2}': "neither text nor null",
    'txn {"1": "' + "x" * 241 + '"}': "241 bytes",
    "transact": "no JSON",
    "transact []": "write transact",
    'transact [["read", 1]]': "use get or scan",
    'transact [["append", 1, "a,b"]]': "no step",
    'transact [["append", 1, ""]]': "no step",
    'transact [["append", "1", "a"]]': "no step",
    'transact [["add", 1, "2"]]': "no step",
    'transact [["add", -1, 2]]': "is not a key",
}


@pytest.mark.parametrize("text", UNDERSTOOD)
def test_commands_understood(text: str) -> None:
    assert parse(text) == UNDERSTOOD[text]


@pytest.mark.parametrize("text", REFUSED)
def test_commands_refused(text: str) -> None:
    with pytest.raises(BadRequest, match=REFUSED[text]):
        parse(text)


def options(**changes: Any) -> dict[str, Any]:
    return {
        "tenant_id": "a" * 32,
        "timeline_id": "b" * 32,
        "pageserver": "ps0:6400",
        "safekeepers": ["sk0:5454", "sk1:5454"],
        "proposer_id": 1,
        "system_id": 7,
        "pg_version": 15,
        "wal_segment_size": 1 << 20,
        **changes,
    }


def test_options_are_parsed_by_their_types() -> None:
    parsed = WalgenOptions.parse(
        options(cache_pages=3, stall_s=2, callmemaybe=True, append_bytes_max=1)
    )
    assert parsed.append_bytes_max == 1
    assert parsed.safekeepers == ("sk0:5454", "sk1:5454")
    assert parsed.pages.cache_pages == 3
    assert parsed.pages.stall_s == 2.0
    assert parsed.callmemaybe is True
    common = {name: options()[name] for name in ("tenant_id", "timeline_id", "pageserver")}
    assert str(ReadonlyOptions.parse({**common, "lsn": "0/1F8"}).lsn) == "0/1F8"


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"cache_page": 3}, "unknown option cache_page"),
        ({"lsn": "0/8"}, "unknown option lsn"),
        ({"tenant_id": "x"}, "option tenant_id: 'x'"),
        ({"pageserver": "ps0"}, "'ps0' is no address"),
        ({"safekeepers": ["sk0:5454", "sk1:"]}, "option safekeepers: 'sk1:'"),
        ({"proposer_id": True}, "option proposer_id is True"),
        ({"system_id": "7"}, "option system_id is '7'; int expected"),
        ({"read_timeout_s": 0}, "option read_timeout_s is 0"),
        ({"callmemaybe": 1}, "option callmemaybe is 1"),
    ],
)
def test_options_refused(changes: dict[str, Any], says: str) -> None:
    with pytest.raises(BadRequest, match=says):
        WalgenOptions.parse(options(**changes))


def test_a_missing_option_is_named() -> None:
    given = options()
    del given["system_id"]
    with pytest.raises(BadRequest, match="option system_id is missing"):
        WalgenOptions.parse(given)
