"""What clients see of a deterministic compute: the libpq commands and the HTTP API.

Writes answer with a row (commit_lsn); reads, and transactions that read, end their command tag with
the LSN at which the answer holds (``GET 0/16B3740``).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

from storage.compute.commands import Command, Get, Scan, Status, Sum, Transact, Write, parse
from storage.compute.engine import ReadResult
from storage.compute.transact import Executed, Step, rows_of
from storage.errors import RequestError
from storage.http.api import Api, Request
from storage.http.schema import TEXT, object_of
from storage.http.server import HttpServer
from storage.http.server import serve as serve_http
from storage.lsn import Lsn
from storage.tasks import TaskRegistry
from storage.wire.server import ServerOptions, WireServer, serve
from storage.wire.session import Session

LIBPQ_PORT = 5432
HTTP_PORT = 5480
CLOSE_WITHIN_S = 1.0
EMPTY = " \n\t;"


class Tables(Protocol):
    """What a compute does with its data."""

    async def write(self, changes: Mapping[int, bytes | None]) -> Lsn:
        """Apply a transaction and return its commit LSN."""
        ...

    async def transact(self, steps: Sequence[Step]) -> tuple[Executed, Lsn]:
        """Run steps as one transaction; what they saw and changed, and its commit LSN."""
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


WRITE_COLUMNS = ("commit_lsn",)
GET_COLUMNS = ("value",)
SCAN_COLUMNS = ("key", "value")
SUM_COLUMNS = ("sum",)
STATUS_COLUMNS = ("name", "value")


def describe(text: str) -> Sequence[str] | None:
    """Columns that a command will answer with, for a client that asks before it executes."""
    if not text.strip(EMPTY):
        return None
    match parse(text):
        case Write():
            return WRITE_COLUMNS
        case Get():
            return GET_COLUMNS
        case Scan() | Transact():
            return SCAN_COLUMNS
        case Sum():
            return SUM_COLUMNS
        case Status():
            return STATUS_COLUMNS


class KvService:
    """Runs commands of libpq sessions on ``tables``; ``status`` describes the compute."""

    def __init__(self, tables: Tables, status: Callable[[], Mapping[str, Any]]) -> None:
        self._tables = tables
        self._status = status

    async def query(self, session: Session, text: str) -> None:
        """Handle one command of a session."""
        if text.strip(EMPTY):
            await self._run(session, parse(text))
        else:
            await session.complete("")

    async def _run(self, session: Session, command: Command) -> None:
        match command:
            case Write(changes, tag):
                lsn = await self._tables.write(changes)
                await session.rows(WRITE_COLUMNS, ((str(lsn),),), f"{tag} {len(changes)}")
            case Transact(steps):
                executed, lsn = await self._tables.transact(steps)
                rows = rows_of(steps, executed.values)
                await session.rows(SCAN_COLUMNS, rows, f"TRANSACT {lsn}")
            case Get(key):
                result = await self._tables.get(key)
                values = [(row.value,) for row in result.rows]
                await session.rows(GET_COLUMNS, values, f"GET {result.lsn}")
            case Scan(first, end):
                result = await self._tables.scan(first, end)
                await session.rows(SCAN_COLUMNS, result.rows, f"SCAN {result.lsn}")
            case Sum():
                value, lsn = await self._tables.sum()
                await session.rows(SUM_COLUMNS, ((value,),), f"SUM {lsn}")
            case Status():
                told = [(name, str(value)) for name, value in self._status().items()]
                await session.rows(STATUS_COLUMNS, told, "STATUS")


class FrontEnds:
    """The servers of a compute: its API at once, its commands once it has something to serve."""

    def __init__(self, name: str, registry: TaskRegistry) -> None:
        self._name = name
        self._registry = registry
        self._http: HttpServer | None = None
        self._wire: WireServer | None = None

    @property
    def serving(self) -> bool:
        """Whether libpq clients are served."""
        return self._wire is not None

    async def open_api(self, api: Api) -> None:
        """Listen for HTTP requests."""
        self._http = await serve_http(api, self._name, HTTP_PORT, self._registry)

    async def open_commands(self, service: KvService) -> None:
        """Listen for libpq clients."""
        options = ServerOptions(describe=describe)
        self._wire = await serve(
            self._name, LIBPQ_PORT, service.query, self._registry, options=options
        )

    async def close(self) -> None:
        """End what was opened, commands first."""
        if self._wire is not None:
            await self._wire.close(within_s=CLOSE_WITHIN_S)
        if self._http is not None:
            await self._http.close()


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
