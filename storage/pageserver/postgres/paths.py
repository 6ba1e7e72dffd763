"""Names of files in a data directory, and what they hold.

Sources: ``common/relpath.c``, ``access/slru.c``, ``access/twophase.c``.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final, NamedTuple

from storage.pageserver.keys import Relation, Slru

DEFAULT_SPACE: Final = 1663
GLOBAL_SPACE: Final = 1664
RELATION_MAP: Final = "pg_filenode.map"
CONTROL_FILE: Final = "global/pg_control"
SEGMENT_BLOCKS: Final = 131072
"""Blocks in a relation file: 1 GiB."""
FORK_SUFFIX: Final = ("", "_fsm", "_vm", "_init")

SLRU_DIRECTORY: Final = {
    Slru.CLOG: "pg_xact",
    Slru.MULTIXACT_OFFSETS: "pg_multixact/offsets",
    Slru.MULTIXACT_MEMBERS: "pg_multixact/members",
}
DIRECTORIES: Final = (
    "base", "global", "pg_commit_ts", "pg_dynshmem", "pg_logical", "pg_logical/mappings",
    "pg_logical/snapshots", "pg_multixact", "pg_multixact/members", "pg_multixact/offsets",
    "pg_notify", "pg_replslot", "pg_serial", "pg_snapshots", "pg_stat", "pg_stat_tmp",
    "pg_subtrans", "pg_tblspc", "pg_twophase", "pg_wal", "pg_wal/archive_status", "pg_xact",
)  # fmt: skip
"""Directories that a server expects to find, parents first."""
DIRECTORIES_SINCE_17: Final = ("pg_wal/summaries",)

_RELATION = re.compile(r"(\d+)(?:_(fsm|vm|init))?(?:\.(\d+))?\Z")
_DATABASE = re.compile(r"(?:global|base/(\d+)|pg_tblspc/(\d+)/(PG_[^/]+)/(\d+))/([^/]+)\Z")
_SLRU = re.compile(r"(pg_xact|pg_multixact/offsets|pg_multixact/members)/([0-9A-F]{4,15})\Z")
_TWOPHASE = re.compile(r"pg_twophase/([0-9A-F]{8}|[0-9A-F]{16})\Z")


class InDatabase(NamedTuple):
    """A file of a database's directory (database 0: ``global``)."""

    space: int
    database: int
    name: str


@dataclass(frozen=True, slots=True)
class RelationFile:
    """One 1 GiB segment of a relation fork."""

    relation: Relation
    segment: int


class SlruFile(NamedTuple):
    """One segment of an SLRU."""

    slru: Slru
    segment: int


def parse_database_file(path: str) -> InDatabase | None:
    """The database directory and name of a path; ``None`` for a path of another kind."""
    match = _DATABASE.match(path)
    if match is None:
        return None
    base, space, _, tablespace_database, name = match.groups()
    if space is not None:
        return InDatabase(int(space), int(tablespace_database), name)
    if base is not None:
        return InDatabase(DEFAULT_SPACE, int(base), name)
    return InDatabase(GLOBAL_SPACE, 0, name)


def parse_relation_file(file: InDatabase) -> RelationFile | None:
    """The relation a database's file belongs to; ``None`` for other and for temporary files."""
    match = _RELATION.match(file.name)
    if match is None:
        return None
    fork = FORK_SUFFIX.index(f"_{match[2]}" if match[2] else "")
    relation = Relation(file.space, file.database, int(match[1]), fork)
    return RelationFile(relation, int(match[3] or 0))


def parse_slru_file(path: str) -> SlruFile | None:
    """The SLRU segment at a path, if it is one."""
    match = _SLRU.match(path)
    if match is None:
        return None
    slru = next(slru for slru, directory in SLRU_DIRECTORY.items() if directory == match[1])
    return SlruFile(slru, int(match[2], 16))


def parse_twophase_file(path: str) -> int | None:
    """The transaction id (32-bit before 17, 64-bit from then on) in a state file's name."""
    match = _TWOPHASE.match(path)
    return None if match is None else int(match[1], 16)


def twophase_path(full_xid: int, pg_version: int) -> str:
    """The state file of a prepared transaction."""
    if pg_version >= 17:
        return f"pg_twophase/{full_xid:016X}"
    return f"pg_twophase/{full_xid & 0xFFFFFFFF:08X}"


def slru_path(slru: Slru, segment: int) -> str:
    """The file of an SLRU segment."""
    return f"{SLRU_DIRECTORY[slru]}/{segment:04X}"


def tablespace_directory(space: int, pg_version: int, catalog_version: int) -> str:
    """The directory below ``pg_tblspc`` that holds a tablespace's databases."""
    return f"pg_tblspc/{space}/PG_{pg_version}_{catalog_version}"


def database_directory(space: int, database: int, pg_version: int, catalog_version: int) -> str:
    """The directory of a database in a tablespace."""
    if space == GLOBAL_SPACE:
        return "global"
    if space == DEFAULT_SPACE:
        return f"base/{database}"
    return f"{tablespace_directory(space, pg_version, catalog_version)}/{database}"


def relation_name(relation: Relation, segment: int) -> str:
    """A relation segment's file name within its database's directory."""
    name = f"{relation.relation}{FORK_SUFFIX[relation.fork]}"
    return f"{name}.{segment}" if segment else name
