"""The replication commands a safekeeper understands, parsed.

The grammar is PostgreSQL's (``repl_gram.y``) as pg_receivewal 15 to 18 and walreceivers use it,
with three additions: ``START_WAL_PUSH``, ``START_SNAPSHOT``, and ``(term 'N')`` after
START_REPLICATION.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from storage.errors import BadRequest
from storage.lsn import Lsn

_START_REPLICATION = re.compile(
    r"START_REPLICATION(?:\s+SLOT\s+(?P<slot>\"[^\"]+\"|\w+))?(?:\s+PHYSICAL)?"
    r"\s+(?P<lsn>[0-9A-F]+/[0-9A-F]+)(?:\s+TIMELINE\s+(?P<timeline>\d+))?"
    r"(?:\s*\(\s*term\s+'(?P<term>\d+)'\s*\))?",
    re.IGNORECASE,
)
_START_WAL_PUSH = re.compile(
    r"START_WAL_PUSH(?:\s*\(\s*pageserver\s+'(?P<pageserver>[^']+)'\s*\))?", re.IGNORECASE
)
_READ_SLOT = re.compile(r"READ_REPLICATION_SLOT\s+(\"[^\"]+\"|\w+)", re.IGNORECASE)
_PLAIN = re.compile(
    r"(IDENTIFY_SYSTEM|TIMELINE_STATUS|START_SNAPSHOT|SHOW\s+\"?wal_segment_size\"?)", re.IGNORECASE
)


@dataclass(frozen=True, slots=True)
class StartWalPush:
    """A proposer wants to push WAL; ``pageserver`` (``host:port``) should be called."""

    pageserver: str | None


@dataclass(frozen=True, slots=True)
class StartReplication:
    """Stream WAL from ``start_lsn``; ``term`` makes it a proposer's recovery."""

    start_lsn: Lsn
    term: int | None


@dataclass(frozen=True, slots=True)
class IdentifySystem:
    """Who is this, and how far does its WAL go?"""


@dataclass(frozen=True, slots=True)
class TimelineStatus:
    """Terms and LSNs of the timeline, as rows."""


@dataclass(frozen=True, slots=True)
class StartSnapshot:
    """Copy the whole timeline out, for a new member."""


@dataclass(frozen=True, slots=True)
class ShowSegmentSize:
    """``SHOW wal_segment_size``."""


@dataclass(frozen=True, slots=True)
class ReadSlot:
    """What a slot protects; here every slot exists and protects all the WAL there is."""

    name: str


Command = (
    StartWalPush
    | StartReplication
    | StartSnapshot
    | IdentifySystem
    | TimelineStatus
    | ShowSegmentSize
    | ReadSlot
)


def parse_command(text: str) -> Command:
    """Parse one command; ``BadRequest`` quotes what is not understood."""
    text = text.strip().rstrip(";").strip()
    if match := _START_WAL_PUSH.fullmatch(text):
        return StartWalPush(match["pageserver"])
    if match := _START_REPLICATION.fullmatch(text):
        if match["timeline"] not in (None, "1"):
            raise BadRequest(f"there is no timeline {match['timeline']} here, only 1")
        term = match["term"]
        return StartReplication(Lsn.parse(match["lsn"]), None if term is None else int(term))
    if match := _READ_SLOT.fullmatch(text):
        return ReadSlot(match[1].strip('"'))
    if match := _PLAIN.fullmatch(text):
        word = match[1].split()[0].upper()
        plain: dict[str, Command] = {
            "IDENTIFY_SYSTEM": IdentifySystem(),
            "TIMELINE_STATUS": TimelineStatus(),
            "START_SNAPSHOT": StartSnapshot(),
            "SHOW": ShowSegmentSize(),
        }
        return plain[word]
    raise BadRequest(f"a safekeeper does not understand {text[:80]!r}")
