"""The HTTP client against slow, missing and odd servers; declarations that contradict."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

import sim
from storage.errors import BadRequest, ProtocolError
from storage.http.client import HttpError, call
from storage.http.schema import LSN
from storage.http.server import Api, Request

TENANT = "a" * 32


async def _bug(_request: Request) -> Any:
    try:
        raise KeyError("inner")
    except KeyError as error:
        raise ValueError("outer") from error


@pytest.mark.parametrize(
    ("answer", "error"),
    [
        (b"", ConnectionError),
        (b"garbage\r\n\r\n", ProtocolError),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nshort", ConnectionResetError),
        (
            b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 1\r\n\r\n{",
            ProtocolError,
        ),
        (b"HTTP/1.1 502 Bad\r\nContent-Length: 2\r\n\r\nno", HttpError),
    ],
)  # fmt: skip
def test_odd_servers_give_the_client_typed_errors(answer: bytes, error: type[Exception]) -> None:
    async def odd(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(answer)
        writer.close()

    async def main() -> None:
        server = await asyncio.start_server(odd, "odd", 80)
        with pytest.raises(error):
            await call("GET", "odd", 80, "/v1/status")
        server.close()

    sim.run(main)


def test_routes_that_contradict_themselves_are_refused_at_declaration() -> None:
    api = Api("x")
    api.add("GET", "/a", _bug, summary="a")
    with pytest.raises(ValueError, match="GET /a is declared twice"):
        api.add("GET", "/a", _bug, summary="again")
    with pytest.raises(ValueError, match="does not start with /"):
        api.add("GET", "a", _bug, summary="a")
    with pytest.raises(ValueError, match="GET /b query: 'lsn' is no schema keyword"):
        api.add("GET", "/b", _bug, summary="b", query={"lsn": LSN})


def test_missing_names_are_told() -> None:
    request = Request({"tenant_id": TENANT}, {}, None)
    assert request.tenant_id() == TENANT
    with pytest.raises(BadRequest, match="'lsn' is missing"):
        request.lsn()
