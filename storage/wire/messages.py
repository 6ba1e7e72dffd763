"""Messages of the Postgres protocol 3 as typed values; one frozen class per message.

Source: PostgreSQL documentation, chapter "Frontend/Backend Protocol", "Message Formats". Fields
carry what the message carries; names and texts are ``str`` (UTF-8), values and data ``bytes``.
"""

from __future__ import annotations

from collections.abc import Mapping
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


TYPE_LENGTHS = {
    TypeOid.BOOL: 1, TypeOid.BYTEA: -1, TypeOid.INT8: 8, TypeOid.INT4: 4, TypeOid.TEXT: -1
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


# ---- from the client


@dataclass(frozen=True, slots=True)
class Startup:
    """First message of a session: parameters such as ``user``, ``database``, ``replication``."""

    parameters: Mapping[str, str]
    protocol: int = PROTOCOL_3_0


@dataclass(frozen=True, slots=True)
class SslRequest:
    """The client would like TLS; answered by :class:`EncryptionRefused`."""


@dataclass(frozen=True, slots=True)
class GssEncRequest:
    """The client would like GSSAPI encryption; answered by :class:`EncryptionRefused`."""


@dataclass(frozen=True, slots=True)
class CancelRequest:
    """Asks, on a connection of its own, to cancel what another session does."""

    process_id: int
    secret: bytes


@dataclass(frozen=True, slots=True)
class Password:
    """Answer to an authentication request: password, SASL or GSS data."""

    data: bytes


@dataclass(frozen=True, slots=True)
class Query:
    """Simple query: one string with any number of statements."""

    sql: str


@dataclass(frozen=True, slots=True)
class Parse:
    """Prepare a statement; ``type_oids`` of parameters, 0 where unspecified."""

    statement: str
    sql: str
    type_oids: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class Bind:
    """Make a portal of a statement. Formats: 0 text, 1 binary; none, one for all, or one each."""

    portal: str
    statement: str
    values: tuple[bytes | None, ...] = ()
    formats: tuple[int, ...] = ()
    result_formats: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class Describe:
    """Ask for the shape of a statement or portal."""

    target: Target
    name: str


@dataclass(frozen=True, slots=True)
class Execute:
    """Run a portal, up to ``rows_max`` rows (0: all)."""

    portal: str
    rows_max: int = 0


@dataclass(frozen=True, slots=True)
class Close:
    """Forget a statement or portal."""

    target: Target
    name: str


@dataclass(frozen=True, slots=True)
class Flush:
    """Send what is buffered."""


@dataclass(frozen=True, slots=True)
class Sync:
    """End of a series of extended-protocol messages; the point errors are skipped to."""


@dataclass(frozen=True, slots=True)
class FunctionCall:
    """Fast-path function call; known so that it can be refused politely."""


@dataclass(frozen=True, slots=True)
class CopyFail:
    """The client gives up its half of a copy."""

    reason: str


@dataclass(frozen=True, slots=True)
class Terminate:
    """The client ends the session."""


# ---- from both


@dataclass(frozen=True, slots=True)
class CopyData:
    """A piece of copy data; in replication one message of the sub-protocol."""

    data: bytes


@dataclass(frozen=True, slots=True)
class CopyDone:
    """The sender's half of a copy is complete."""


# ---- from the server


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


FrontendMessage = (
    Startup | SslRequest | GssEncRequest | CancelRequest | Password | Query | Parse | Bind
    | Describe | Execute | Close | Flush | Sync | FunctionCall | CopyData | CopyDone | CopyFail
    | Terminate
)
BackendMessage = (
    EncryptionRefused | AuthenticationOk | AuthenticationRequest | NegotiateProtocolVersion | ParameterStatus
    | BackendKeyData | ReadyForQuery | RowDescription | DataRow | CommandComplete | EmptyQuery
    | ErrorResponse | NoticeResponse | Notification | ParseComplete | BindComplete | CloseComplete
    | NoData | ParameterDescription | PortalSuspended | CopyInResponse | CopyOutResponse
    | CopyBothResponse | CopyData | CopyDone
)
Message = FrontendMessage | BackendMessage
