"""The endpoint of the deterministic computes (roles ``walgen`` and ``readonly``)."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping
from typing import Any

from harness.endpoint import Answer, OutcomeUnknown, Refused
from harness.errors import HarnessError
from harness.history import WRITES, Kind
from storage.errors import ProtocolError
from storage.http.client import call
from storage.lsn import Lsn
from storage.wire.client import Client as WireClient
from storage.wire.client import ConnectOptions, Result, ServerError, connect

LIBPQ_PORT = 5432
HTTP_PORT = 5480
OPERATION_TIMEOUT_S = 60.0
CONNECT_TIMEOUT_S = 5.0

_REFUSAL_CLASSES = frozenset({"0A", "22", "23", "25", "42", "53", "54"})
_REFUSALS = frozenset({"40001", "40P01", "57P03"})


def is_refusal(sqlstate: str) -> bool:
    """Whether an error with this SQLSTATE proves that the statement had no effect.

    Everything else might follow an effect: 40003 says so itself, 57P01 (shutting down) and class
    08 (connection) and XX (internal) leave it open.
    """
    return sqlstate[:2] in _REFUSAL_CLASSES or sqlstate in _REFUSALS


def statement_of(kind: Kind, args: tuple[Any, ...]) -> str:
    """The command text of an operation (ARCHITECTURE.md, "libpq commands")."""
    if kind is Kind.PUT:
        value = args[1].replace("'", "''")
        return f"put {args[0]} '{value}'"
    if kind is Kind.TXN:
        return f"txn {json.dumps(args[0], ensure_ascii=False)}"
    if kind is Kind.TRANSACT:
        return f"transact {json.dumps(args[0], ensure_ascii=False)}"
    return " ".join((kind, *map(str, args)))


def answer_of(kind: Kind, result: Result) -> Answer:
    """Value and LSN of a server's answer: in the tag of one with rows, else the LSN is the row."""
    if kind in WRITES and kind is not Kind.TRANSACT:
        return Answer(None, Lsn.parse(_text(result, 0, 0)))
    lsn = Lsn.parse(result.tag.rsplit(" ", 1)[-1])
    if kind is Kind.GET:
        return Answer(result.rows[0][0] if result.rows else None, lsn)
    if kind is Kind.SUM:
        return Answer(int(_text(result, 0, 0)), lsn)
    if kind is Kind.TRANSACT:
        return Answer([row[1] for row in result.rows], lsn)
    return Answer(
        [(int(_text(result, row, 0)), _text(result, row, 1)) for row in range(len(result.rows))],
        lsn,
    )


def _text(result: Result, row: int, column: int) -> str:
    value = result.rows[row][column]
    if value is None:
        raise ProtocolError(f"answer {result.tag!r} has NULL in row {row}, column {column}")
    return value


class KvEndpoint:
    """An :class:`harness.endpoint.Endpoint` over pooled libpq connections to ``host``.

    ``timeout_s`` bounds one operation (virtual seconds in sim); an attempt to connect to a machine
    that is silent is given up sooner, because nothing was asked yet.
    """

    def __init__(
        self,
        host: str,
        port: int = LIBPQ_PORT,
        *,
        http_port: int = HTTP_PORT,
        timeout_s: float = OPERATION_TIMEOUT_S,
    ) -> None:
        self._host = host
        self._port = port
        self._http_port = http_port
        self._timeout_s = timeout_s
        self._idle: list[WireClient] = []
        self._generation = 0

    async def run(self, kind: Kind, args: tuple[Any, ...]) -> Answer:
        """See :meth:`harness.endpoint.Endpoint.run`."""
        statement = statement_of(kind, args)
        generation = self._generation
        client = await self._connection()
        is_usable = False
        try:
            result = await client.query(statement)
            is_usable = True
            return answer_of(kind, result)
        except ServerError as error:
            is_usable = error.severity == "ERROR"
            if kind not in WRITES or is_refusal(error.sqlstate):
                raise Refused(str(error), sqlstate=error.sqlstate) from error
            raise OutcomeUnknown(f"{statement[:60]!r}: {error}") from error
        except (OSError, EOFError, ProtocolError) as error:
            failure = f"{self._host}: {statement[:60]!r}: {str(error) or type(error).__name__}"
            raise (OutcomeUnknown if kind in WRITES else Refused)(failure) from error
        finally:
            if is_usable and generation == self._generation:
                self._idle.append(client)
            else:
                await client.close()

    async def _connection(self) -> WireClient:
        while self._idle:
            client = self._idle.pop()
            if not client.closed:
                return client
            await client.close()
        options = ConnectOptions(user="seawall", database="kv", timeout_s=self._timeout_s)
        try:
            async with asyncio.timeout(CONNECT_TIMEOUT_S):
                return await connect(self._host, self._port, options=options)
        except ServerError as error:
            raise Refused(f"{self._host} refuses: {error}", sqlstate=error.sqlstate) from error
        except (OSError, EOFError, ProtocolError) as error:
            why = str(error) or type(error).__name__
            raise Refused(f"cannot connect to {self._host}:{self._port}: {why}") from error

    async def sql(self, statement: str) -> list[tuple[str | None, ...]]:
        """Always refuses: the deterministic computes know no SQL."""
        raise HarnessError(
            f"compute {self._host!r} runs no SQL ({statement[:40]!r}); use put, get, delete, scan, "
            "sum, txn, or run the scenario with --compute postgres"
        )

    async def status(self) -> Mapping[str, Any]:
        """See :meth:`harness.endpoint.Endpoint.status`."""
        status: Mapping[str, Any] = await call(
            "GET", self._host, self._http_port, "/v1/status", timeout_s=self._timeout_s
        )
        return status

    async def move(self, pageserver: str) -> None:
        """See :meth:`harness.endpoint.Endpoint.move`."""
        await call(
            "PUT",
            self._host,
            self._http_port,
            "/v1/pageserver",
            {"pageserver": pageserver},
            timeout_s=self._timeout_s,
        )

    async def disconnect(self) -> None:
        """See :meth:`harness.endpoint.Endpoint.disconnect`; a running operation finishes first."""
        self._generation += 1
        idle, self._idle = self._idle, []
        for client in idle:
            await client.close()
