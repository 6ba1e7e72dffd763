"""State of one connection, as two tables: the phase of the session and, within it, of a copy.

Both peers run the same tables; an edge is (state, who sends, message) → state, and a pair that is
not listed is a protocol violation. While a copy runs, its table decides; messages a copy does not
know fall through to the phase's table only where :data:`COPY_ENDS` says that they end the copy.
Source: PostgreSQL documentation, "Frontend/Backend Protocol", "Message Flow"; ``postgres.c``
(``PostgresMain``) for what a server ignores.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from typing import TypeVar

from storage.errors import ProtocolError
from storage.wire import messages as m


class _State(Enum):
    """A part of a key of the tables, which every message looks up: hashes without a call."""

    __hash__ = object.__hash__


class Sender(_State):
    """Who sends a message."""

    CLIENT = "client"
    SERVER = "server"


class Phase(_State):
    """Where a session stands between messages."""

    STARTUP = "waits for the start-up packet"
    AUTHENTICATING = "authenticates"
    BOOTING = "tells its parameters"
    IDLE = "waits for a command"
    SIMPLE = "runs a simple query"
    EXTENDED = "runs extended-protocol messages"
    SKIPPING = "skips to the next Sync after an error"
    SYNCING = "answers a Sync"
    CLOSED = "is over"


class Copy(_State):
    """Which halves of a copy are open."""

    NONE = "no copy"
    IN = "client sends"
    OUT = "server sends"
    BOTH = "both send"
    BOTH_CLIENT_DONE = "both, client has finished"
    BOTH_SERVER_DONE = "both, server has finished"


_CLIENT, _SERVER = Sender.CLIENT, Sender.SERVER
_ASIDE: tuple[type, ...] = (m.NoticeResponse, m.ParameterStatus, m.Notification)
_EXTENDED: tuple[type, ...] = (m.Parse, m.Bind, m.Describe, m.Execute, m.Close, m.Flush)
_STALE_COPY: tuple[type, ...] = (m.CopyData, m.CopyDone, m.CopyFail)
_RESULTS: tuple[type, ...] = (
    m.RowDescription,
    m.DataRow,
    m.CommandComplete,
    m.EmptyQuery,
    m.CopyInResponse,
    m.CopyOutResponse,
    m.CopyBothResponse,
)
_EXTENDED_RESULTS: tuple[type, ...] = (
    m.ParseComplete,
    m.BindComplete,
    m.CloseComplete,
    m.NoData,
    m.ParameterDescription,
    m.PortalSuspended,
    *_RESULTS,
)


State = TypeVar("State", Phase, Copy)


def _edges(
    state: State, sender: Sender, kinds: tuple[type, ...], target: State
) -> dict[tuple[State, Sender, type], State]:
    return {(state, sender, kind): target for kind in kinds}


PHASES: dict[tuple[Phase, Sender, type], Phase] = {
    **_edges(Phase.STARTUP, _CLIENT, (m.SslRequest, m.GssEncRequest), Phase.STARTUP),
    **_edges(Phase.STARTUP, _SERVER, (m.EncryptionRefused,), Phase.STARTUP),
    **_edges(Phase.STARTUP, _SERVER, (m.ErrorResponse,), Phase.CLOSED),
    **_edges(Phase.STARTUP, _CLIENT, (m.CancelRequest,), Phase.CLOSED),
    **_edges(Phase.STARTUP, _CLIENT, (m.Startup,), Phase.AUTHENTICATING),
    **_edges(Phase.AUTHENTICATING, _CLIENT, (m.Password,), Phase.AUTHENTICATING),
    **_edges(Phase.AUTHENTICATING, _CLIENT, (m.Terminate,), Phase.CLOSED),
    **_edges(
        Phase.AUTHENTICATING,
        _SERVER,
        (m.NegotiateProtocolVersion, m.AuthenticationRequest, *_ASIDE),
        Phase.AUTHENTICATING,
    ),
    **_edges(Phase.AUTHENTICATING, _SERVER, (m.AuthenticationOk,), Phase.BOOTING),
    **_edges(Phase.AUTHENTICATING, _SERVER, (m.ErrorResponse,), Phase.CLOSED),
    **_edges(Phase.BOOTING, _SERVER, (m.BackendKeyData, *_ASIDE), Phase.BOOTING),
    **_edges(Phase.BOOTING, _SERVER, (m.ReadyForQuery,), Phase.IDLE),
    **_edges(Phase.BOOTING, _SERVER, (m.ErrorResponse,), Phase.CLOSED),
    **_edges(Phase.BOOTING, _CLIENT, (m.Terminate,), Phase.CLOSED),
    **_edges(Phase.IDLE, _CLIENT, (m.Query, m.FunctionCall), Phase.SIMPLE),
    **_edges(Phase.IDLE, _CLIENT, _EXTENDED, Phase.EXTENDED),
    **_edges(Phase.IDLE, _CLIENT, (m.Sync,), Phase.SYNCING),
    # A client that has not yet noticed a failed copy still sends its data; postgres.c ignores it.
    **_edges(Phase.IDLE, _CLIENT, _STALE_COPY, Phase.IDLE),
    **_edges(Phase.IDLE, _CLIENT, (m.Terminate,), Phase.CLOSED),
    **_edges(Phase.IDLE, _SERVER, _ASIDE, Phase.IDLE),
    **_edges(Phase.IDLE, _SERVER, (m.ErrorResponse,), Phase.CLOSED),
    **_edges(Phase.SIMPLE, _SERVER, (*_RESULTS, m.ErrorResponse, *_ASIDE), Phase.SIMPLE),
    **_edges(Phase.SIMPLE, _SERVER, (m.ReadyForQuery,), Phase.IDLE),
    **_edges(Phase.SIMPLE, _CLIENT, (m.Terminate,), Phase.CLOSED),
    **_edges(Phase.EXTENDED, _CLIENT, (*_EXTENDED, *_STALE_COPY), Phase.EXTENDED),
    **_edges(Phase.EXTENDED, _CLIENT, (m.Sync,), Phase.SYNCING),
    **_edges(Phase.EXTENDED, _CLIENT, (m.Terminate,), Phase.CLOSED),
    **_edges(Phase.EXTENDED, _SERVER, (*_EXTENDED_RESULTS, *_ASIDE), Phase.EXTENDED),
    **_edges(Phase.EXTENDED, _SERVER, (m.ErrorResponse,), Phase.SKIPPING),
    **_edges(
        Phase.SKIPPING,
        _CLIENT,
        (*_EXTENDED, *_STALE_COPY, m.Query, m.FunctionCall),
        Phase.SKIPPING,
    ),
    **_edges(Phase.SKIPPING, _CLIENT, (m.Sync,), Phase.SYNCING),
    **_edges(Phase.SKIPPING, _CLIENT, (m.Terminate,), Phase.CLOSED),
    **_edges(Phase.SKIPPING, _SERVER, (*_ASIDE, m.ErrorResponse), Phase.SKIPPING),
    # A client that sent its Sync ahead receives the whole series' answers in this phase.
    **_edges(Phase.SYNCING, _SERVER, (*_EXTENDED_RESULTS, m.ErrorResponse, *_ASIDE), Phase.SYNCING),
    **_edges(Phase.SYNCING, _SERVER, (m.ReadyForQuery,), Phase.IDLE),
    **_edges(Phase.SYNCING, _CLIENT, (m.Terminate,), Phase.CLOSED),
}

COPY_STARTS: dict[type, Copy] = {
    m.CopyInResponse: Copy.IN,
    m.CopyOutResponse: Copy.OUT,
    m.CopyBothResponse: Copy.BOTH,
}

COPIES: dict[tuple[Copy, Sender, type], Copy] = {
    **_edges(Copy.IN, _CLIENT, (m.CopyData, m.Flush, m.Sync), Copy.IN),
    **_edges(Copy.IN, _CLIENT, (m.CopyDone, m.CopyFail), Copy.NONE),
    **_edges(Copy.IN, _SERVER, _ASIDE, Copy.IN),
    **_edges(Copy.OUT, _SERVER, (m.CopyData, *_ASIDE), Copy.OUT),
    **_edges(Copy.OUT, _SERVER, (m.CopyDone,), Copy.NONE),
    **_edges(Copy.BOTH, _CLIENT, (m.CopyData, m.Flush, m.Sync), Copy.BOTH),
    **_edges(Copy.BOTH, _CLIENT, (m.CopyDone, m.CopyFail), Copy.BOTH_CLIENT_DONE),
    **_edges(Copy.BOTH, _SERVER, (m.CopyData, *_ASIDE), Copy.BOTH),
    **_edges(Copy.BOTH, _SERVER, (m.CopyDone,), Copy.BOTH_SERVER_DONE),
    # A stock server that shuts down says so without ending the copy (walsender.c, WalSndDone).
    **_edges(Copy.BOTH, _SERVER, (m.CommandComplete,), Copy.NONE),
    **_edges(Copy.BOTH_CLIENT_DONE, _SERVER, (m.CommandComplete,), Copy.NONE),
    **_edges(Copy.BOTH_CLIENT_DONE, _SERVER, (m.CopyData, *_ASIDE), Copy.BOTH_CLIENT_DONE),
    **_edges(Copy.BOTH_CLIENT_DONE, _SERVER, (m.CopyDone,), Copy.NONE),
    **_edges(Copy.BOTH_SERVER_DONE, _CLIENT, (m.CopyData, m.Flush, m.Sync), Copy.BOTH_SERVER_DONE),
    **_edges(Copy.BOTH_SERVER_DONE, _CLIENT, (m.CopyDone, m.CopyFail), Copy.NONE),
    **_edges(Copy.BOTH_SERVER_DONE, _SERVER, _ASIDE, Copy.BOTH_SERVER_DONE),
}

COPY_ENDS: tuple[type, ...] = (m.ErrorResponse, m.Terminate)
"""End whatever copy runs; then the phase's table says where the session goes."""


@dataclass(slots=True)
class Progress:
    """Present state of a connection; :meth:`advance` is the only thing that changes it."""

    phase: Phase = Phase.STARTUP
    copy: Copy = Copy.NONE

    def advance(self, sender: Sender, kind: type) -> None:
        """Take the edge of one message; ``ProtocolError`` if the tables list none."""
        if self.copy is not Copy.NONE and kind not in COPY_ENDS:
            self._advance_copy(sender, kind)
            return
        target = PHASES.get((self.phase, sender, kind))
        if target is None:
            raise ProtocolError(
                f"the {sender.value} may not send {kind.__name__} "
                f"while the session {self.phase.value}"
            )
        self.phase = target
        self.copy = COPY_STARTS.get(kind, Copy.NONE)

    def _advance_copy(self, sender: Sender, kind: type) -> None:
        target = COPIES.get((self.copy, sender, kind))
        if target is None:
            raise ProtocolError(
                f"the {sender.value} may not send {kind.__name__} in a copy ({self.copy.value})"
            )
        assert self.phase not in (Phase.STARTUP, Phase.IDLE, Phase.CLOSED), self.phase
        self.copy = target
