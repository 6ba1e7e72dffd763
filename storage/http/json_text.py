"""JSON text of our values: LSNs as ``0/16B3740``, ids as their hex digits, dataclasses as objects.

``json`` alone would print an :class:`Lsn` as a number, because it is an ``int``.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from typing import Any

from storage.lsn import Lsn


def plain(value: Any) -> Any:
    """The value as JSON data; ``TypeError`` for what has no JSON form."""
    if isinstance(value, Lsn):
        return str(value)
    if value is None or isinstance(value, (str, int, float)):
        return value
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(item) for item in value]
    if is_dataclass(value) and not isinstance(value, type):
        return {field.name: plain(getattr(value, field.name)) for field in fields(value)}
    raise TypeError(f"{type(value).__name__} has no JSON form")


def dump(value: Any) -> bytes:
    """Compact JSON text in UTF-8; keys keep their order, so equal values give equal bytes."""
    text = json.dumps(plain(value), separators=(",", ":"), ensure_ascii=False, allow_nan=False)
    return text.encode()
