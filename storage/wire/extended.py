"""Extended query protocol: prepared statements and portals over the same command handler.

A Describe of a portal is answered by the Execute that follows it, because a handler's columns are
known only when it runs; libpq and its like always send the two together. A client that describes
ahead gets its answer from ``Server.describe`` where the node gives one.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field

from storage.errors import BadRequest, NotFound
from storage.wire import messages as m
from storage.wire import sql as text
from storage.wire.channel import Channel
from storage.wire.session import Answering, Session

RunCommand = Callable[[str, Answering], Awaitable[None]]
DescribeCommand = Callable[[str], Sequence[str | m.Column] | None]
"""Columns that a command's rows will have, or ``None`` if it returns none."""


class UnknownName(NotFound):
    """The prepared statement or portal does not exist."""

    sqlstate = "26000"


class NotSupported(BadRequest):
    """A feature of the protocol that this server leaves out."""

    sqlstate = "0A000"


@dataclass(slots=True)
class Portal:
    """A statement with its values; holds the rows that a limited Execute left over."""

    command: str
    result_formats: tuple[int, ...]
    answering: Answering | None = None


@dataclass(slots=True)
class ExtendedQuery:
    """Statements and portals of one session."""

    channel: Channel
    session: Session
    run: RunCommand
    describe: DescribeCommand
    statements: dict[str, str] = field(default_factory=dict)
    portals: dict[str, Portal] = field(default_factory=dict)
    describe_pending: str | None = None

    async def handle(self, message: m.Message) -> None:
        """Answer one extended-protocol message; an error makes the caller skip to the Sync."""
        if self.describe_pending is not None and not isinstance(message, m.Execute):
            self._describe_portal_now(self.describe_pending)
        match message:
            case m.Parse():
                self._parse(message)
            case m.Bind():
                self._bind(message)
            case m.Describe(m.Target.STATEMENT, name):
                self._describe_statement(name)
            case m.Describe(m.Target.PORTAL, name):
                self._portal(name)
                self.describe_pending = name
            case m.Execute():
                await self._execute(message)
            case m.Close(target, name):
                (self.statements if target is m.Target.STATEMENT else self.portals).pop(name, None)
                self.channel.send(m.CloseComplete())
            case m.Flush():
                self.channel.flush()
            case _:
                raise AssertionError(f"not an extended-protocol message: {message!r}")

    def sync(self, *, in_block: bool) -> None:
        """End of a series: answer what is pending; portals outlive it in a transaction block."""
        if self.describe_pending is not None:
            self._describe_portal_now(self.describe_pending)
        self.reset(in_block=in_block)

    def reset(self, *, in_block: bool) -> None:
        """Drop what is pending and, outside of a block, the portals (Sync, error, Query)."""
        self.describe_pending = None
        if not in_block:
            self.portals.clear()

    def _parse(self, message: m.Parse) -> None:
        statements = text.split_statements(message.sql)
        if len(statements) > 1:
            raise BadRequest("cannot insert multiple commands into a prepared statement")
        self.statements[message.statement] = statements[0] if statements else ""
        self.channel.send(m.ParseComplete())

    def _bind(self, message: m.Bind) -> None:
        if any(message.formats):
            raise NotSupported("binary parameters are not supported; send them as text")
        command = self._statement(message.statement)
        count = text.parameter_count(command)
        if count != len(message.values):
            raise BadRequest(
                f"bind message supplies {len(message.values)} parameters, "
                f"but the statement requires {count}"
            )
        values = [None if value is None else value.decode() for value in message.values]
        bound = text.bind_values(command, values)
        self.portals[message.portal] = Portal(bound, message.result_formats)
        self.channel.send(m.BindComplete())

    def _statement(self, name: str) -> str:
        if name not in self.statements:
            raise UnknownName(f"prepared statement {name!r} does not exist")
        return self.statements[name]

    def _portal(self, name: str) -> Portal:
        if name not in self.portals:
            raise UnknownName(f"portal {name!r} does not exist")
        return self.portals[name]

    def _describe_statement(self, name: str) -> None:
        command = self._statement(name)
        self.channel.send(m.ParameterDescription((m.TypeOid.TEXT,) * text.parameter_count(command)))
        self._send_description(command)

    def _describe_portal_now(self, name: str) -> None:
        self.describe_pending = None
        self._send_description(self._portal(name).command)

    def _send_description(self, command: str) -> None:
        columns = self.describe(command)
        if columns is None:
            self.channel.send(m.NoData())
        else:
            described = tuple(m.Column(c) if isinstance(c, str) else c for c in columns)
            self.channel.send(m.RowDescription(described))

    async def _execute(self, message: m.Execute) -> None:
        portal = self._portal(message.portal)
        describe = self.describe_pending == message.portal
        self.describe_pending = None
        if portal.answering is not None:
            self._resume(portal.answering, message.rows_max)
            return
        portal.answering = Answering(
            extended=True,
            describe=describe,
            binary_formats=portal.result_formats,
            rows_max=max(0, message.rows_max),
        )
        await self.run(portal.command, portal.answering)

    def _resume(self, answering: Answering, rows_max: int) -> None:
        if not answering.suspended_tag:
            raise BadRequest("the portal has been run to completion")
        rows = answering.suspended_rows
        count = rows_max if rows_max > 0 else len(rows)
        for row in rows[:count]:
            self.channel.send(m.DataRow(row))
        answering.suspended_rows = rows[count:]
        if answering.suspended_rows:
            self.channel.send(m.PortalSuspended())
        else:
            self.channel.send(m.CommandComplete(answering.suspended_tag))
            answering.suspended_tag = ""
