"""Keys: the names of everything a timeline stores, totally ordered, encoded in 18 bytes.

One flat key space holds relation blocks, the sizes and directories that describe them, SLRU pages
and the few single files of a data directory. A key's versions are addressed by LSN; the key itself
knows nothing of them. The byte encoding is big endian, so it sorts exactly as the tuples do.
Builders below are the only place that decides which field means what for which kind.
"""

from __future__ import annotations

import enum
import struct
from typing import NamedTuple

BLOCK_SIZE = 8192
"""Bytes in a page of a relation or of an SLRU."""

KEY_SIZE = 18
"""Bytes of an encoded :class:`Key`."""

_ENCODING = struct.Struct(">BIIIBI")


class KeyKind(enum.IntEnum):
    """What a key names; the numbers are part of the layer file format and never change."""

    RELATION_BLOCK = 0
    RELATION_SIZE = 1
    RELATION_DIRECTORY = 2
    DATABASE_DIRECTORY = 3
    SLRU_BLOCK = 4
    SLRU_SIZE = 5
    SLRU_DIRECTORY = 6
    RELATION_MAP = 7
    TWOPHASE_FILE = 8
    TWOPHASE_DIRECTORY = 9
    CONTROL_FILE = 10
    CHECKPOINT = 11
    NAMED_FILE = 12
    COMMIT_TIME = 13


class Slru(enum.IntEnum):
    """Which SLRU a key belongs to (stored in the field ``space``)."""

    CLOG = 0
    MULTIXACT_OFFSETS = 1
    MULTIXACT_MEMBERS = 2


class Relation(NamedTuple):
    """One fork of one relation; ``fork`` is PostgreSQL's number (0 main, 1 FSM, 2 VM, 3 init)."""

    space: int
    database: int
    relation: int
    fork: int

    def __str__(self) -> str:
        return f"{self.space}/{self.database}/{self.relation}.{self.fork}"


class Key(NamedTuple):
    """The name of one stored value. Fields are unsigned 32-bit, ``kind`` and ``fork`` 8-bit."""

    kind: int
    space: int
    database: int
    relation: int
    fork: int
    block: int

    def encode(self) -> bytes:
        """The 18-byte form; ``struct.error`` when a field does not fit."""
        return _ENCODING.pack(*self)

    @classmethod
    def decode(cls, data: bytes) -> Key:
        """Inverse of :meth:`encode`; ``data`` is exactly 18 bytes."""
        return cls._make(_ENCODING.unpack(data))

    @property
    def owner(self) -> Relation:
        """The relation fork of a ``RELATION_BLOCK`` or ``RELATION_SIZE`` key."""
        return Relation(self.space, self.database, self.relation, self.fork)

    def __str__(self) -> str:
        kind = KeyKind(self.kind).name.lower()
        return f"{kind} {self.owner} block {self.block}"


FIRST_KEY = Key(0, 0, 0, 0, 0, 0)
"""Sorts before or equal to every key."""

LAST_KEY = Key(0xFF, 0xFFFFFFFF, 0xFFFFFFFF, 0xFFFFFFFF, 0xFF, 0xFFFFFFFF)
"""Sorts after every key that a builder makes."""


def relation_block(relation: Relation, block: int) -> Key:
    """Page ``block`` (8 KiB) of a relation fork."""
    return Key(KeyKind.RELATION_BLOCK, *relation, block)


def relation_size(relation: Relation) -> Key:
    """Length of a relation fork in blocks, as 4 bytes little endian."""
    return Key(KeyKind.RELATION_SIZE, *relation, 0)


def relation_directory(space: int, database: int) -> Key:
    """The relation forks that exist in a database (see ``datadir.RELATION_ENTRY``)."""
    return Key(KeyKind.RELATION_DIRECTORY, space, database, 0, 0, 0)


def database_directory() -> Key:
    """The databases that exist (see ``datadir.DATABASE_ENTRY``)."""
    return Key(KeyKind.DATABASE_DIRECTORY, 0, 0, 0, 0, 0)


def slru_block(slru: Slru, segment: int, block: int) -> Key:
    """Page ``block`` (0 … 31) of a segment of an SLRU."""
    return Key(KeyKind.SLRU_BLOCK, slru, 0, segment, 0, block)


def slru_size(slru: Slru, segment: int) -> Key:
    """Length of an SLRU segment in blocks, as 4 bytes little endian."""
    return Key(KeyKind.SLRU_SIZE, slru, 0, segment, 0, 0)


def slru_directory(slru: Slru) -> Key:
    """The segments of an SLRU that exist (see ``datadir.SEGMENT_ENTRY``)."""
    return Key(KeyKind.SLRU_DIRECTORY, slru, 0, 0, 0, 0)


def relation_map(space: int, database: int) -> Key:
    """A ``pg_filenode.map``; database 0 is the shared one."""
    return Key(KeyKind.RELATION_MAP, space, database, 0, 0, 0)


def twophase_file(xid: int) -> Key:
    """State file of a prepared transaction; ``xid`` is the full 64-bit id where there is one."""
    return Key(KeyKind.TWOPHASE_FILE, 0, xid >> 32, xid & 0xFFFFFFFF, 0, 0)


def twophase_directory() -> Key:
    """The prepared transactions that exist (see ``datadir.XID_ENTRY``)."""
    return Key(KeyKind.TWOPHASE_DIRECTORY, 0, 0, 0, 0, 0)


def control_file() -> Key:
    """The contents of ``pg_control`` as imported, updated by WAL."""
    return Key(KeyKind.CONTROL_FILE, 0, 0, 0, 0, 0)


def checkpoint() -> Key:
    """The running ``CheckPoint`` structure: next xid, next oid and so on."""
    return Key(KeyKind.CHECKPOINT, 0, 0, 0, 0, 0)


def commit_time() -> Key:
    """When the newest commit was (``newest_commit.NewestCommit``)."""
    return Key(KeyKind.COMMIT_TIME, 0, 0, 0, 0, 0)


def named_file(number: int) -> Key:
    """A small file by number, for what a data directory needs and no other kind covers."""
    return Key(KeyKind.NAMED_FILE, 0, 0, number, 0, 0)
