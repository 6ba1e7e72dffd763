"""Group commit: records go into the WAL in the order of calls, one hand-over per loop turn.

All records added during one turn of the loop leave as one run of bytes for the proposer. Who waits
for an LSN is woken when the quorum has it; once the log has failed (a higher term exists, or the
node stops) nobody is ever woken with success again.
"""

from __future__ import annotations

import asyncio
import heapq
from collections.abc import Callable
from typing import Protocol

from storage.errors import RequestError, SeawallError
from storage.lsn import Lsn
from storage.wal.record import RecordSpec
from storage.wal.writer import WalWriter


class Proposer(Protocol):
    """What the log needs of a walproposer."""

    @property
    def commit_lsn(self) -> Lsn:
        """What a quorum of safekeepers has on disk."""
        ...

    def append(self, begin_lsn: Lsn, data: bytes) -> None:
        """Propose WAL; runs are contiguous. ``SeawallError`` when it can never be committed."""
        ...

    def on_commit(self, callback: Callable[[Lsn], object]) -> object:
        """Call back whenever commit_lsn grew."""
        ...


class OutcomeUnknown(RequestError):
    """The change is in the log but nobody knows whether a quorum will have it."""

    kind = "outcome_unknown"
    http_status = 500
    sqlstate = "40003"


class CommitLog:
    """The end of the WAL as this compute writes it."""

    def __init__(self, writer: WalWriter, proposer: Proposer) -> None:
        self._writer = writer
        self._proposer = proposer
        self._loop = asyncio.get_running_loop()
        self._flush_scheduled = False
        self._failure: Exception | None = None
        self._waiters: list[tuple[int, int, asyncio.Future[None]]] = []
        self._waits = 0
        proposer.on_commit(self.advanced)

    @property
    def commit_lsn(self) -> Lsn:
        """Everything below is on disk at a quorum."""
        return self._proposer.commit_lsn

    @property
    def end_lsn(self) -> Lsn:
        """End of the last record added, committed or not."""
        return self._writer.position

    def add(self, record: RecordSpec) -> Lsn:
        """Put a record into the WAL; returns its end, which :meth:`committed` waits for."""
        if self._failure is not None:
            raise self._refusal()
        _, end_lsn = self._writer.append(record)
        if not self._flush_scheduled:
            self._flush_scheduled = True
            self._loop.call_soon(self._flush)
        return end_lsn

    async def committed(self, lsn: int) -> None:
        """Return once a quorum has everything below ``lsn``.

        Raises ``OutcomeUnknown`` when the log has failed, even if ``lsn`` was committed: a deposed
        compute does not acknowledge.
        """
        if self._failure is not None:
            raise self._refusal()
        if lsn <= self._proposer.commit_lsn:
            return
        assert lsn <= self.end_lsn, f"{Lsn(lsn)} is beyond the end {self.end_lsn} of the log"
        waiter: asyncio.Future[None] = self._loop.create_future()
        self._waits += 1
        heapq.heappush(self._waiters, (lsn, self._waits, waiter))
        await waiter

    def advanced(self, commit_lsn: Lsn) -> None:
        """Wake everyone whose LSN is committed by now."""
        if self._failure is not None:
            return
        waiters = self._waiters
        while waiters and waiters[0][0] <= commit_lsn:
            waiter = heapq.heappop(waiters)[2]
            if not waiter.done():
                waiter.set_result(None)

    def fail(self, reason: Exception) -> None:
        """End the log: nothing more is added or acknowledged; the first reason stays."""
        if self._failure is not None:
            return
        self._failure = reason
        waiters, self._waiters = self._waiters, []
        for _, _, waiter in sorted(waiters, key=lambda entry: entry[:2]):
            if not waiter.done():
                waiter.set_exception(self._refusal())

    def _refusal(self) -> OutcomeUnknown:
        assert self._failure is not None
        refusal = OutcomeUnknown(f"this compute does not acknowledge any more: {self._failure}")
        refusal.__cause__ = self._failure
        return refusal

    def _flush(self) -> None:
        self._flush_scheduled = False
        if self._failure is None:
            begin_lsn, data = self._writer.take()
            assert data, "a flush is scheduled only after a record was added"
            try:
                self._proposer.append(begin_lsn, data)
            except SeawallError as error:
                self.fail(error)
