"""Options of the compute roles, parsed strictly from JSON."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Self

from storage.errors import BadRequest
from storage.ids import TenantId, TenantTimelineId, TimelineId
from storage.lsn import Lsn

KIBIBYTE = 1024


def host_and_port(address: str) -> tuple[str, int]:
    """Split ``"ps0:6400"``; ``BadRequest`` naming anything else."""
    host, colon, port = address.rpartition(":")
    if not (host and colon and port.isascii() and port.isdigit()):
        raise BadRequest(f"{address!r} is no address; write host:port, like ps0:6400")
    return host, int(port)


@dataclass(frozen=True, slots=True)
class PageServiceOptions:
    """What both computes need to read pages.

    ``cache_pages``: pages kept in memory (8 KiB each). ``read_timeout_s``: how long a read, or a
    write that needs a page, waits for a pageserver before it is refused. ``stall_s``: how long an
    answer may take before the connection is given up as dead.
    """

    tenant_id: TenantId
    timeline_id: TimelineId
    pageserver: str
    cache_pages: int = 64
    read_timeout_s: float = 60.0
    stall_s: float = 5.0

    @property
    def timeline(self) -> TenantTimelineId:
        """The timeline computed on."""
        return TenantTimelineId(self.tenant_id, self.timeline_id)


@dataclass(frozen=True, slots=True)
class WalgenOptions:
    """Options of ``walgen`` (ARCHITECTURE.md, "Node options").

    With ``callmemaybe`` the safekeepers are asked to call ``pageserver`` for its WAL. With
    ``commit_timestamps`` records tell when they were committed. The proposer
    sends ``append_bytes_max`` bytes at once, but whole records, and keeps
    ``wal_retained_bytes_max`` of committed WAL for safekeepers that lag.
    """

    pages: PageServiceOptions
    safekeepers: tuple[str, ...]
    proposer_id: int
    system_id: int
    pg_version: int
    wal_segment_size: int
    callmemaybe: bool = False
    commit_timestamps: bool = False
    append_bytes_max: int = 128 * KIBIBYTE
    wal_retained_bytes_max: int = 16 * 1024 * KIBIBYTE

    @classmethod
    def parse(cls, options: Mapping[str, Any]) -> Self:
        """From a node's options; ``BadRequest`` names what is unknown, missing or malformed."""
        return cls(pages=_pages(options, cls), **_own(options, cls))


@dataclass(frozen=True, slots=True)
class ReadonlyOptions:
    """Options of ``readonly``: pages are read as of ``lsn``, which is leased unless ``lease`` is
    false."""

    pages: PageServiceOptions
    lsn: Lsn
    lease: bool = True

    @classmethod
    def parse(cls, options: Mapping[str, Any]) -> Self:
        """From a node's options; ``BadRequest`` names what is unknown, missing or malformed."""
        return cls(pages=_pages(options, cls), **_own(options, cls))


@dataclass(frozen=True, slots=True)
class StandbyOptions:
    """Options of ``standby``, which follows the WAL of ``safekeepers``.

    ``hot_standby_feedback``: whether what it reads is to be kept, said every ``status_s`` seconds.
    ``silence_s``: how long a safekeeper may be silent before another one is tried.
    """

    pages: PageServiceOptions
    safekeepers: tuple[str, ...]
    pg_version: int
    wal_segment_size: int
    hot_standby_feedback: bool = True
    status_s: float = 1.0
    silence_s: float = 10.0

    @classmethod
    def parse(cls, options: Mapping[str, Any]) -> Self:
        """From a node's options; ``BadRequest`` names what is unknown, missing or malformed."""
        return cls(pages=_pages(options, cls), **_own(options, cls))


def _pages(options: Mapping[str, Any], role: type) -> PageServiceOptions:
    names = {field.name for field in dataclasses.fields(PageServiceOptions)}
    known = names | {field.name for field in dataclasses.fields(role)} - {"pages"}
    unknown = sorted(set(options) - known)
    if unknown:
        raise BadRequest(f"unknown option {', '.join(unknown)}; known: {', '.join(sorted(known))}")
    host_and_port(str(options.get("pageserver")))
    return PageServiceOptions(**_fields(options, PageServiceOptions))


def _own(options: Mapping[str, Any], role: type) -> dict[str, Any]:
    return _fields(options, role)


def _fields(options: Mapping[str, Any], shape: type) -> dict[str, Any]:
    """Values of a dataclass's fields, each checked and converted by the type it is declared as."""
    found: dict[str, Any] = {}
    for field in dataclasses.fields(shape):
        if field.name == "pages":
            continue
        if field.name in options:
            found[field.name] = _convert(field.name, str(field.type), options[field.name])
        elif field.default is dataclasses.MISSING:
            raise BadRequest(f"option {field.name} is missing")
    return found


def _convert(name: str, declared: str, value: Any) -> Any:
    try:
        match declared:
            case "TenantId" | "TimelineId":
                return (TenantId if declared == "TenantId" else TimelineId)(value)
            case "Lsn":
                return Lsn.parse(value)
            case "tuple[str, ...]":
                return tuple(":".join(map(str, host_and_port(address))) for address in value)
            case "float" if isinstance(value, (int, float)) and value > 0:
                return float(value)
            case "int" if type(value) is int and value >= 0:
                return value
            case "bool" if isinstance(value, bool):
                return value
            case "str" if isinstance(value, str):
                return value
    except (ValueError, TypeError, BadRequest) as error:
        raise BadRequest(f"option {name}: {error}") from error
    raise BadRequest(f"option {name} is {value!r}; {declared} expected")
