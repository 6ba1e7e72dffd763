"""SQL on a PostgreSQL endpoint through psycopg2, with its traps: when is a commit a commit?

A statement that ends with the *cancelled wait* warning has committed locally and perhaps nowhere
else: its outcome is unknown, though the server says success. So is that of a statement whose
connection breaks. Commit LSNs are not told: ``pg_current_wal_insert_lsn()`` asked afterwards can
order two commits the wrong way round.
"""

from __future__ import annotations

import asyncio
import logging
import select
from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import psycopg2
import psycopg2.extensions

from harness.endpoint import Answer, OutcomeUnknown, Refused
from harness.history import WRITES, Kind
from harness.kv_endpoint import is_refusal
from harness.nodes import COMPUTE_HTTP_PORT, COMPUTE_LIBPQ_PORT
from real.postgres.template import SUPERUSER
from storage.http.client import call

OPERATION_S_MAX = 60.0
CANCELLED_WAIT = "might not have been replicated"
"""Part of the warning's detail (``syncrep.c``); messages are in English by ``lc_messages``."""

_PUT = "insert into kv values (%s, %s) on conflict (key) do update set value = excluded.value"
_DELETE = "delete from kv where key = %s"
_GET = "select value from kv where key = %s"
_READS = {
    Kind.GET: _GET,
    Kind.SCAN: "select key, value from kv where key >= %s and key < %s order by key",
    Kind.SUM: "select coalesce(sum(value::numeric), 0) from kv",
}
_STEPS = {
    "read": _GET,
    "append": (
        "insert into kv values (%s, %s) on conflict (key) "
        "do update set value = kv.value || ',' || excluded.value returning value"
    ),
    "add": (
        "insert into kv values (%s, (%s)::text) on conflict (key) "
        "do update set value = (kv.value::numeric + excluded.value::numeric)::text returning value"
    ),
}
_SERIALIZABLE = ("set transaction isolation level serializable", ())
"""Reads of several rows are serializable with the steps of transactions."""

Statement = tuple[str, tuple[Any, ...]]
"""SQL and its parameters."""

Connection = Any
"""psycopg2 has no types."""

logger = logging.getLogger(__name__)


class Addresses(Protocol):
    """Finds the loopback address of a node's service."""

    def host_port(self, name: str, port: int) -> tuple[str, int]:
        """See ``harness.backend.Backend``."""
        ...


def statements_of(kind: Kind, args: tuple[Any, ...]) -> list[Statement]:
    """SQL and parameters of an operation; several statements are one transaction."""
    if kind is Kind.PUT:
        return [(_PUT, args)]
    if kind is Kind.DELETE:
        return [(_DELETE, args)]
    if kind is Kind.TXN:
        # In order of key, so that two transactions never wait for each other in a circle.
        return [
            (_DELETE, (key,)) if value is None else (_PUT, (key, value))
            for key, value in sorted(args[0].items())
        ]
    read = (_READS[kind], args)
    return [read] if kind is Kind.GET else [_SERIALIZABLE, read]


def rounds_of(steps: Sequence[tuple[Any, ...]]) -> list[list[Statement]]:
    """Steps of a transaction as round trips: each answers before the next is sent."""
    rounds = [[(_STEPS[step[0]], step[1:])] for step in steps]
    begin: Statement = ("begin isolation level serializable", ())
    return [[begin, *rounds[0]], *rounds[1:], [("commit", ())]]


class PostgresEndpoint:
    """:class:`harness.endpoint.Endpoint` over pooled connections, asynchronous, without threads."""

    def __init__(self, addresses: Addresses, name: str, sidecar: str) -> None:
        self._addresses = addresses
        self._name = name
        self._sidecar = sidecar
        self._idle: list[Connection] = []
        self._generation = 0

    async def run(self, kind: Kind, args: tuple[Any, ...]) -> Answer:
        """See :meth:`harness.endpoint.Endpoint.run`."""
        if kind is Kind.TRANSACT:
            found = await self._execute(rounds_of(args[0]), write=True)
            return Answer([rows[0][0] if rows else None for rows in found[:-1]], None)
        (rows,) = await self._execute([statements_of(kind, args)], write=kind in WRITES)
        if kind is Kind.GET:
            return Answer(rows[0][0] if rows else None, None)
        if kind is Kind.SUM:
            return Answer(int(rows[0][0]), None)
        return Answer(rows if kind is Kind.SCAN else None, None)

    async def sql(self, statement: str) -> list[tuple[str | None, ...]]:
        """Run SQL text as one statement string; values as text. Errors as of a write."""
        (rows,) = await self._execute([[(statement.replace("%", "%%"), ())]], write=True)
        return [tuple(None if value is None else str(value) for value in row) for row in rows]

    async def status(self) -> Mapping[str, Any]:
        """What the sidecar says."""
        status: Mapping[str, Any] = await call(
            "GET", self._sidecar, COMPUTE_HTTP_PORT, "/v1/status", timeout_s=OPERATION_S_MAX
        )
        return status

    async def move(self, pageserver: str) -> None:
        """Have the sidecar name another pageserver to the safekeepers from now on.

        PostgreSQL itself holds a full copy of its data; it reads from the pageserver when it is
        next started.
        """
        await call(
            "PUT",
            self._sidecar,
            COMPUTE_HTTP_PORT,
            "/v1/pageserver",
            {"pageserver": pageserver},
            timeout_s=OPERATION_S_MAX,
        )

    async def disconnect(self) -> None:
        """See :meth:`harness.endpoint.Endpoint.disconnect`."""
        self._generation += 1
        idle, self._idle = self._idle, []
        for connection in idle:
            connection.close()

    async def _execute(
        self, rounds: Sequence[Sequence[Statement]], *, write: bool
    ) -> list[list[tuple[Any, ...]]]:
        """Rows of each round trip; what fails before the last one is sent had no effect."""
        generation = self._generation
        connection = await self._connection()
        keep = False
        found: list[list[tuple[Any, ...]]] = []
        try:
            async with asyncio.timeout(OPERATION_S_MAX):
                for statements in rounds:
                    found.append(await self._query(connection, statements))
            if write and any(CANCELLED_WAIT in notice for notice in connection.notices):
                raise OutcomeUnknown(f"{self._name}: committed locally, the quorum may lack it")
            keep = generation == self._generation
            return found
        except psycopg2.Error as error:
            sqlstate = error.pgcode or ""
            message = f"{self._name}: {rounds[len(found)][0][0][:60]!r}: {str(error).strip()}"
            if not write or len(found) < len(rounds) - 1 or is_refusal(sqlstate):
                is_idle = len(rounds) == 1 and not connection.closed and bool(sqlstate)
                keep = is_idle and generation == self._generation
                raise Refused(message, sqlstate=sqlstate) from error
            raise OutcomeUnknown(message) from error
        except TimeoutError as error:
            message = f"{self._name}: no answer in {OPERATION_S_MAX} s"
            may_be_done = write and len(found) == len(rounds) - 1
            raise (OutcomeUnknown if may_be_done else Refused)(message) from error
        finally:
            if keep:
                self._idle.append(connection)
            else:
                connection.close()

    async def _query(
        self, connection: Connection, statements: Sequence[Statement]
    ) -> list[tuple[Any, ...]]:
        del connection.notices[:]
        with connection.cursor() as cursor:
            # One string is one implicit transaction: all or nothing in a single round trip.
            text = b"; ".join(cursor.mogrify(sql, parameters) for sql, parameters in statements)
            cursor.execute(text)
            await _wait(connection)
            return list(cursor.fetchall()) if cursor.description is not None else []

    async def _connection(self) -> Connection:
        while self._idle:
            connection = self._idle.pop()
            if not _has_ended(connection):
                return connection
            connection.close()
        host, port = self._addresses.host_port(self._name, COMPUTE_LIBPQ_PORT)
        connection = None
        try:
            async with asyncio.timeout(OPERATION_S_MAX):
                connection = psycopg2.connect(
                    host=host, port=port, user=SUPERUSER, dbname=SUPERUSER, async_=True
                )
                await _wait(connection)
            return connection
        except (psycopg2.Error, TimeoutError) as error:
            if connection is not None:
                connection.close()
            why = str(error).strip() or type(error).__name__
            raise Refused(f"cannot connect to {self._name}: {why}") from error


def _has_ended(connection: Connection) -> bool:
    """Whether an idle connection was reset or closed from the other side.

    An idle server says nothing but why it ends, so anything to read is an end.
    """
    if connection.closed:
        return True
    readable, _, _ = select.select([connection.fileno()], [], [], 0)
    return bool(readable)


async def _wait(connection: Connection) -> None:
    """Let the loop drive an asynchronous psycopg2 connection until its call is done."""
    loop = asyncio.get_running_loop()
    while (state := connection.poll()) != psycopg2.extensions.POLL_OK:
        descriptor = connection.fileno()
        ready: asyncio.Future[None] = loop.create_future()
        reading = state == psycopg2.extensions.POLL_READ
        watch = loop.add_reader if reading else loop.add_writer
        unwatch = loop.remove_reader if reading else loop.remove_writer
        watch(descriptor, _resolve, ready)
        try:
            await ready
        finally:
            unwatch(descriptor)


def _resolve(ready: asyncio.Future[None]) -> None:
    if not ready.done():
        ready.set_result(None)
