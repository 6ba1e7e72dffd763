"""Bytes of every message to send: one encoder per message, found by table.

A body is what follows the type byte and the length; nothing here keeps state.
Source: PostgreSQL documentation, "Message Formats".
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Sequence
from typing import Any

from storage.wire import messages as m

_INT16 = struct.Struct("!h")
_INT32 = struct.Struct("!i")
_COLUMN = struct.Struct("!IhIhih")


def _text(text: str) -> bytes:
    raw = text.encode()
    assert b"\0" not in raw, f"text of a message cannot hold a zero byte: {text!r}"
    return raw + b"\0"


def _int16s(values: Sequence[int]) -> bytes:
    return struct.pack(f"!h{len(values)}h", len(values), *values)


def _values(values: Sequence[bytes | None]) -> bytes:
    parts = [_INT16.pack(len(values))]
    for value in values:
        if value is None:
            parts.append(b"\xff\xff\xff\xff")
        else:
            parts.append(_INT32.pack(len(value)))
            parts.append(value)
    return b"".join(parts)


def _nothing(_message: Any) -> bytes:
    return b""


def _bind(message: m.Bind) -> bytes:
    return b"".join(
        (
            _text(message.portal),
            _text(message.statement),
            _int16s(message.formats),
            _values(message.values),
            _int16s(message.result_formats),
        )
    )


def _parse(message: m.Parse) -> bytes:
    oids = message.type_oids
    return (
        _text(message.statement)
        + _text(message.sql)
        + struct.pack(f"!h{len(oids)}I", len(oids), *oids)
    )


def _target(message: m.Describe | m.Close) -> bytes:
    return message.target.value.encode() + _text(message.name)


def _row_description(message: m.RowDescription) -> bytes:
    parts = [_INT16.pack(len(message.columns))]
    for column in message.columns:
        length = m.TYPE_LENGTHS.get(column.type_oid, -1)
        parts.append(_text(column.name))
        parts.append(_COLUMN.pack(0, 0, column.type_oid, length, -1, int(column.binary)))
    return b"".join(parts)


def _report(message: m.ErrorResponse | m.NoticeResponse) -> bytes:
    fields = [
        ("S", message.severity),
        ("V", message.severity),
        ("C", message.sqlstate),
        ("M", message.message),
        ("D", message.detail),
        ("H", message.hint),
    ]
    # A zero byte would end the field early; messages quote what clients sent.
    return (
        b"".join(
            code.encode() + _text(value.replace("\0", "\\0"))
            for code, value in fields
            if value is not None
        )
        + b"\0"
    )


def _copy_response(message: m.CopyInResponse | m.CopyOutResponse | m.CopyBothResponse) -> bytes:
    return bytes((message.binary,)) + _int16s([int(message.binary)] * message.columns)


def _negotiate(message: m.NegotiateProtocolVersion) -> bytes:
    return struct.pack("!ii", message.minor, len(message.unknown_options)) + b"".join(
        _text(name) for name in message.unknown_options
    )


Encoder = tuple[bytes, Callable[[Any], bytes]]

ENCODERS: dict[type, Encoder] = {
    m.Password: (b"p", lambda x: x.data),
    m.Query: (b"Q", lambda x: _text(x.sql)),
    m.Parse: (b"P", _parse),
    m.Bind: (b"B", _bind),
    m.Describe: (b"D", _target),
    m.Execute: (b"E", lambda x: _text(x.portal) + _INT32.pack(x.rows_max)),
    m.Close: (b"C", _target),
    m.Flush: (b"H", _nothing),
    m.Sync: (b"S", _nothing),
    m.CopyFail: (b"f", lambda x: _text(x.reason)),
    m.Terminate: (b"X", _nothing),
    m.CopyData: (b"d", lambda x: x.data),
    m.CopyDone: (b"c", _nothing),
    m.AuthenticationOk: (b"R", lambda _: _INT32.pack(0)),
    m.AuthenticationRequest: (b"R", lambda x: _INT32.pack(x.code) + x.data),
    m.NegotiateProtocolVersion: (b"v", _negotiate),
    m.ParameterStatus: (b"S", lambda x: _text(x.name) + _text(x.value)),
    m.BackendKeyData: (b"K", lambda x: _INT32.pack(x.process_id) + x.secret),
    m.ReadyForQuery: (b"Z", lambda x: x.status.value.encode()),
    m.RowDescription: (b"T", _row_description),
    m.DataRow: (b"D", lambda x: _values(x.values)),
    m.CommandComplete: (b"C", lambda x: _text(x.tag)),
    m.EmptyQuery: (b"I", _nothing),
    m.ErrorResponse: (b"E", _report),
    m.NoticeResponse: (b"N", _report),
    m.Notification: (
        b"A",
        lambda x: _INT32.pack(x.process_id) + _text(x.channel) + _text(x.payload),
    ),
    m.ParseComplete: (b"1", _nothing),
    m.BindComplete: (b"2", _nothing),
    m.CloseComplete: (b"3", _nothing),
    m.NoData: (b"n", _nothing),
    m.ParameterDescription: (
        b"t",
        lambda x: struct.pack(f"!h{len(x.type_oids)}I", len(x.type_oids), *x.type_oids),
    ),
    m.PortalSuspended: (b"s", _nothing),
    m.CopyInResponse: (b"G", _copy_response),
    m.CopyOutResponse: (b"H", _copy_response),
    m.CopyBothResponse: (b"W", _copy_response),
}
"""Type byte and body of every message that has a type byte."""


def encode(message: m.Message) -> bytes:
    """The whole message: type byte, length, body."""
    kind, body_of = ENCODERS[type(message)]
    body = body_of(message)
    return b"".join((kind, _INT32.pack(len(body) + 4), body))
