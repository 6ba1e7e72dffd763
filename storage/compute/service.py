"""What clients see of a deterministic compute: the libpq commands and the HTTP API.

Writes answer with a row (commit_lsn); reads end their command tag with the LSN at which the answer
holds (``GET 0/16B3740``).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Protocol

from storage.compute.commands import Command, Get, Scan, Status, Sum, Write, parse
from storage.compute.engine import ReadResult
from storage.errors import RequestError
from storage.http.api import Api, Request
from storage.http.schema import TEXT, object_of
from storage.lsn import Lsn
from storage.wire.session import Session

LIBPQ_PORT = 5432
HTTP_PORT = 5480


class Tables(Protocol):
    """What a compute does with its data."""

    async def write(self, changes: Mapping[int, bytes | None]) -> Lsn:
        """Apply a transaction and return its commit LSN."""
        ...

    async def get(self, key: int) -> ReadResult:
        """The row of a key, if there is one."""
        ...

    async def scan(self, first: int, end: int) -> ReadResult:
        """Rows of the keys ``first`` … ``end - 1``."""
        ...

    async def sum(self) -> tuple[int, Lsn]:
        """Sum of every value as an integer."""
        ...


class ReadOnly(RequestError):
    """This compute changes nothing."""

    kind = "read_only"
    http_status = 405
    sqlstate = "25006"


class KvService:
    """Runs commands of libpq sessions on ``tables``; ``status`` describes the compute."""

    def __init__(self, tables: Tables, status: Callable[[], Mapping[str, Any]]) -> None:
        self._tables = tables
        self._status = status

    async def query(self, session: Session, text: str) -> None:
        """Handle one command of a session."""
        if text.strip(" \n\t;"):
            await self._run(session, parse(text))
        else:
            await session.complete("")

    async def _run(self, session: Session, command: Command) -> None:
        match command:
            case Write(changes, tag):
                lsn = await self._tables.write(changes)
                await session.rows(("commit_lsn",), ((str(lsn),),), f"{tag} {len(changes)}")
            case Get(key):
                result = await self._tables.get(key)
                values = [(row.value,) for row in result.rows]
                await session.rows(("value",), values, f"GET {result.lsn}")
            case Scan(first, end):
                result = await self._tables.scan(first, end)
                await session.rows(("key", "value"), result.rows, f"SCAN {result.lsn}")
            case Sum():
                value, lsn = await self._tables.sum()
                await session.rows(("sum",), ((value,),), f"SUM {lsn}")
            case Status():
                rows = [(name, str(value)) for name, value in self._status().items()]
                await session.rows(("name", "value"), rows, "STATUS")


def compute_api(
    title: str, status: Callable[[], Mapping[str, Any]], move: Callable[[str], object]
) -> Api:
    """The HTTP API of a compute: its status, and the pageserver it reads from."""
    api = Api(title)

    async def get_status(request: Request) -> Mapping[str, Any]:
        return status()

    async def put_pageserver(request: Request) -> Mapping[str, Any]:
        move(request.body["pageserver"])
        return status()

    api.add("GET", "/status", get_status, summary="Phase, term and LSNs of this compute")
    api.add(
        "PUT",
        "/pageserver",
        put_pageserver,
        summary="Read pages from another pageserver from now on",
        body=object_of({"pageserver": TEXT}),
    )
    return api
