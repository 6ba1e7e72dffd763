"""Every kind of WAL record that PostgreSQL 15, 16 and 18 know, and what becomes of it here.

A kind is a resource manager and an operation; names are those of ``pg_waldump``, which a test asks
about all of them, version by version. A record whose kind is not in the table is refused like one
that is listed as such: nothing is ever ignored because nobody thought of it.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from enum import Enum
from typing import Final

from storage.wal.format import PAGE_MAGIC

SPECIAL_RELATION_UPDATE: Final = 0x01
"""Info bit of records that change relation files beyond the blocks they name (``xlogrecord.h``)."""

FPI_FOR_HINT: Final = 0xA0
"""Operation of XLOG whose records may lack their image (``pg_control.h``)."""

_OPERATION_MASK: Final = 0xF0
_FLAG_XINFO: Final = 0x80


class Handling(Enum):
    """What a record of a kind does to a data directory, and so what ingest has to do."""

    EFFECT = "more than its page images say: a handler carries it out"
    IMAGES = "page images say it all"
    NOTHING = "nothing that is stored changes"
    REFUSED = "its effect is not kept: the timeline stops, with an alarm"


@dataclass(frozen=True, slots=True)
class RecordKind:
    """One kind of record; ``info`` is its operation (the upper four bits, without flags)."""

    rmid: int
    info: int
    manager: str
    name: str
    handling: Handling

    def __str__(self) -> str:
        return f"{self.manager}/{self.name}"


@dataclass(frozen=True, slots=True)
class _Resource:
    """A resource manager's kinds by handling, each written ``<info in hex> <name>``.

    ``flags`` are upper info bits that do not belong to the operation.
    """

    rmid: int
    name: str
    effect: str = ""
    images: str = ""
    nothing: str = ""
    refused: str = ""
    flags: int = 0

    def kinds(self) -> Iterator[RecordKind]:
        """One for each name."""
        for handling in Handling:
            words = getattr(self, handling.name.lower()).split()
            for info, name in zip(words[::2], words[1::2], strict=True):
                yield RecordKind(self.rmid, int(info, 16), self.name, name, handling)


_RESOURCES: Final = (
    _Resource(
        0,
        "XLOG",
        effect="00 CHECKPOINT_SHUTDOWN 10 CHECKPOINT_ONLINE 30 NEXTOID 60 PARAMETER_CHANGE"
        " 80 FPW_CHANGE 90 END_OF_RECOVERY",
        images="A0 FPI_FOR_HINT B0 FPI",
        nothing="20 NOOP 40 SWITCH 50 BACKUP_END 70 RESTORE_POINT D0 OVERWRITE_CONTRECORD",
    ),
    _Resource(
        1,
        "Transaction",
        effect="00 COMMIT 10 PREPARE 20 ABORT 30 COMMIT_PREPARED 40 ABORT_PREPARED 50 ASSIGNMENT",
        nothing="60 INVALIDATION",  # For caches and logical decoding.
        flags=_FLAG_XINFO,
    ),
    _Resource(2, "Storage", effect="10 CREATE 20 TRUNCATE"),
    _Resource(3, "CLOG", effect="00 ZEROPAGE 10 TRUNCATE"),
    _Resource(4, "Database", effect="00 CREATE_FILE_COPY 10 CREATE_WAL_LOG 20 DROP"),
    _Resource(5, "Tablespace", effect="00 CREATE 10 DROP"),
    _Resource(
        6, "MultiXact", effect="00 ZERO_OFF_PAGE 10 ZERO_MEM_PAGE 20 CREATE_ID 30 TRUNCATE_ID"
    ),
    _Resource(7, "RelMap", effect="00 UPDATE"),
    _Resource(8, "Standby", effect="10 RUNNING_XACTS", nothing="00 LOCK 20 INVALIDATIONS"),
    _Resource(
        9,
        "Heap2",
        effect="50 MULTI_INSERT D0 MULTI_INSERT+INIT 60 LOCK_UPDATED",
        images="40 VISIBLE",
        nothing="00 REWRITE 70 NEW_CID",  # For logical decoding, whose slots are not kept.
    ),
    _Resource(
        10,
        "Heap",
        effect="00 INSERT 80 INSERT+INIT 10 DELETE 20 UPDATE A0 UPDATE+INIT 40 HOT_UPDATE"
        " C0 HOT_UPDATE+INIT 60 LOCK",
        images="50 HEAP_CONFIRM 70 INPLACE",
        nothing="30 TRUNCATE",  # For logical decoding; the storage manager's record cuts the files.
    ),
    _Resource(
        11,
        "Btree",
        images="00 INSERT_LEAF 10 INSERT_UPPER 20 INSERT_META 30 SPLIT_L 40 SPLIT_R 50 INSERT_POST"
        " 60 DEDUP 70 DELETE 80 UNLINK_PAGE 90 UNLINK_PAGE_META A0 NEWROOT B0 MARK_PAGE_HALFDEAD"
        " C0 VACUUM E0 META_CLEANUP",
        nothing="D0 REUSE_PAGE",  # For conflicts on standbys.
    ),
    _Resource(
        12,
        "Hash",
        images="00 INIT_META_PAGE 10 INIT_BITMAP_PAGE 20 INSERT 30 ADD_OVFL_PAGE"
        " 40 SPLIT_ALLOCATE_PAGE 50 SPLIT_PAGE 60 SPLIT_COMPLETE 70 MOVE_PAGE_CONTENTS"
        " 80 SQUEEZE_PAGE 90 DELETE A0 SPLIT_CLEANUP B0 UPDATE_META_PAGE C0 VACUUM_ONE_PAGE",
    ),
    _Resource(
        13,
        "Gin",
        images="10 CREATE_PTREE 20 INSERT 30 SPLIT 40 VACUUM_PAGE 50 DELETE_PAGE"
        " 60 UPDATE_META_PAGE 70 INSERT_LISTPAGE 80 DELETE_LISTPAGE 90 VACUUM_DATA_LEAF_PAGE",
    ),
    _Resource(
        14,
        "Gist",
        images="00 PAGE_UPDATE 10 DELETE 30 PAGE_SPLIT 60 PAGE_DELETE",
        nothing="20 PAGE_REUSE 70 ASSIGN_LSN",
    ),
    _Resource(15, "Sequence", images="00 LOG"),
    _Resource(
        16,
        "SPGist",
        images="10 ADD_LEAF 20 MOVE_LEAFS 30 ADD_NODE 40 SPLIT_TUPLE 50 PICKSPLIT 60 VACUUM_LEAF"
        " 70 VACUUM_ROOT 80 VACUUM_REDIRECT",
    ),
    _Resource(
        17,
        "BRIN",
        images="00 CREATE_INDEX 10 INSERT 90 INSERT+INIT 20 UPDATE A0 UPDATE+INIT"
        " 30 SAMEPAGE_UPDATE 40 REVMAP_EXTEND 50 DESUMMARIZE",
    ),
    _Resource(18, "CommitTs", refused="00 ZEROPAGE 10 TRUNCATE"),
    _Resource(19, "ReplicationOrigin", effect="00 SET 10 DROP"),
    _Resource(20, "Generic", images="00 Generic"),
    _Resource(21, "LogicalMessage", nothing="00 MESSAGE"),
)

_BEFORE_17: Final = (_Resource(9, "Heap2", images="10 PRUNE 20 VACUUM 30 FREEZE_PAGE"),)
_SINCE_17: Final = (
    _Resource(0, "XLOG", nothing="E0 CHECKPOINT_REDO"),
    _Resource(
        9,
        "Heap2",
        images="10 PRUNE_ON_ACCESS 20 PRUNE_VACUUM_SCAN 30 PRUNE_VACUUM_CLEANUP",
    ),
)


def kinds_of(pg_version: int) -> tuple[RecordKind, ...]:
    """Every kind that a major version knows, by manager and operation."""
    managers = (*_RESOURCES, *(_SINCE_17 if pg_version >= 17 else _BEFORE_17))
    kinds = (kind for manager in managers for kind in manager.kinds())
    return tuple(sorted(kinds, key=lambda kind: (kind.rmid, kind.info)))


def _index(pg_version: int) -> dict[int, RecordKind]:
    """By ``rmid << 8 | info``, for every value that info can have besides its low flags."""
    flags = {manager.rmid: manager.flags for manager in _RESOURCES}
    found: dict[int, RecordKind] = {}
    for kind in kinds_of(pg_version):
        for info in sorted({kind.info, kind.info | flags[kind.rmid]}):
            assert found.setdefault(kind.rmid << 8 | info, kind) is kind, f"{kind} is listed twice"
    return found


_KINDS: Final = {version: _index(version) for version in PAGE_MAGIC}


def kind_of(rmid: int, info: int, pg_version: int) -> RecordKind | None:
    """The kind of a record with this ``info``; ``None`` for one that the version does not know."""
    return _KINDS[pg_version].get(rmid << 8 | info & _OPERATION_MASK)
