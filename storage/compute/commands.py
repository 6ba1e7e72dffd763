"""The commands of a deterministic compute, as text of a simple query.

    put 7 word            put 7 'any text, quotes doubled'
    get 7                 delete 7
    scan 0 100            sum
    txn {"7": "a", "8": null}      status
    transact [["append", 7, "x"], ["add", 8, -5], ["read", 9]]

``scan`` covers the first key up to, not including, the second. A trailing ``;`` is tolerated, so
psql works. Anything else is refused with the grammar of the command.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

from storage.compute.transact import Step, parse_steps
from storage.errors import BadRequest
from storage.kv.page import KEY_MAX, check_value


class Write(NamedTuple):
    """Set keys, or with ``None`` delete them, all or nothing. ``tag`` names the command."""

    changes: Mapping[int, bytes | None]
    tag: str


class Transact(NamedTuple):
    """Steps that read what they change (:mod:`storage.compute.transact`), all or nothing."""

    steps: Sequence[Step]


class Get(NamedTuple):
    """Read one key."""

    key: int


class Scan(NamedTuple):
    """Read the keys ``first`` … ``end - 1``."""

    first: int
    end: int


class Sum(NamedTuple):
    """Add up every value, as integers."""


class Status(NamedTuple):
    """Ask the compute about itself."""


Command = Write | Transact | Get | Scan | Sum | Status

_PUT = re.compile(r"(\d+)\s+(?:'((?:[^']|'')*)'|([^\s';]+))\s*;?\s*\Z")
_NUMBERS = re.compile(r"(\d+)(?:\s+(\d+))?\s*;?\s*\Z")


def parse(text: str) -> Command:
    """The command that ``text`` asks for; ``BadRequest`` if it asks for none."""
    word, _, rest = text.strip().partition(" ")
    parser = _PARSERS.get(word.rstrip(";").lower())
    if parser is None:
        known = ", ".join(_PARSERS)
        raise BadRequest(f"unknown command {text[:40]!r}; this compute knows {known}")
    return parser(rest.strip())


def _put(rest: str) -> Command:
    match = _PUT.match(rest)
    if match is None:
        raise BadRequest(f"put {rest[:40]!r}: write put KEY WORD or put KEY 'TEXT'")
    key, quoted, bare = match.groups()
    value = bare if quoted is None else quoted.replace("''", "'")
    return Write({_key(key): check_value(value.encode())}, "PUT")


def _delete(rest: str) -> Command:
    return Write({_one_key(rest, "delete KEY"): None}, "DELETE")


def _get(rest: str) -> Command:
    return Get(_one_key(rest, "get KEY"))


def _scan(rest: str) -> Command:
    match = _NUMBERS.match(rest)
    if match is None or match[2] is None:
        raise BadRequest(f"scan {rest[:40]!r}: write scan FIRST END")
    first, end = int(match[1]), int(match[2])
    if not first <= end <= KEY_MAX + 1:
        raise BadRequest(f"scan {first} {end}: FIRST ≤ END ≤ {KEY_MAX + 1} expected")
    return Scan(first, end)


def _sum(rest: str) -> Command:
    return Sum(*_no_more(rest, "sum"))


def _status(rest: str) -> Command:
    return Status(*_no_more(rest, "status"))


def _no_more(rest: str, name: str) -> tuple[()]:
    if rest not in ("", ";"):
        raise BadRequest(f"{name} takes no argument, not {rest[:40]!r}")
    return ()


def _json(rest: str, name: str) -> Any:
    try:
        return json.loads(rest.rstrip().removesuffix(";"))
    except ValueError as error:
        raise BadRequest(f"{name} {rest[:40]!r}: no JSON: {error}") from error


def _transact(rest: str) -> Command:
    return Transact(parse_steps(_json(rest, "transact"), _key))


def _txn(rest: str) -> Command:
    data = _json(rest, "txn")
    if not isinstance(data, dict) or not data:
        raise BadRequest(f'txn {rest[:40]!r}: write txn {{"KEY": "VALUE", "KEY": null}}')
    changes: dict[int, bytes | None] = {}
    for key, value in data.items():
        if value is not None and not isinstance(value, str):
            raise BadRequest(f"txn: value {value!r} of key {key} is neither text nor null")
        changes[_key(key)] = None if value is None else check_value(value.encode())
    return Write(changes, "TXN")


def _one_key(rest: str, grammar: str) -> int:
    match = _NUMBERS.match(rest)
    if match is None or match[2] is not None:
        raise BadRequest(f"{rest[:40]!r} is not one key: write {grammar}")
    return _key(match[1])


def _key(text: str) -> int:
    key = int(text) if text.isascii() and text.isdigit() else -1
    if not 0 <= key <= KEY_MAX:
        raise BadRequest(f"{text[:40]!r} is not a key: an integer 0 … {KEY_MAX}")
    return key


_PARSERS: Mapping[str, Callable[[str], Command]] = {
    "put": _put,
    "get": _get,
    "delete": _delete,
    "scan": _scan,
    "sum": _sum,
    "txn": _txn,
    "transact": _transact,
    "status": _status,
}
