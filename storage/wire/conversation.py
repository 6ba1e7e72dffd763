"""One connection on the server, from its start-up packet to its end: who is asked what, when.

Errors of a handler reach the client as an ErrorResponse and the conversation goes on (SYSTEM.md
D2); only violations of the protocol, a lost peer and a shutdown end it.
"""

from __future__ import annotations

import asyncio
import logging
import struct
from collections.abc import Awaitable, Callable, Coroutine
from dataclasses import dataclass, field
from typing import Any

from storage.errors import PortError, ProtocolError, RequestError, SeawallError
from storage.log import TraceIds, log_failure, one_line
from storage.tasks import ShutdownRequested
from storage.wire import formats
from storage.wire import messages as m
from storage.wire import sql as text
from storage.wire.channel import Channel
from storage.wire.codec import Limits
from storage.wire.extended import DescribeCommand, ExtendedQuery, NotSupported
from storage.wire.session import Answering, Session
from storage.wire.startup import parse_options
from storage.wire.states import Copy, Phase

logger = logging.getLogger(__name__)

QueryHandler = Callable[[Session, str], Awaitable[None]]
"""Answers one command of a session; what it raises becomes an ErrorResponse."""

PARAMETERS = {
    # Not newer than any client we support: pg_receivewal refuses servers newer than itself.
    "server_version": "15.0",
    "server_encoding": "UTF8",
    "client_encoding": "UTF8",
    "DateStyle": "ISO, MDY",
    "IntervalStyle": "postgres",
    "TimeZone": "UTC",
    "integer_datetimes": "on",
    "standard_conforming_strings": "on",
    "is_superuser": "on",
    "in_hot_standby": "off",
    "default_transaction_read_only": "off",
}
"""ParameterStatus of every session: what psql, psycopg2 and replication clients look at."""


def _no_description(_command: str) -> None:
    return None


@dataclass(frozen=True, slots=True)
class ServerOptions:
    """How a server behaves; ``split`` tells how a simple query falls into commands."""

    describe: DescribeCommand = _no_description
    split: Callable[[str], list[str]] = text.split_statements
    limits: Limits = field(default_factory=Limits)
    startup_timeout_s: float = 60.0
    close_within_s: float = 1.0


class Conversation:
    """Drives one session; :meth:`run` returns when it is over."""

    def __init__(
        self, channel: Channel, handler: QueryHandler, options: ServerOptions, trace_ids: TraceIds
    ) -> None:
        self._channel = channel
        self._handler = handler
        self._options = options
        self._trace_ids = trace_ids
        self._status = m.TransactionStatus.IDLE

    async def run(self, process_id: int) -> None:
        """Talk until the client leaves, is lost, breaks the protocol, or we are to stop."""
        channel = self._channel
        try:
            session = await self._start(process_id)
            if session is not None:
                await self._serve(session)
        except ConnectionError as error:
            logger.info("connection of %s lost: %s", channel.peer_name, error)
        except (ProtocolError, ShutdownRequested) as error:
            self._report_fatal(error)
        finally:
            await channel.close(within_s=self._options.close_within_s)

    # ---- start-up

    async def _start(self, process_id: int) -> Session | None:
        async with asyncio.timeout(self._options.startup_timeout_s):
            startup = await self._receive_startup()
        if startup is None:
            return None
        self._negotiate(startup)
        settings = parse_options(startup.parameters.get("options", ""))
        self._channel.send(m.AuthenticationOk())
        for name, value in PARAMETERS.items():
            self._channel.send(m.ParameterStatus(name, value))
        for name in ("application_name", "user"):
            status_name = "session_authorization" if name == "user" else name
            self._channel.send(m.ParameterStatus(status_name, startup.parameters.get(name, "")))
        # Cancelling is tolerated but does nothing, so the secret protects nothing.
        self._channel.send(m.BackendKeyData(process_id, struct.pack("!i", process_id)))
        self._ready()
        return Session(self._channel, startup.parameters, settings)

    async def _receive_startup(self) -> m.Startup | None:
        while True:
            match await self._channel.receive():
                case m.Startup() as startup:
                    return startup
                case m.CancelRequest():
                    return None
                case _:
                    self._channel.send(m.EncryptionRefused())
                    self._channel.flush()

    def _negotiate(self, startup: m.Startup) -> None:
        unknown = tuple(name for name in startup.parameters if name.startswith("_pq_."))
        if startup.protocol != m.PROTOCOL_3_0 or unknown:
            self._channel.send(m.NegotiateProtocolVersion(m.PROTOCOL_3_0, unknown))

    # ---- commands

    async def _serve(self, session: Session) -> None:
        extended = ExtendedQuery(
            self._channel, session, lambda sql, how: self._command(session, sql, how),
            self._options.describe,
        )
        while True:
            message = await self._channel.receive()
            match message:
                case m.Terminate():
                    return
                case m.CopyData() | m.CopyDone() | m.CopyFail():
                    continue  # Left over from a copy that failed here.
                case m.Query(sql):
                    extended.reset()
                    await self._guarded(self._simple(session, sql))
                    self._ready()
                case m.Sync():
                    extended.sync()
                    self._ready()
                case m.FunctionCall():
                    self._report(NotSupported("function calls are not supported"))
                    self._ready()
                case _ if self._channel.connection.progress.phase is Phase.EXTENDED:
                    if not await self._guarded(extended.handle(message)):
                        extended.reset()
            await self._channel.drain()

    async def _simple(self, session: Session, sql: str) -> None:
        commands = self._options.split(sql)
        if not commands:
            self._channel.send(m.EmptyQuery())
        for command in commands:
            await self._command(session, command, Answering())

    async def _command(self, session: Session, command: str, answering: Answering) -> None:
        session.begin(answering)
        if not command:
            self._channel.send(m.EmptyQuery())
            return
        await self._handler(session, command)
        if self._channel.connection.progress.copy is not Copy.NONE:
            raise AssertionError(f"the handler left the copy of {command[:80]!r} open")
        if answering.copied and not answering.completed:
            await session.complete("COPY 0")
        assert answering.completed, f"the handler did not answer {command[:80]!r}"

    def _ready(self) -> None:
        self._channel.send(m.ReadyForQuery(self._status))
        self._channel.flush()

    # ---- errors

    async def _guarded(self, work: Coroutine[Any, Any, None]) -> bool:
        """Run a command's work; false if it failed, and the client has been told."""
        try:
            await work
        except (ProtocolError, ShutdownRequested):
            raise
        except Exception as error:
            if self._channel.lost and isinstance(error, ConnectionError):
                raise
            self._report(error)
            return False
        return True

    def _report(self, error: Exception) -> None:
        trace_id = self._trace_ids.next()
        log_failure(logger, f"command of {self._channel.peer_name}", error, trace_id=trace_id)
        detail = None if isinstance(error, RequestError) else f"trace id {trace_id}"
        self._channel.send(
            m.ErrorResponse(m.Severity.ERROR, sqlstate_of(error), message_of(error), detail)
        )

    def _report_fatal(self, error: ProtocolError | ShutdownRequested) -> None:
        logger.info("session of %s ends: %s", self._channel.peer_name, error)
        # The codec may stand anywhere, so the last word bypasses its state.
        report = m.ErrorResponse(m.Severity.FATAL, sqlstate_of(error), str(error))
        self._channel.send_last_word(formats.encode(report))


def sqlstate_of(error: Exception) -> str:
    """SQLSTATE that tells a client whose fault an error was."""
    match error:
        case RequestError():
            return error.sqlstate
        case ProtocolError():
            return "08P01"
        case PortError():
            return "58030"
        case OSError() | TimeoutError() | EOFError():
            return "08006"
        case _:
            return "XX000"


def message_of(error: Exception) -> str:
    """What a client reads about an error: clear for the expected ones, honest for the others."""
    if isinstance(error, SeawallError):
        return str(error)
    return f"internal error: {one_line(error)}"
