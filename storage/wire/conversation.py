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
from storage.wire import encoding
from storage.wire import messages as m
from storage.wire import sql as text
from storage.wire.channel import Channel
from storage.wire.codec import Limits
from storage.wire.extended import DescribeCommand, ExtendedQuery, NotSupported
from storage.wire.session import Answering, Session
from storage.wire.session_commands import PARAMETERS, SessionCommands
from storage.wire.startup import parse_options
from storage.wire.states import Copy, Phase

logger = logging.getLogger(__name__)

QueryHandler = Callable[[Session, str], Awaitable[None]]
"""Answers one command of a session; what it raises becomes an ErrorResponse."""


def _no_description(_command: str) -> None:
    return None


@dataclass(frozen=True, slots=True)
class ServerOptions:
    """How a server behaves; ``split`` tells how a simple query falls into commands.

    A replication session that asks for nothing for ``replication_idle_s`` is ended: no person sits
    there, and a machine that died in the middle of connecting never says so.
    """

    describe: DescribeCommand = _no_description
    split: Callable[[str], list[str]] = text.split_statements
    limits: Limits = field(default_factory=Limits)
    startup_timeout_s: float = 60.0
    replication_idle_s: float | None = None
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
        self._commands = SessionCommands()
        self._process_id = 0
        self._running: asyncio.Task[object] | None = None
        self._cancel_requested = False

    async def run(self, process_id: int, cancel: Callable[[m.CancelRequest], None]) -> None:
        """Talk until the client leaves, is lost, breaks the protocol, or we are to stop.

        ``cancel`` carries a CancelRequest out; ``process_id`` is what ours would name.
        """
        channel = self._channel
        self._process_id = process_id
        try:
            session = await self._start(cancel)
            if session is not None:
                await self._serve(session)
        except ConnectionError as error:
            logger.info("connection of %s lost: %s", channel.peer_name, error)
        except (ProtocolError, ShutdownRequested) as error:
            self._report_fatal(error)
        except asyncio.CancelledError:
            channel.abort()
            raise
        finally:
            await channel.close(within_s=self._options.close_within_s)

    @property
    def key(self) -> m.BackendKeyData:
        """What a CancelRequest for this session carries."""
        # The secret guards against mistakes, not attackers: nodes trust their network.
        secret = (self._process_id * 2654435761) & 0x7FFFFFFF
        return m.BackendKeyData(self._process_id, struct.pack("!i", secret))

    def cancel_command(self) -> None:
        """Interrupt the command that runs now, if one does; the client gets an error for it."""
        if self._running is not None and not self._cancel_requested:
            self._cancel_requested = True
            self._running.cancel("query cancelled")

    # ---- start-up

    async def _start(self, cancel: Callable[[m.CancelRequest], None]) -> Session | None:
        try:
            async with asyncio.timeout(self._options.startup_timeout_s):
                startup = await self._receive_startup()
        except TimeoutError:
            raise ProtocolError("no start-up packet came in time") from None
        if isinstance(startup, m.CancelRequest):
            cancel(startup)
            return None
        self._negotiate(startup)
        settings = parse_options(startup.parameters.get("options", ""))
        self._channel.send(m.AuthenticationOk())
        for name, value in PARAMETERS.items():
            self._channel.send(m.ParameterStatus(name, value))
        for status, name in (("application_name",) * 2, ("session_authorization", "user")):
            self._channel.send(m.ParameterStatus(status, startup.parameters.get(name, "")))
        self._channel.send(self.key)
        self._ready()
        return Session(self._channel, startup.parameters, settings)

    async def _receive_startup(self) -> m.Startup | m.CancelRequest:
        while True:
            message = await self._channel.receive()
            if isinstance(message, (m.Startup, m.CancelRequest)):
                return message
            self._channel.send(m.EncryptionRefused())
            self._channel.flush()

    def _negotiate(self, startup: m.Startup) -> None:
        unknown = tuple(name for name in startup.parameters if name.startswith("_pq_."))
        if startup.protocol != m.PROTOCOL_3_0 or unknown:
            self._channel.send(m.NegotiateProtocolVersion(m.PROTOCOL_3_0, unknown))

    # ---- commands

    async def _serve(self, session: Session) -> None:
        extended = ExtendedQuery(
            self._channel,
            session,
            lambda sql, how: self._command(session, sql, how),
            self._options.describe,
        )
        idle_s = self._options.replication_idle_s if session.replication else None
        while True:
            message = await self._next_message(idle_s)
            match message:
                case m.Terminate():
                    return
                case m.CopyData() | m.CopyDone() | m.CopyFail():
                    continue  # Left over from a copy that failed here.
                case m.Query(sql):
                    extended.reset(in_block=self._commands.in_block)
                    await self._guarded(self._simple(session, sql))
                    self._ready()
                case m.Sync():
                    extended.sync(in_block=self._commands.in_block)
                    self._ready()
                case m.FunctionCall():
                    self._report(NotSupported("function calls are not supported"))
                    self._ready()
                case _ if self._channel.connection.progress.phase is Phase.EXTENDED:
                    if not await self._guarded(extended.handle(message)):
                        extended.reset(in_block=self._commands.in_block)
            await self._channel.drain()

    async def _next_message(self, idle_s: float | None) -> m.Message:
        if idle_s is None:
            return await self._channel.receive()
        try:
            async with asyncio.timeout(idle_s):
                return await self._channel.receive()
        except TimeoutError:
            raise ProtocolError(f"the session asked for nothing for {idle_s} s") from None

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
        if await self._commands.answer(session, command):
            return
        await self._handler(session, command)
        if self._channel.connection.progress.copy is not Copy.NONE:
            raise AssertionError(f"the handler left the copy of {command[:80]!r} open")
        if answering.copied and not answering.completed:
            await session.complete("COPY 0")
        assert answering.completed, f"the handler did not answer {command[:80]!r}"

    def _ready(self) -> None:
        self._channel.send(m.ReadyForQuery(self._commands.status))
        self._channel.flush()

    # ---- errors

    async def _guarded(self, work: Coroutine[Any, Any, None]) -> bool:
        """Run a command's work; false if it failed, and the client has been told."""
        try:
            await self._cancellable(work)
        except (ProtocolError, ShutdownRequested):
            raise
        except Exception as error:
            if self._has_left and isinstance(error, ConnectionError):
                raise
            self._commands.failed()
            self._report(error)
            return False
        return True

    @property
    def _has_left(self) -> bool:
        """Whether the client is lost, or ended its session in the middle of a copy."""
        channel = self._channel
        return channel.lost or channel.connection.progress.phase is Phase.CLOSED

    async def _cancellable(self, work: Coroutine[Any, Any, None]) -> None:
        """Run ``work`` so that :meth:`cancel_command` ends it with ``QueryCancelled``."""
        task = asyncio.current_task()
        assert task is not None
        cancelled_before = task.cancelling()
        self._running = task
        try:
            await work
        except asyncio.CancelledError as error:
            if self._cancel_requested and task.uncancel() <= cancelled_before:
                raise QueryCancelled("canceling statement due to user request") from error
            raise
        finally:
            self._running = None
            self._cancel_requested = False

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
        self._channel.send_last_word(encoding.encode(report))


class QueryCancelled(RequestError):
    """The client asked, on another connection, to cancel its command."""

    kind = "cancelled"
    http_status = 499
    sqlstate = "57014"


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
