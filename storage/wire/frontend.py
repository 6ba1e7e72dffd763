"""Messages that a client sends, and those that both send; one frozen class per message.

Source: PostgreSQL documentation, "Frontend/Backend Protocol", "Message Formats".
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from storage.wire.values import PROTOCOL_3_0, Target


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


@dataclass(frozen=True, slots=True)
class CopyData:
    """A piece of copy data; in replication one message of the sub-protocol."""

    data: bytes


@dataclass(frozen=True, slots=True)
class CopyDone:
    """The sender's half of a copy is complete."""
