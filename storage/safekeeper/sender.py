"""START_REPLICATION: streams WAL to a pageserver, a recovering proposer or a stock client.

Ordinary readers see what is committed. A reader bound to a term is a proposer that recovers: it
sees all that is flushed, because just the uncommitted tail is what it must make committed, and
only as long as nobody got our vote for a higher term.
"""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Callable
from dataclasses import dataclass

from storage.errors import NotReady, ProtocolError
from storage.log import one_line
from storage.lsn import INVALID_LSN, Lsn
from storage.marks import Mark, reach
from storage.safekeeper.timeline import Timeline
from storage.tasks import TaskKind, TaskRegistry
from storage.wire.copying import CopyStream
from storage.wire.errors import CopyFailed
from storage.wire.replication import (
    HotStandbyFeedback,
    keepalive,
    parse_from_standby,
    xlog_data_header,
)

logger = logging.getLogger(__name__)

FEEDBACK_TYPE = b"z"
"""A pageserver's own positions as JSON, beside the standby status that stock clients send too."""


@dataclass(frozen=True, slots=True)
class StreamRequest:
    """What a reader asked for; ``term`` binds it (see above), ``name`` is its application name."""

    start_lsn: Lsn
    term: int | None
    name: str


class WalSender:
    """One reader's stream. ``remote_consistent_lsn`` is what this very reader told last.

    A reader that sends hot standby feedback reads pages where it has replayed to; without it
    (``hot_standby_feedback`` is off there) nobody keeps them for it.
    """

    def __init__(self, timeline: Timeline, request: StreamRequest, stream: CopyStream) -> None:
        self.request = request
        self.position = request.start_lsn
        self.is_pageserver = False
        self.remote_consistent_lsn = INVALID_LSN
        self._applied_lsn = INVALID_LSN
        self._is_standby = False
        self._timeline = timeline
        self._stream = stream
        self._bytes_max = timeline.options.send_bytes_max
        self._silence_max_s = timeline.options.silence_max_s
        self._beat_due = False
        self._reader_done = False
        self._failure: Exception | None = None
        self._deadline: asyncio.Timeout | None = None
        self._heard_at = asyncio.get_running_loop().time()
        bound = request.term is not None
        self._wakeups = timeline.flush_wakeups if bound else timeline.commit_wakeups
        self._subscription, self._progress = self._wakeups.subscribe()

    async def run(self, registry: TaskRegistry, now_us: Callable[[], int]) -> None:
        """Stream until the reader ends the copy, or nothing is left that it could need.

        ``now_us`` stamps messages (Postgres epoch). Raises ``ConnectionError``, ``NotReady``, and
        ``ProtocolError`` for a reader that is silent: it is not worth a word, nor a connection.
        """
        listener = registry.spawn(
            TaskKind.WAL_SENDER,
            f"feedback of {self.request.name}",
            self._listen(),
            tenant_id=self._timeline.id.tenant_id,
            timeline_id=self._timeline.id.timeline_id,
        )
        number = self._timeline.connections.add_reader(self)
        try:
            async with asyncio.timeout(None) as self._deadline:
                await self._send_always(now_us)
        except TimeoutError:
            raise ProtocolError(
                f"the reader has been silent for {self._silence_s():.1f} s"
            ) from None
        finally:
            self._deadline = None
            self._timeline.connections.remove_reader(number)
            self._wakeups.unsubscribe(self._subscription)
            listener.cancel()
            await asyncio.wait([listener])

    async def _send_always(self, now_us: Callable[[], int]) -> None:
        while not self._is_finished():
            self._progress.clear()
            limit_lsn = self._limit_lsn()
            if self.position < limit_lsn:
                await self._send_wal(limit_lsn, now_us())
                continue
            if self._beat_due:
                self._beat_due = False
                await self._stream.send(keepalive(limit_lsn, now_us(), reply_requested=True))
            await self._progress.wait()

    async def _send_wal(self, limit_lsn: Lsn, now_us: int) -> None:
        end_lsn = Lsn(min(limit_lsn, self.position + self._bytes_max))
        data = await self._timeline.reading.read(self.position, end_lsn)
        # While the disk was read a vote may have been given and the log cut.
        self._limit_lsn()
        await self._stream.send(xlog_data_header(self.position, limit_lsn, now_us), data)
        self.position = end_lsn

    def _limit_lsn(self) -> Lsn:
        """Up to where this reader may see; raises what ended the stream."""
        if self._failure is not None:
            raise self._failure
        acceptor = self._timeline.acceptor
        term = self.request.term
        if term is None:
            return acceptor.commit_lsn
        if not acceptor.is_term(term):
            reach(Mark.RECOVERY_READER_DEPOSED)
            raise NotReady(f"term {term} is over here, the vote went to {acceptor.term}")
        return acceptor.flush_lsn

    def _is_finished(self) -> bool:
        if self._reader_done:
            return True
        return self.is_pageserver and self._has_all()

    def _has_all(self) -> bool:
        """Whether this pageserver needs nothing more: decided by its own latest feedback."""
        timeline = self._timeline
        return (
            timeline.connections.pushers == 0
            and self.position >= timeline.acceptor.commit_lsn
            and self.remote_consistent_lsn >= timeline.acceptor.commit_lsn
        )

    async def _listen(self) -> None:
        """Take what the reader says, until it ends its half or is gone."""
        try:
            while (data := await self._stream.receive()) is not None:
                self._heard_at = asyncio.get_running_loop().time()
                self._take_feedback(data)
            self._reader_done = True
        except (ConnectionError, ProtocolError, NotReady, CopyFailed) as error:
            self._failure = error
        self._progress.set()

    def _take_feedback(self, data: bytes) -> None:
        if data[:1] == FEEDBACK_TYPE:
            self.is_pageserver = True
            self.remote_consistent_lsn = _parse_remote_consistent(data)
            self._timeline.hear_remote_consistent(self.remote_consistent_lsn)
            if self._has_all():
                self._progress.set()
            return
        message = parse_from_standby(data)
        if isinstance(message, HotStandbyFeedback):
            self._take_standby(message)
            return
        self._applied_lsn = message.apply_lsn
        if message.reply_requested:
            self._beat_due = True
            self._progress.set()

    def _take_standby(self, feedback: HotStandbyFeedback) -> None:
        appeared = feedback.asks and not self._is_standby
        self._is_standby = feedback.asks
        if appeared:
            self._timeline.connections.standby_appeared()

    @property
    def standby_horizon(self) -> Lsn | None:
        """Where a hot standby that asks for it has replayed to; ``None`` for any other reader."""
        return self._applied_lsn if self._is_standby and self._applied_lsn else None

    @property
    def name(self) -> str:
        """The client's application name."""
        return self.request.name

    def describe(self) -> dict[str, str | int | bool | None]:
        """For people and tests."""
        return {
            "name": self.request.name,
            "term": self.request.term,
            "position": str(self.position),
            "is_pageserver": self.is_pageserver,
            "remote_consistent_lsn": str(self.remote_consistent_lsn),
            "standby_horizon": None if self.standby_horizon is None else str(self.standby_horizon),
        }

    def tick(self) -> None:
        """Ask for a sign of life; a reader that has given none for too long is hung up on.

        Even in the middle of a send, which may wait for ever for a machine that has died.
        """
        deadline = self._deadline
        if self._silence_s() > self._silence_max_s and deadline and not deadline.expired():
            reach(Mark.READER_SILENT)
            deadline.reschedule(asyncio.get_running_loop().time())
        self._beat_due = True
        self._progress.set()

    def _silence_s(self) -> float:
        return asyncio.get_running_loop().time() - self._heard_at


def _parse_remote_consistent(data: bytes) -> Lsn:
    try:
        return Lsn.parse(json.loads(data[1:])["remote_consistent_lsn"])
    except (ValueError, KeyError, TypeError) as error:
        raise ProtocolError(
            f"a pageserver's feedback makes no sense: {data[:80]!r}: {one_line(error)}"
        ) from error
