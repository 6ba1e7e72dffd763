"""Calls one operation of a node's HTTP API; h11 over asyncio streams, one connection per call."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import h11

from storage.errors import ProtocolError, SeawallError
from storage.http.json_text import dump

ANSWER_BYTES_MAX = 64 << 20
"""Largest answer accepted."""


class HttpError(SeawallError):
    """The server refused or failed; ``kind`` and ``trace_id`` are what it said."""

    def __init__(self, status: int, kind: str, msg: str, trace_id: str) -> None:
        super().__init__(f"HTTP {status} {kind}: {msg} [{trace_id}]")
        self.status = status
        self.kind = kind
        self.msg = msg
        self.trace_id = trace_id


async def call(  # noqa: PLR0913 - an address and a request; every one of them is plain
    method: str, host: str, port: int, path: str, body: Any = None, *, timeout_s: float = 10.0
) -> Any:
    """Send a request and return the parsed JSON (or text) of a 2xx answer.

    ``path`` includes ``/v1`` and the query. Raises ``HttpError`` for other statuses,
    ``ConnectionError`` or ``TimeoutError`` for the network, ``ProtocolError`` for no HTTP.
    """
    async with asyncio.timeout(timeout_s):
        try:
            reader, writer = await asyncio.open_connection(host, port)
        except ConnectionError:
            raise
        except OSError as error:
            raise ConnectionError(f"cannot reach {host}:{port}: {error}") from error
        try:
            connection = h11.Connection(h11.CLIENT)
            writer.write(_request_bytes(connection, method, f"{host}:{port}", path, body))
            await writer.drain()
            status, content_type, data = await _read_answer(connection, reader)
        finally:
            writer.close()
    return _result(status, content_type, data)


def _request_bytes(
    connection: h11.Connection, method: str, authority: str, path: str, body: Any
) -> bytes:
    data = b"" if body is None else dump(body)
    headers = [("Host", authority), ("Connection", "close"), ("Content-Length", str(len(data)))]
    if data:
        headers.append(("Content-Type", "application/json"))
    parts = [connection.send(h11.Request(method=method, target=path, headers=headers))]
    if data:
        parts.append(connection.send(h11.Data(data)))
    parts.append(connection.send(h11.EndOfMessage()))
    return b"".join(part for part in parts if part)


async def _read_answer(
    connection: h11.Connection, reader: asyncio.StreamReader
) -> tuple[int, str, bytes]:
    status, content_type = 0, ""
    chunks: list[bytes] = []
    size = 0
    while True:
        try:
            event = connection.next_event()
        except h11.RemoteProtocolError as error:
            if connection.trailing_data[1]:
                raise ConnectionResetError(
                    "the server closed in the middle of its answer"
                ) from error
            raise ProtocolError(f"not an HTTP answer: {error}") from error
        if event is h11.NEED_DATA:
            data = await reader.read(65536)
            connection.receive_data(data)
        elif isinstance(event, h11.Response):
            status = event.status_code
            content_type = dict(event.headers).get(b"content-type", b"").decode("latin-1")
        elif isinstance(event, h11.Data):
            chunks.append(bytes(event.data))
            size += len(event.data)
            if size > ANSWER_BYTES_MAX:
                raise ProtocolError(f"an answer of more than {ANSWER_BYTES_MAX} bytes")
        elif isinstance(event, h11.ConnectionClosed):
            raise ConnectionResetError("the server closed the connection without an answer")
        elif isinstance(event, h11.EndOfMessage):
            return status, content_type, b"".join(chunks)


def _result(status: int, content_type: str, data: bytes) -> Any:
    is_json = content_type.startswith("application/json")
    try:
        answer = json.loads(data) if is_json and data else data.decode()
    except ValueError as error:
        raise ProtocolError(f"the answer is not the JSON it says it is: {error}") from error
    if 200 <= status < 300:
        return answer
    if isinstance(answer, dict):
        raise HttpError(
            status,
            str(answer.get("kind", "")),
            str(answer.get("msg", "")),
            str(answer.get("trace_id", "")),
        )
    raise HttpError(status, "unknown", str(answer)[:200], "")
