"""Endpoints: how a scenario talks to a compute, and what each way of failing means.

An :class:`Endpoint` runs one operation at a time per call and says of every one that fails whether
it may have had an effect: ``Refused`` (certainly none) or ``OutcomeUnknown`` (nobody can tell).
:class:`Client` is what scenarios and loads use: it records each operation in the history.
:mod:`harness.kv_endpoint` speaks to the deterministic computes, ``real`` adds PostgreSQL.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

from harness.history import Conserved, History, Kind, Outcome, Source
from storage.errors import SeawallError
from storage.lsn import Lsn


class Refused(SeawallError):
    """The operation had no effect and never will: refused, or never sent. ``sqlstate`` is empty
    when no server said so."""

    def __init__(self, message: str, *, sqlstate: str = "") -> None:
        super().__init__(message)
        self.sqlstate = sqlstate


class OutcomeUnknown(SeawallError):
    """The connection was lost, or time ran out, after the operation was sent."""


class Answer(NamedTuple):
    """What an operation returned (see :class:`harness.history.Kind`) and at which LSN it holds."""

    value: Any
    lsn: Lsn | None


class Endpoint(Protocol):
    """A running compute. Safe for concurrent use; a connection that failed is never used again."""

    async def run(self, kind: Kind, args: tuple[Any, ...]) -> Answer:
        """Do one operation. Raises ``Refused`` or ``OutcomeUnknown``, nothing else; a read that
        fails is always ``Refused``, for it has no effect."""
        ...

    async def sql(self, statement: str) -> list[tuple[str | None, ...]]:
        """Run SQL text; ``HarnessError`` for a compute that knows none."""
        ...

    async def status(self) -> Mapping[str, Any]:
        """What the compute says of itself (``phase``, ``term``, ``commit_lsn`` …)."""
        ...

    async def move(self, pageserver: str) -> None:
        """Have pages come from another pageserver (``host:port``) from now on."""
        ...

    async def disconnect(self) -> None:
        """Close every connection; the next operation connects anew."""
        ...


@dataclass(frozen=True)
class Recording:
    """Where a client's operations are written down, and the clock that dates them."""

    history: History
    now_s: Callable[[], float]
    timeline: str = ""
    pinned: bool = False


class Client:
    """Operations on an endpoint under the name of one process, each recorded.

    Writes return the commit LSN (``None`` if the compute does not tell). Every method raises what
    :meth:`Endpoint.run` raises.
    """

    def __init__(self, endpoint: Endpoint, recording: Recording, process: str) -> None:
        self.endpoint = endpoint
        self._recording = recording
        self._history = recording.history
        self.now_s = recording.now_s
        self._source = Source(process, recording.timeline, recording.pinned)

    @property
    def process(self) -> str:
        """The name operations are recorded under."""
        return self._source.process

    @property
    def recorded_timeline(self) -> str:
        """The timeline operations are recorded under."""
        return self._source.timeline

    def conserve(self, accounts: range, total: int, lsn: Lsn | None) -> None:
        """Record that from ``lsn``, or now, on these keys are numbers that add up to ``total``."""
        opened = Conserved(accounts.start, accounts.stop, total, self.now_s(), lsn)
        self._history.conserve(self._source.timeline, opened)

    def named(self, process: str) -> Client:
        """A client of the same endpoint that records as another process."""
        return Client(self.endpoint, self._recording, process)

    async def put(self, key: int, value: str) -> Lsn | None:
        """Set a key."""
        return (await self.run(Kind.PUT, (key, value))).lsn

    async def delete(self, key: int) -> Lsn | None:
        """Remove a key; harmless if it is absent."""
        return (await self.run(Kind.DELETE, (key,))).lsn

    async def txn(self, changes: Mapping[int, str | None]) -> Lsn | None:
        """Set, or with ``None`` remove, several keys at once: all or nothing."""
        return (await self.run(Kind.TXN, (dict(changes),))).lsn

    async def transact(self, steps: Sequence[tuple[Any, ...]]) -> list[str | None]:
        """Run steps (see :class:`harness.history.Kind`) as one transaction; the value of each
        step's key after the step."""
        values: list[str | None] = (await self.run(Kind.TRANSACT, (tuple(steps),))).value
        return values

    async def get(self, key: int) -> str | None:
        """Value of a key, ``None`` if it is absent."""
        value: str | None = (await self.run(Kind.GET, (key,))).value
        return value

    async def scan(self, first: int, end: int) -> list[tuple[int, str]]:
        """Every key in ``first`` … ``end - 1`` with its value, at one instant."""
        rows: Sequence[tuple[int, str]] = (await self.run(Kind.SCAN, (first, end))).value
        return list(rows)

    async def sum(self) -> int:
        """Sum of every value, all of which must be integers, at one instant."""
        return int((await self.run(Kind.SUM, ())).value)

    async def run(self, kind: Kind, args: tuple[Any, ...]) -> Answer:
        """One operation, recorded from its invocation to its outcome."""
        history = self._history
        index = history.invoke(self._source, kind, args, self.now_s())
        try:
            answer = await self.endpoint.run(kind, args)
        except Refused as error:
            history.fail(index, self.now_s(), Outcome.FAILED, f"{error.sqlstate}: {error}")
            raise
        except BaseException as error:
            history.fail(index, self.now_s(), Outcome.UNKNOWN, str(error) or type(error).__name__)
            raise
        history.succeed(index, self.now_s(), answer.value, answer.lsn)
        return answer
