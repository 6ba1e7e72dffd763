"""A Postgres-protocol client on asyncio streams of messages: queries, copies, replication.

Works against our own servers and a stock PostgreSQL that trusts us; any other authentication is
refused with a clear error. One command runs at a time; a command that is abandoned half way makes
the client unusable, which :meth:`Client.query` and its like then say.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterable, AsyncIterator, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from typing import NoReturn

from storage.errors import ProtocolError
from storage.wire import messages as m
from storage.wire.channel import Channel
from storage.wire.copying import CopyStream, take_aside
from storage.wire.errors import ServerError
from storage.wire.startup import format_options
from storage.wire.states import Copy, Phase, Sender

__all__ = ["Client", "ConnectOptions", "Result", "ServerError", "connect"]

Row = tuple[str | None, ...]


@dataclass(frozen=True, slots=True)
class ConnectOptions:
    """How to connect; ``timeout_s`` bounds connecting and each query, not copies.

    ``settings`` travel as ``-c name=value`` in ``options``; ``replication`` is ``True`` for a
    physical and ``"database"`` for a logical replication connection.
    """

    user: str = "seawall"
    database: str | None = None
    settings: Mapping[str, str] = field(default_factory=dict)
    replication: bool | str = False
    application_name: str = "seawall"
    timeout_s: float = 10.0


@dataclass(frozen=True, slots=True)
class Result:
    """What a query returned last; values are text, ``None`` is NULL."""

    columns: tuple[m.Column, ...]
    rows: list[Row]
    tag: str


async def connect(host: str, port: int, *, options: ConnectOptions | None = None) -> Client:
    """Open a session. Raises ``ServerError``, ``ProtocolError``, ``OSError``, ``TimeoutError``."""
    chosen = options or ConnectOptions()
    loop = asyncio.get_running_loop()
    async with asyncio.timeout(chosen.timeout_s):
        _transport, channel = await loop.create_connection(
            lambda: Channel(Sender.CLIENT), host, port
        )
        client = Client(channel, chosen)
        try:
            await client.start()
        except BaseException:
            channel.abort()
            raise
    return client


class Client:
    """One session, client side; made by :func:`connect`."""

    def __init__(self, channel: Channel, options: ConnectOptions) -> None:
        self.parameters: dict[str, str] = {}
        self._channel = channel
        self._options = options
        self._usable = True

    async def start(self) -> None:
        """Send the start-up packet and wait for the server to be ready; for :func:`connect`."""
        self._channel.send(m.Startup(_startup_parameters(self._options)))
        self._channel.flush()
        while True:
            match await self._channel.receive():
                case m.ReadyForQuery():
                    return
                case m.ParameterStatus(name, value):
                    self.parameters[name] = value
                case m.ErrorResponse() as report:
                    raise ServerError(report)
                case m.AuthenticationRequest(code):
                    raise ProtocolError(
                        f"the server asks for authentication method {code}; only trust works here"
                    )
                case _:
                    pass

    @property
    def closed(self) -> bool:
        """Whether the session is over, by loss, a fatal error or an abandoned command."""
        return self._channel.lost or not self._usable

    # ---- queries

    async def query(self, sql: str) -> Result:
        """Run ``sql`` by the simple protocol and return the last statement's result.

        Raises ``ServerError`` (the session goes on unless it was fatal), ``ConnectionError``,
        ``TimeoutError`` (the session is closed).
        """
        return await self._run(m.Query(sql))

    async def execute(self, sql: str, parameters: Sequence[str | None] = ()) -> Result:
        """Run one statement by the extended protocol, with text values for ``$1`` …"""
        values = tuple(None if value is None else value.encode() for value in parameters)
        return await self._run(
            m.Parse("", sql),
            m.Bind("", "", values),
            m.Describe(m.Target.PORTAL, ""),
            m.Execute(""),
            m.Sync(),
        )

    async def _run(self, *messages: m.Message) -> Result:
        self._check_idle()
        with self._closing_on_failure():
            async with asyncio.timeout(self._options.timeout_s):
                self._begin(*messages)
                return await self._result()

    @contextmanager
    def _closing_on_failure(self) -> Iterator[None]:
        """After anything but the server's own error, its answer may still be on its way and would
        be taken for that of the next command: the session cannot go on."""
        try:
            yield
        except ServerError:
            raise
        except BaseException:
            self._abandon()
            raise

    def _abandon(self) -> None:
        self._usable = False
        self._channel.abort()

    def _check_idle(self) -> None:
        if self.closed:
            raise ConnectionResetError("the connection is closed")
        if self._channel.connection.progress.phase is not Phase.IDLE:
            raise ProtocolError("another command of this session is still running")

    def _begin(self, *messages: m.Message) -> None:
        for message in messages:
            self._channel.send(message)
        self._channel.flush()

    async def _result(self) -> Result:
        """Read the answer up to ReadyForQuery; raise the error if there was one."""
        columns: tuple[m.Column, ...] = ()
        rows: list[Row] = []
        tag = ""
        error: m.ErrorResponse | None = None
        while True:
            match await self._channel.receive():
                case m.ReadyForQuery():
                    break
                case m.RowDescription(described):
                    columns, rows = described, []
                case m.DataRow(values):
                    rows.append(tuple(None if v is None else v.decode() for v in values))
                case m.CommandComplete(text):
                    tag = text
                case m.ErrorResponse() as report:
                    error = error or report
                    if report.severity in (m.Severity.FATAL, m.Severity.PANIC):
                        self._abandon()
                        break
                case m.ParameterStatus(name, value):
                    self.parameters[name] = value
                case m.CopyInResponse():
                    self._channel.send(m.CopyFail("this query was not expected to copy"))
                    self._channel.flush()
                case m.CopyBothResponse():
                    raise ProtocolError("the server started a replication stream for a query")
                case _:
                    pass
        if error is not None:
            raise ServerError(error)
        return Result(columns, rows, tag)

    # ---- copies

    async def _begin_copy(self, sql: str, expected: type) -> None:
        self._check_idle()
        with self._closing_on_failure():
            async with asyncio.timeout(self._options.timeout_s):
                self._begin(m.Query(sql))
                while not isinstance(message := await self._channel.receive(), expected):
                    if isinstance(message, m.ErrorResponse):
                        await self._result_after(message)
                    if isinstance(message, (m.CommandComplete, m.RowDescription)):
                        raise ProtocolError(f"{sql[:80]!r} did not start a copy")

    async def _result_after(self, report: m.ErrorResponse) -> NoReturn:
        if report.severity is m.Severity.ERROR:
            await self._result()
        else:
            self._abandon()
        raise ServerError(report)

    async def copy_both(self, sql: str) -> CopyStream:
        """Start a command that streams both ways; ``done()`` on the stream ends it."""
        await self._begin_copy(sql, m.CopyBothResponse)
        return CopyStream(self._channel, self._result)

    async def copy_out(self, sql: str) -> AsyncIterator[bytes]:
        """Yield the pieces of data that a command sends; an error half way raises.

        Leaving the iteration early closes the session.
        """
        await self._begin_copy(sql, m.CopyOutResponse)
        with self._closing_on_failure():
            while self._channel.connection.progress.copy is Copy.OUT:
                data = await self._channel.receive_copy_data()
                if data is not None:
                    yield data
                    continue
                message = await self._channel.receive()
                if isinstance(message, m.ErrorResponse):
                    await self._result_after(message)
                take_aside(message)
            await self._result()

    async def copy_in(self, sql: str, chunks: AsyncIterable[bytes]) -> str:
        """Run a command that takes ``chunks``; returns its tag. An error of ``chunks`` fails it."""
        await self._begin_copy(sql, m.CopyInResponse)
        with self._closing_on_failure():
            failure = await self._upload(chunks)
            if failure is None:
                self._channel.send(m.CopyDone())
                self._channel.flush()
                return (await self._result()).tag
            self._channel.send(m.CopyFail(str(failure) or type(failure).__name__))
            self._channel.flush()
            with suppress(ServerError):
                await self._result()
        raise failure

    async def _upload(self, chunks: AsyncIterable[bytes]) -> Exception | None:
        """Send the chunks; returns what their source raised, if it did."""
        source = aiter(chunks)
        while True:
            try:
                chunk = await anext(source)
            except StopAsyncIteration:
                return None
            except Exception as failure:
                return failure
            while self._channel.connection.has_message:
                message = await self._channel.receive()
                if isinstance(message, m.ErrorResponse):
                    await self._result_after(message)
            self._channel.send_copy_data((chunk,), len(chunk))
            await self._channel.drain()

    async def close(self) -> None:
        """End the session; harmless when it is over already."""
        if self.closed:
            self._abandon()
            return
        self._usable = False
        if self._channel.connection.progress.copy is Copy.NONE:
            self._channel.send(m.Terminate())
        await self._channel.close(within_s=1.0)


def _startup_parameters(options: ConnectOptions) -> dict[str, str]:
    parameters = {"user": options.user, "database": options.database or options.user}
    if options.replication:
        replication = options.replication
        parameters["replication"] = replication if isinstance(replication, str) else "true"
    if options.settings:
        parameters["options"] = format_options(options.settings)
    parameters["application_name"] = options.application_name
    parameters["client_encoding"] = "UTF8"
    return parameters
