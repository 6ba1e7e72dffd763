"""Stock ``pgbench`` against an endpoint, and the sums that its TPC-B-like transactions keep equal.

Source of the invariant: PostgreSQL documentation, pgbench, "What is the 'Transaction' Actually
Performed in pgbench?": one delta goes to an account, a teller, a branch and the history.
"""

from __future__ import annotations

import asyncio
import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from harness.errors import CheckFailed, HarnessError
from real.postgres.binaries import Binaries
from real.postgres.template import SUPERUSER

CHECKER = "pgbench_sums"
_DONE = re.compile(r"number of transactions actually processed: (\d+)")
_RATE = re.compile(r"^tps = ([\d.]+)", re.MULTILINE)
_SUMS = """
    select (select coalesce(sum(abalance), 0) from pgbench_accounts),
           (select coalesce(sum(tbalance), 0) from pgbench_tellers),
           (select coalesce(sum(bbalance), 0) from pgbench_branches),
           (select coalesce(sum(delta), 0) from pgbench_history),
           (select count(*) from pgbench_history)
"""


class Sql(Protocol):
    """Anything that runs SQL text, like an endpoint handle."""

    async def sql(self, statement: str) -> list[tuple[str | None, ...]]:
        """Rows as text."""
        ...


@dataclass(frozen=True, slots=True)
class PgbenchResult:
    """What one run acknowledged; ``tps`` as pgbench counts, without connecting."""

    transactions: int
    tps: float


class Pgbench:
    """Runs the program against a loopback address of a server."""

    def __init__(self, binaries: Binaries, address: tuple[str, int]) -> None:
        self._program = binaries.program("pgbench")
        self._address = address

    async def initialise(self, scale: int) -> None:
        """Create and fill the tables: ``scale`` × 100,000 accounts."""
        await self._run(["--initialize", "--quiet", "--scale", str(scale)])

    async def run(self, *, seconds: int, clients: int = 2) -> PgbenchResult:
        """Run transactions; ``HarnessError`` with pgbench's words when a client is aborted."""
        arguments = ["--time", str(seconds), "--client", str(clients), "--no-vacuum"]
        output = await self._run(arguments)
        done, rate = _DONE.search(output), _RATE.search(output)
        if done is None or rate is None:
            raise HarnessError(f"pgbench says {output!r}, which has no count of transactions")
        return PgbenchResult(int(done[1]), float(rate[1]))

    async def _run(self, arguments: Sequence[str]) -> str:
        host, port = self._address
        where = ["--host", host, "--port", str(port), "--username", SUPERUSER, SUPERUSER]
        child = await asyncio.create_subprocess_exec(
            self._program,
            *arguments,
            *where,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            env={**os.environ, "LC_ALL": "C"},
        )
        try:
            output, errors = await child.communicate()
        finally:
            if child.returncode is None:
                child.kill()
                await child.wait()
        if child.returncode != 0:
            text = errors.decode(errors="replace").strip()
            raise HarnessError(f"pgbench {' '.join(arguments)} failed: {text}")
        return output.decode()


async def check_sums(server: Sql, acknowledged: int) -> int:
    """All four sums are one, and no acknowledged transaction is missing; returns the history's
    length, which exceeds ``acknowledged`` by those whose answer was lost. ``CheckFailed``."""
    [(accounts, tellers, branches, deltas, count)] = await server.sql(_SUMS)
    sums = {"accounts": accounts, "tellers": tellers, "branches": branches, "history": deltas}
    if len(set(sums.values())) != 1:
        raise CheckFailed(f"the sums of pgbench differ: {sums}", checker=CHECKER)
    assert count is not None, "count(*) is never null"
    if int(count) < acknowledged:
        raise CheckFailed(
            f"pgbench_history has {count} rows, {acknowledged} transactions were acknowledged",
            checker=CHECKER,
        )
    return int(count)
