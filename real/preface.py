"""What is said on a hub connection before its bytes belong to somebody: one JSON line each way.

A dialler names (source, target, port) and gets ``ACCEPTED`` or ``REFUSED`` + reason. A process
that listens keeps one *session* open: it announces (port → actual loopback port) line by line, and
the end of the session takes all its names away, however the process died.
"""

from __future__ import annotations

import json
from dataclasses import dataclass

from storage.errors import ProtocolError

LINE_BYTES_MAX = 4096
ACCEPTED = b"+"
REFUSED = b"-"

Address = tuple[str, int] | str
"""Where a service really is: (IP, port), or the path of a Unix socket."""


@dataclass(frozen=True, slots=True)
class Connect:
    """``source`` dials ``port`` of ``target``."""

    source: str
    target: str
    port: int


@dataclass(frozen=True, slots=True)
class Session:
    """A process of ``host`` registers its listeners; the larger incarnation owns the host."""

    host: str
    incarnation: int


@dataclass(frozen=True, slots=True)
class Listen:
    """On a session: ``port`` of its host is served at loopback port ``actual``."""

    port: int
    actual: int


@dataclass(frozen=True, slots=True)
class Unlisten:
    """On a session: ``port`` of its host is not served any more; not answered."""

    port: int


Line = Connect | Session | Listen | Unlisten
_KINDS: dict[str, type[Line]] = {
    "connect": Connect,
    "session": Session,
    "listen": Listen,
    "unlisten": Unlisten,
}
_NAMES = {kind: name for name, kind in _KINDS.items()}


def encode(line: Line) -> bytes:
    """One line, newline included; ``ValueError`` past ``LINE_BYTES_MAX``."""
    fields = [getattr(line, name) for name in line.__dataclass_fields__]
    data = json.dumps([_NAMES[type(line)], *fields]).encode() + b"\n"
    if len(data) > LINE_BYTES_MAX:
        raise ValueError(f"a preface of {len(data)} bytes; host names are meant to be short")
    return data


def parse(data: bytes) -> Line:
    """Read one line back; ``ProtocolError`` shows what is none."""
    try:
        name, *fields = json.loads(data)
        return _KINDS[name](*fields)
    except (ValueError, TypeError, KeyError) as error:
        raise ProtocolError(f"{data[:200]!r} is not a hub preface ({error})") from error
