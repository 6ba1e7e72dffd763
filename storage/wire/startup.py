"""The start-up packet and its ``options`` parameter.

Source: PostgreSQL documentation, "StartupMessage", "SSLRequest", "CancelRequest";
``postinit.c`` (``pg_split_opts``) and ``postgres.c`` for the options' grammar.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping

from storage.errors import ProtocolError
from storage.wire import messages as m
from storage.wire.decoding import Cursor

_SSL_CODE = (1234 << 16) | 5679
_GSS_CODE = (1234 << 16) | 5680
_CANCEL_CODE = (1234 << 16) | 5678

StartupMessage = m.Startup | m.SslRequest | m.GssEncRequest | m.CancelRequest


def encode_startup(message: StartupMessage) -> bytes:
    """The whole packet: length, code, body; it has no type byte."""
    match message:
        case m.Startup(parameters, protocol):
            pairs = b"".join(f"{name}\0{value}\0".encode() for name, value in parameters.items())
            body = struct.pack("!I", protocol) + pairs + b"\0"
        case m.SslRequest():
            body = struct.pack("!I", _SSL_CODE)
        case m.GssEncRequest():
            body = struct.pack("!I", _GSS_CODE)
        case m.CancelRequest(process_id, secret):
            body = struct.pack("!Ii", _CANCEL_CODE, process_id) + secret
    return struct.pack("!i", len(body) + 4) + body


def decode_startup(body: bytes) -> StartupMessage:
    """The packet without its length; ``ProtocolError`` for what is no start-up packet."""
    cursor = Cursor(body, "start-up packet")
    code = cursor.uint32()
    if code == _SSL_CODE:
        return m.SslRequest()
    if code == _GSS_CODE:
        return m.GssEncRequest()
    if code == _CANCEL_CODE:
        return m.CancelRequest(cursor.int32(), cursor.rest())
    if code >> 16 != 3:
        raise ProtocolError(
            f"unsupported frontend protocol {code >> 16}.{code & 0xFFFF}: this server speaks 3.0"
        )
    return m.Startup(_parameters(cursor), code)


def _parameters(cursor: Cursor) -> dict[str, str]:
    parameters = {}
    while name := cursor.text():
        parameters[name] = cursor.text()
    cursor.end()
    return parameters


def split_options(options: str) -> list[str]:
    """Split at white space; a backslash takes the next character as it is (pg_split_opts)."""
    words: list[str] = []
    word: str | None = None
    escaped = False
    for character in options:
        if escaped:
            word, escaped = (word or "") + character, False
        elif character == "\\":
            word, escaped = word or "", True
        elif character.isspace():
            if word is not None:
                words.append(word)
            word = None
        else:
            word = (word or "") + character
    if word is not None:
        words.append(word)
    return words


def parse_options(options: str) -> dict[str, str]:
    """Settings of ``-c name=value``, ``-cname=value`` and ``--name=value``.

    Dashes in a ``--`` name mean underscores, as in ``ParseLongOption``. Raises ``ProtocolError``
    naming the word that is none of these.
    """
    settings: dict[str, str] = {}
    words = iter(split_options(options))
    for word in words:
        if word == "-c":
            assignment = next(words, "")
        elif word.startswith(("--", "-c")):
            assignment = word[2:]
        else:
            raise ProtocolError(f"options: {word!r} is not understood; write -c name=value")
        name, equals, value = assignment.partition("=")
        if not (name and equals):
            raise ProtocolError(f"options: {assignment!r} is no setting; write -c name=value")
        settings[name.replace("-", "_")] = value
    return settings


def format_options(settings: Mapping[str, str]) -> str:
    """The ``options`` text that :func:`parse_options` reads back as ``settings``."""
    return " ".join(f"-c {_escaped(name)}={_escaped(value)}" for name, value in settings.items())


def _escaped(text: str) -> str:
    return "".join(f"\\{c}" if c.isspace() or c == "\\" else c for c in text)
