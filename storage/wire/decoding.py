"""Messages out of received bytes: one decoder per message, found by its type byte.

Decoders raise ``ProtocolError`` naming what is wrong; nothing here keeps state.
Source: PostgreSQL documentation, "Message Formats".
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from typing import Any

from storage.errors import ProtocolError
from storage.wire import messages as m

_INT16 = struct.Struct("!h")
_INT32 = struct.Struct("!i")
_UINT32 = struct.Struct("!I")


class Cursor:
    """Reads a message body from its start to its end."""

    __slots__ = ("_body", "_offset", "_what")

    def __init__(self, body: bytes, what: str) -> None:
        self._body = body
        self._offset = 0
        self._what = what

    def _unpack(self, shape: struct.Struct) -> int:
        try:
            (value,) = shape.unpack_from(self._body, self._offset)
        except struct.error:
            raise self.malformed("is too short") from None
        self._offset += shape.size
        assert isinstance(value, int)
        return value

    def int16(self) -> int:
        """The next signed 16-bit number."""
        return self._unpack(_INT16)

    def int32(self) -> int:
        """The next signed 32-bit number."""
        return self._unpack(_INT32)

    def uint32(self) -> int:
        """The next unsigned 32-bit number (an OID)."""
        return self._unpack(_UINT32)

    def count16(self) -> int:
        """The next count of items; negative ones are malformed."""
        count = self.int16()
        if count < 0:
            raise self.malformed(f"counts {count} items")
        return count

    def text(self) -> str:
        """The next zero-terminated string."""
        end = self._body.find(b"\0", self._offset)
        if end < 0:
            raise self.malformed("has a string without its terminating zero")
        raw = self._body[self._offset : end]
        self._offset = end + 1
        try:
            return raw.decode()
        except UnicodeDecodeError as error:
            raise self.malformed(f"has text that is not UTF-8: {raw[:40]!r}") from error

    def take(self, length: int) -> bytes:
        """The next ``length`` bytes."""
        if not 0 <= length <= len(self._body) - self._offset:
            raise self.malformed(f"wants {length} bytes where fewer are left")
        self._offset += length
        return self._body[self._offset - length : self._offset]

    def value(self) -> bytes | None:
        """A length-prefixed value; length -1 is NULL."""
        length = self.int32()
        return None if length == -1 else self.take(length)

    def rest(self) -> bytes:
        """Everything that is left."""
        return self.take(len(self._body) - self._offset)

    def end(self) -> None:
        """Nothing may be left now."""
        left = len(self._body) - self._offset
        if left:
            raise self.malformed(f"has {left} bytes too many")

    def malformed(self, how: str) -> ProtocolError:
        """The error to raise for this body."""
        return ProtocolError(f"malformed message: {self._what} {how}")


def _read_parse(c: Cursor) -> m.Parse:
    return m.Parse(c.text(), c.text(), tuple(c.uint32() for _ in range(c.count16())))


def _read_bind(c: Cursor) -> m.Bind:
    portal, statement = c.text(), c.text()
    formats = tuple(c.int16() for _ in range(c.count16()))
    values = tuple(c.value() for _ in range(c.count16()))
    results = tuple(c.int16() for _ in range(c.count16()))
    return m.Bind(portal, statement, values, formats, results)


def _read_target(c: Cursor) -> m.Target:
    raw = c.take(1)
    try:
        return m.Target(raw.decode("latin-1"))
    except ValueError:
        raise c.malformed(f"names {raw!r} instead of S (statement) or P (portal)") from None


def _read_function_call(c: Cursor) -> m.FunctionCall:
    c.rest()
    return m.FunctionCall()


def _read_row_description(c: Cursor) -> m.RowDescription:
    columns = []
    for _ in range(c.count16()):
        name = c.text()
        c.take(6)
        oid = c.uint32()
        c.take(6)
        columns.append(m.Column(name, oid, c.int16() == 1))
    return m.RowDescription(tuple(columns))


def _read_fields(c: Cursor) -> dict[str, str]:
    fields = {}
    while (code := c.take(1)) != b"\0":
        fields[code.decode("latin-1")] = c.text()
    return fields


def _read_report(c: Cursor) -> tuple[m.Severity, str, str, str | None, str | None]:
    fields = _read_fields(c)
    # V is the severity that is never translated; servers before 9.6 send only S.
    word = fields.get("V", fields.get("S", "ERROR"))
    known = m.Severity.__members__.values()
    severity = m.Severity(word) if word in known else m.Severity.ERROR
    return (
        severity,
        fields.get("C", "XX000"),
        fields.get("M", ""),
        fields.get("D"),
        fields.get("H"),
    )


def _read_authentication(c: Cursor) -> m.AuthenticationOk | m.AuthenticationRequest:
    code = c.int32()
    return m.AuthenticationOk() if code == 0 else m.AuthenticationRequest(code, c.rest())


def _read_negotiate(c: Cursor) -> m.NegotiateProtocolVersion:
    minor, count = c.int32(), c.int32()
    return m.NegotiateProtocolVersion(minor, tuple(c.text() for _ in range(count)))


def _read_status(c: Cursor) -> m.ReadyForQuery:
    raw = c.take(1)
    try:
        return m.ReadyForQuery(m.TransactionStatus(raw.decode("latin-1")))
    except ValueError:
        raise c.malformed(f"has the unknown transaction status {raw!r}") from None


def _read_copy_format(c: Cursor) -> tuple[bool, int]:
    binary = c.take(1) == b"\1"
    columns = c.count16()
    c.take(2 * columns)
    return binary, columns


Decoder = Callable[[Cursor], Any]

FRONTEND: dict[int, tuple[str, Decoder]] = {
    ord("p"): ("Password", lambda c: m.Password(c.rest())),
    ord("Q"): ("Query", lambda c: m.Query(c.text())),
    ord("P"): ("Parse", _read_parse),
    ord("B"): ("Bind", _read_bind),
    ord("D"): ("Describe", lambda c: m.Describe(_read_target(c), c.text())),
    ord("E"): ("Execute", lambda c: m.Execute(c.text(), c.int32())),
    ord("C"): ("Close", lambda c: m.Close(_read_target(c), c.text())),
    ord("H"): ("Flush", lambda _: m.Flush()),
    ord("S"): ("Sync", lambda _: m.Sync()),
    ord("F"): ("FunctionCall", _read_function_call),
    ord("f"): ("CopyFail", lambda c: m.CopyFail(c.text())),
    ord("X"): ("Terminate", lambda _: m.Terminate()),
    ord("d"): ("CopyData", lambda c: m.CopyData(c.rest())),
    ord("c"): ("CopyDone", lambda _: m.CopyDone()),
}
"""What a client may send after start-up, by type byte."""

BACKEND: dict[int, tuple[str, Decoder]] = {
    ord("R"): ("Authentication", _read_authentication),
    ord("v"): ("NegotiateProtocolVersion", _read_negotiate),
    ord("S"): ("ParameterStatus", lambda c: m.ParameterStatus(c.text(), c.text())),
    ord("K"): ("BackendKeyData", lambda c: m.BackendKeyData(c.int32(), c.rest())),
    ord("Z"): ("ReadyForQuery", _read_status),
    ord("T"): ("RowDescription", _read_row_description),
    ord("D"): ("DataRow", lambda c: m.DataRow(tuple(c.value() for _ in range(c.count16())))),
    ord("C"): ("CommandComplete", lambda c: m.CommandComplete(c.text())),
    ord("I"): ("EmptyQuery", lambda _: m.EmptyQuery()),
    ord("E"): ("ErrorResponse", lambda c: m.ErrorResponse(*_read_report(c))),
    ord("N"): ("NoticeResponse", lambda c: m.NoticeResponse(*_read_report(c))),
    ord("A"): ("Notification", lambda c: m.Notification(c.int32(), c.text(), c.text())),
    ord("1"): ("ParseComplete", lambda _: m.ParseComplete()),
    ord("2"): ("BindComplete", lambda _: m.BindComplete()),
    ord("3"): ("CloseComplete", lambda _: m.CloseComplete()),
    ord("n"): ("NoData", lambda _: m.NoData()),
    ord("t"): (
        "ParameterDescription",
        lambda c: m.ParameterDescription(tuple(c.uint32() for _ in range(c.count16()))),
    ),
    ord("s"): ("PortalSuspended", lambda _: m.PortalSuspended()),
    ord("G"): ("CopyInResponse", lambda c: m.CopyInResponse(*_read_copy_format(c))),
    ord("H"): ("CopyOutResponse", lambda c: m.CopyOutResponse(*_read_copy_format(c))),
    ord("W"): ("CopyBothResponse", lambda c: m.CopyBothResponse(*_read_copy_format(c))),
    ord("d"): ("CopyData", lambda c: m.CopyData(c.rest())),
    ord("c"): ("CopyDone", lambda _: m.CopyDone()),
}
"""What a server may send, by type byte."""


def decode(table: dict[int, tuple[str, Decoder]], kind: int, body: bytes) -> m.Message:
    """The message with this type byte and body; ``ProtocolError`` if there is no such."""
    found = table.get(kind)
    if found is None:
        raise ProtocolError(f"unknown message type {bytes((kind,))!r}")
    name, read = found
    cursor = Cursor(body, name)
    message: m.Message = read(cursor)
    cursor.end()
    return message
