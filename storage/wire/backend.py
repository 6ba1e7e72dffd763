"""Messages that a server sends; one frozen class per message.

Source: PostgreSQL documentation, "Frontend/Backend Protocol", "Message Formats".
"""

from __future__ import annotations

from dataclasses import dataclass

from storage.wire.values import Column, Severity, TransactionStatus


@dataclass(frozen=True, slots=True)
class EncryptionRefused:
    """The bare byte ``N``: go on in clear text."""


@dataclass(frozen=True, slots=True)
class AuthenticationOk:
    """The client is who it says."""


@dataclass(frozen=True, slots=True)
class AuthenticationRequest:
    """The server wants proof by a method: 3 clear text, 5 MD5, 10 SASL; ``data`` is its own."""

    code: int
    data: bytes = b""


@dataclass(frozen=True, slots=True)
class NegotiateProtocolVersion:
    """The server's newest minor version and the ``_pq_.`` options it does not know."""

    minor: int
    unknown_options: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class ParameterStatus:
    """A setting of the server that clients care about."""

    name: str
    value: str


@dataclass(frozen=True, slots=True)
class BackendKeyData:
    """What a CancelRequest for this session must carry."""

    process_id: int
    secret: bytes


@dataclass(frozen=True, slots=True)
class ReadyForQuery:
    """The server waits for the next command."""

    status: TransactionStatus = TransactionStatus.IDLE


@dataclass(frozen=True, slots=True)
class RowDescription:
    """Columns of the rows that follow."""

    columns: tuple[Column, ...]


@dataclass(frozen=True, slots=True)
class DataRow:
    """One row; ``None`` is NULL."""

    values: tuple[bytes | None, ...]


@dataclass(frozen=True, slots=True)
class CommandComplete:
    """A statement is done; the tag is for people (``SELECT 1``)."""

    tag: str


@dataclass(frozen=True, slots=True)
class EmptyQuery:
    """The query string was empty."""


@dataclass(frozen=True, slots=True)
class _Report:
    severity: Severity
    sqlstate: str
    message: str
    detail: str | None = None
    hint: str | None = None


@dataclass(frozen=True, slots=True)
class ErrorResponse(_Report):
    """An error; ends the current command, and with ``FATAL`` the session."""


@dataclass(frozen=True, slots=True)
class NoticeResponse(_Report):
    """A notice or warning; may come at any time."""


@dataclass(frozen=True, slots=True)
class Notification:
    """Asynchronous notification of LISTEN/NOTIFY."""

    process_id: int
    channel: str
    payload: str


@dataclass(frozen=True, slots=True)
class ParseComplete:
    """Parse is done."""


@dataclass(frozen=True, slots=True)
class BindComplete:
    """Bind is done."""


@dataclass(frozen=True, slots=True)
class CloseComplete:
    """Close is done."""


@dataclass(frozen=True, slots=True)
class NoData:
    """What was described returns no rows."""


@dataclass(frozen=True, slots=True)
class ParameterDescription:
    """Types of a described statement's parameters."""

    type_oids: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class PortalSuspended:
    """Execute reached its row limit; more rows remain."""


@dataclass(frozen=True, slots=True)
class _CopyResponse:
    binary: bool = False
    columns: int = 0


@dataclass(frozen=True, slots=True)
class CopyInResponse(_CopyResponse):
    """The server wants copy data."""


@dataclass(frozen=True, slots=True)
class CopyOutResponse(_CopyResponse):
    """Copy data follows."""


@dataclass(frozen=True, slots=True)
class CopyBothResponse(_CopyResponse):
    """Copy data flows both ways (streaming replication)."""
