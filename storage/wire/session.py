"""What a command handler sees of its connection: parameters, and the ways to answer.

A command is answered once: by rows, by a plain completion, or by a copy. Under the extended
protocol the same calls also answer a Describe that came just before the Execute, and stop at the
row limit. The conversation around the commands is in ``conversation.py``.
"""

from __future__ import annotations

import struct
from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from storage.errors import BadRequest
from storage.wire import messages as m
from storage.wire.channel import Channel
from storage.wire.copying import CopyOut, CopyStream, take_aside
from storage.wire.states import Copy

Value = str | bytes | int | bool | None
DataRows = list[tuple[bytes | None, ...]]


@dataclass(slots=True)
class Answering:
    """How the present command wants to be answered, and how far the answer is."""

    extended: bool = False
    describe: bool = True
    binary_formats: tuple[int, ...] = ()
    rows_max: int = 0
    completed: bool = False
    copied: bool = False
    suspended_rows: DataRows = field(default_factory=list)
    suspended_tag: str = ""


class Session:
    """One connection, server side. Every call may raise ``ConnectionError``."""

    def __init__(
        self, channel: Channel, parameters: Mapping[str, str], settings: Mapping[str, str]
    ) -> None:
        self.parameters = parameters
        self.settings = settings
        self.peer_name = channel.peer_name
        self._channel = channel
        self._answering = Answering()

    @property
    def replication(self) -> bool:
        """Whether the client asked for a replication connection."""
        return self.parameters.get("replication", "").lower() in (
            "true",
            "on",
            "yes",
            "1",
            "database",
        )

    def begin(self, answering: Answering) -> None:
        """Start answering a command; for the conversation, not for handlers."""
        assert self._channel.connection.progress.copy is Copy.NONE, "a copy was left open"
        self._answering = answering

    async def rows(
        self, columns: Sequence[str | m.Column], rows: Iterable[Sequence[Value]], tag: str
    ) -> None:
        """Answer with rows; ``tag`` completes the command (``SELECT 3``)."""
        answering = self._answering
        described = _with_formats(columns, answering.binary_formats)
        if answering.describe:
            self._channel.send(m.RowDescription(described))
        encoded = (_row(described, row) for row in rows)
        for sent, row in enumerate(encoded):
            if answering.rows_max and sent == answering.rows_max:
                self._suspend([row, *encoded], tag)
                return
            self._channel.send(m.DataRow(row))
            if self._channel.write_paused:
                await self._channel.drain()
        self._complete(tag)

    def _suspend(self, rows: DataRows, tag: str) -> None:
        self._answering.suspended_rows = rows
        self._answering.suspended_tag = tag
        self._answering.completed = True
        self._channel.send(m.PortalSuspended())

    async def complete(self, tag: str) -> None:
        """Answer without rows (``PUT 0/16B3740``)."""
        if self._answering.describe and self._answering.extended:
            self._channel.send(m.NoData())
        self._complete(tag)

    def _complete(self, tag: str) -> None:
        self._answering.describe = not self._answering.extended
        self._answering.completed = True
        self._channel.send(m.CommandComplete(tag))

    def _open_copy(
        self, response: m.CopyInResponse | m.CopyOutResponse | m.CopyBothResponse
    ) -> None:
        if self._answering.describe and self._answering.extended:
            self._channel.send(m.NoData())
            self._answering.describe = False
        self._answering.copied = True
        self._channel.send(response)
        self._channel.flush()

    async def copy_out(self) -> CopyOut:
        """Answer with a stream of bytes; finish it with :meth:`CopyOut.done`."""
        self._open_copy(m.CopyOutResponse())
        return CopyOut(self._channel, self.complete)

    async def copy_in(self) -> AsyncIterator[bytes]:
        """Ask for and yield the client's data until it ends; then answer the command.

        Raises ``CopyFailed`` when the client gives up.
        """
        self._open_copy(m.CopyInResponse())
        connection = self._channel.connection
        while connection.progress.copy is Copy.IN:
            data = connection.take_copy_data()
            if data is None:
                data = await self._channel.receive_copy_data()
            if data is None:
                take_aside(await self._channel.receive())
            else:
                yield data

    async def copy_both(self) -> CopyStream:
        """Open a stream in both directions; finish with :meth:`CopyStream.done`, or raise."""
        self._open_copy(m.CopyBothResponse())
        return CopyStream(self._channel)

    async def notice(self, message: str) -> None:
        """Tell the client something in passing."""
        self._channel.send(m.NoticeResponse(m.Severity.NOTICE, "00000", message))
        self._channel.flush()

    async def warning(self, message: str) -> None:
        """Warn the client of something in passing."""
        self._channel.send(m.NoticeResponse(m.Severity.WARNING, "01000", message))
        self._channel.flush()


def _with_formats(
    columns: Sequence[str | m.Column], formats: tuple[int, ...]
) -> tuple[m.Column, ...]:
    if len(formats) not in (0, 1, len(columns)):
        raise BadRequest(f"{len(formats)} result formats for {len(columns)} columns")
    chosen = formats if len(formats) == len(columns) else (formats or (0,)) * len(columns)
    return tuple(
        m.Column(name=c, binary=f == 1)
        if isinstance(c, str)
        else m.Column(c.name, c.type_oid, f == 1)
        for c, f in zip(columns, chosen, strict=True)
    )


def _row(columns: tuple[m.Column, ...], row: Sequence[Value]) -> tuple[bytes | None, ...]:
    assert len(row) == len(columns), f"{len(row)} values for {len(columns)} columns"
    return tuple(
        None if value is None else _value(column, value)
        for column, value in zip(columns, row, strict=True)
    )


_BINARY_INTEGERS: dict[int, struct.Struct] = {
    m.TypeOid.INT4: struct.Struct("!i"),
    m.TypeOid.INT8: struct.Struct("!q"),
}


def _value(column: m.Column, value: str | bytes | int | bool) -> bytes:
    if isinstance(value, bytes):
        is_text_bytea = column.type_oid == m.TypeOid.BYTEA and not column.binary
        return b"\\x" + value.hex().encode() if is_text_bytea else value
    if column.binary and isinstance(value, int):
        shape = _BINARY_INTEGERS.get(column.type_oid)
        if shape is not None:
            return shape.pack(value)
        if column.type_oid == m.TypeOid.BOOL:
            return bytes((bool(value),))
    if isinstance(value, bool):
        return b"t" if value else b"f"
    return str(value).encode()
