"""Small values inside messages of the Postgres protocol: types, severities, columns, states."""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum, StrEnum

PROTOCOL_3_0 = 3 << 16
"""The version a start-up packet asks for: 3.0."""


class TypeOid(IntEnum):
    """Column types of our answers (``pg_type.oid``); clients convert by them."""

    BOOL = 16
    BYTEA = 17
    INT8 = 20
    INT4 = 23
    TEXT = 25


TYPE_LENGTHS: dict[int, int] = {
    TypeOid.BOOL: 1,
    TypeOid.BYTEA: -1,
    TypeOid.INT8: 8,
    TypeOid.INT4: 4,
    TypeOid.TEXT: -1,
}
"""``pg_type.typlen``; -1 is variable length."""


class Severity(StrEnum):
    """Severity of an error or notice; ``FATAL`` ends the connection."""

    ERROR = "ERROR"
    FATAL = "FATAL"
    PANIC = "PANIC"
    WARNING = "WARNING"
    NOTICE = "NOTICE"
    DEBUG = "DEBUG"
    INFO = "INFO"
    LOG = "LOG"


class Target(StrEnum):
    """What a Describe or Close names."""

    STATEMENT = "S"
    PORTAL = "P"


class TransactionStatus(StrEnum):
    """Status byte of ReadyForQuery."""

    IDLE = "I"
    IN_BLOCK = "T"
    FAILED = "E"


@dataclass(frozen=True, slots=True)
class Column:
    """A column of a result; ``binary`` is the format its values are sent in."""

    name: str
    type_oid: int = TypeOid.TEXT
    binary: bool = False
