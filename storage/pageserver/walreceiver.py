"""Streams a timeline's WAL from a safekeeper into ingest, and moves on when one fails or lags.

One task for each timeline connects, receives and ingests; a second reports positions and watches
the stream. One safekeeper's disk may rot, so damaged WAL only ends its stream; where two send the
same damage it is the WAL itself, and the timeline stops. Every wait ends at once when the task is
asked to stop, the end of a stream ends the loop over it (BUGBANK
``receiver-stop-only-on-message``), and the next stream begins at the end of the last whole record.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Iterator
from typing import Any

from storage.errors import CorruptData, PortError, ProtocolError, RequestError, SeawallError
from storage.events import emit
from storage.lsn import Lsn
from storage.marks import Mark, reach
from storage.pageserver.candidates import Candidates
from storage.pageserver.feedback import PageserverFeedback
from storage.pageserver.ingest import WalIngest
from storage.pageserver.timeline import Timeline
from storage.tasks import ShutdownRequested, TaskKind, interruptible
from storage.wal.reader import RawRecord, WalReader
from storage.wire.client import Client, ConnectOptions, connect
from storage.wire.copying import CopyStream
from storage.wire.errors import ServerError
from storage.wire.replication import POSTGRES_EPOCH_US, Keepalive, parse_from_server

logger = logging.getLogger(__name__)


class DamagedWal(ProtocolError):
    """What a safekeeper sent is not WAL that anybody wrote; names the record and what is wrong."""


RECORDS_BETWEEN_YIELDS = 256
"""Ingest gives the loop back after this many records."""

STATUS_GAP_S = 0.05
"""Least time between two status messages."""

_UNITS = {"B": 1, "kB": 1024, "MB": 1024**2, "GB": 1024**3}


class WalReceiver:
    """The WAL source of one timeline; :meth:`run` is its only worker."""

    def __init__(self, timeline: Timeline) -> None:
        environment = timeline.environment
        self._timeline = timeline
        self._environment = environment
        self._options = environment.options
        self._ingest = WalIngest(timeline, environment.postgres)
        self._candidates = Candidates(environment.options, environment.ports.entropy)
        self._news = asyncio.Event()
        self._report = asyncio.Event()
        self._damaged: dict[str, Lsn] = {}
        self._held_back = False
        self._safekeeper = ""
        self._state = "idle"

    # Where WAL may be found; the callers are discovery and ``callmemaybe``.

    def announce(
        self,
        address: str,
        commit_lsn: Lsn,
        *,
        expires_at_s: float | None = None,
        idle: bool = False,
    ) -> None:
        """A safekeeper (``host:port``) has WAL up to ``commit_lsn``, see :class:`Candidates`."""
        self._candidates.announce(address, commit_lsn, expires_at_s=expires_at_s, idle=idle)
        self._news.set()

    def withdraw(self, address: str) -> None:
        """A safekeeper is gone."""
        self._candidates.withdraw(address)

    def positions_moved(self) -> None:
        """Something worth reporting to the safekeeper has changed."""
        self._report.set()

    def describe(self) -> dict[str, Any]:
        """For the HTTP API."""
        return {
            "state": self._state,
            "safekeeper": self._safekeeper,
            "last_received_lsn": str(self._timeline.last_record_lsn),
        }

    # The worker.

    async def run(self) -> None:
        """Stream until the task is asked to stop or the timeline breaks."""
        async with interruptible():
            await self._timeline.state.wait_active()
            while True:
                address = self._candidates.choose(self._timeline.last_record_lsn, _now_s())
                if address is None:
                    await self._wait_for_news()
                else:
                    await self._try(address)

    async def _wait_for_news(self) -> None:
        """Until a candidate is announced or one's backoff has run out."""
        self._news.clear()
        retry_at_s = self._candidates.next_retry_s(_now_s())
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout_at(retry_at_s):
                await self._news.wait()

    async def _try(self, address: str) -> None:
        """One connection, from its beginning to its end, whatever that is."""
        self._set_state(address, "connecting")
        try:
            client = await self._connect(address)
        except ShutdownRequested:
            raise
        except (OSError, EOFError, SeawallError) as error:
            self._candidates.failed(address, _now_s())
            self._lost(address, error)
            return
        by_peer = False
        try:
            by_peer = await self._stream(client, address)
        except ShutdownRequested:
            raise
        except DamagedWal as error:
            self._take_damage(address, error)
        except (OSError, EOFError, ProtocolError, PortError, RequestError, ServerError) as error:
            self._lost(address, error)
        except Exception as error:
            self._alarm(error)
            raise
        finally:
            if self._candidates.stream is not None:
                self._candidates.disconnected(_now_s(), by_peer=by_peer)
            self._set_state(address, "disconnected")
            await client.close()

    def _alarm(self, error: Exception) -> None:
        """WAL that cannot be understood: stop serving instead of serving stale pages."""
        self._timeline.break_down(f"ingest stopped at {self._timeline.last_record_lsn}: {error}")

    def _take_damage(self, address: str, error: DamagedWal) -> None:
        """Leave one whose disk may have rotted; raise when another says the same."""
        reach(Mark.DAMAGED_WAL)
        position = self._timeline.last_record_lsn
        self._damaged = {who: lsn for who, lsn in self._damaged.items() if lsn == position}
        self._damaged[address] = position
        if len(self._damaged) > 1:
            self._alarm(error)
            raise error
        logger.warning(
            "timeline %s: WAL from %s is damaged: %s; another safekeeper is tried",
            self._timeline.ident,
            address,
            error,
        )

    def _lost(self, address: str, error: BaseException) -> None:
        logger.info(
            "timeline %s: WAL from %s: %s",
            self._timeline.ident,
            address,
            str(error) or type(error).__name__,
        )

    async def _connect(self, address: str) -> Client:
        host, _, port = address.rpartition(":")
        ident = self._timeline.ident
        options = ConnectOptions(
            settings={"tenant_id": ident.tenant_id, "timeline_id": ident.timeline_id},
            replication=True,
            application_name=self._environment.node,
            timeout_s=self._options.walreceiver_connect_timeout_s,
        )
        return await connect(host, int(port), options=options)

    async def _stream(self, client: Client, address: str) -> bool:
        """Receive until the end; ``True`` if the safekeeper ended the stream in order."""
        timeline = self._timeline
        segment_size = parse_size((await client.query("SHOW wal_segment_size")).rows[0][0] or "")
        position = timeline.last_record_lsn
        stream = await client.copy_both(f"START_REPLICATION PHYSICAL {position}")
        self._candidates.connected(address, position, _now_s())
        self._set_state(address, "streaming")
        reader = WalReader(
            position, timeline.pg_version, segment_size,
            check_prev=timeline.prev_record_lsn or None,
        )  # fmt: skip
        async with asyncio.timeout(None) as fuse:
            watch = self._environment.registry.spawn(
                TaskKind.WAL_RECEIVER, f"status to {address}", self._watch(stream, fuse),
                tenant_id=timeline.ident.tenant_id, timeline_id=timeline.ident.timeline_id,
            )  # fmt: skip
            try:
                return await self._receive(stream, reader)
            finally:
                watch.cancel()
                await asyncio.gather(watch, return_exceptions=True)

    async def _receive(self, stream: CopyStream, reader: WalReader) -> bool:
        while True:
            message = await stream.receive()
            if message is None:
                return True
            parsed = parse_from_server(message)
            if isinstance(parsed, Keepalive):
                self._candidates.heard(reader.position, _now_s())
                if parsed.reply_requested:
                    self._report.set()
                continue
            if parsed.start_lsn != reader.position:
                raise ProtocolError(f"WAL from {parsed.start_lsn}, expected {reader.position}")
            reader.feed(parsed.data)
            self._candidates.heard(reader.position, _now_s())
            await self._ingest_ready(reader)

    async def _ingest_ready(self, reader: WalReader) -> None:
        """Ingest the whole records received so far."""
        count = 0
        try:
            for raw in _records(reader):
                await self._ingest.ingest(raw)
                count += 1
                if count % RECORDS_BETWEEN_YIELDS == 0:
                    self._timeline.finish_batch()
                    await self._wait_for_room()
                    await asyncio.sleep(0)
        finally:
            if count:
                self._timeline.finish_batch()
                self._report.set()
        await self._wait_for_room()

    async def _wait_for_room(self) -> None:
        """Hold ingest back, which no other safekeeper would change."""
        if not self._timeline.has_room:
            self._held_back = True
            try:
                await self._timeline.wait_for_room()
            finally:
                self._held_back = False
                self._candidates.not_read_until(_now_s())

    # The watch over a stream.

    async def _watch(self, stream: CopyStream, fuse: asyncio.Timeout) -> None:
        """Report positions while the stream lives; blow the fuse when it should be left."""
        while True:
            self._send_status(stream)
            await asyncio.sleep(STATUS_GAP_S)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(self._options.walreceiver_status_s):
                    await self._report.wait()
            if self._held_back:
                continue
            reason = self._candidates.reason_to_leave(_now_s())
            if reason is not None:
                stream_info = self._candidates.stream
                assert stream_info is not None
                reach(Mark.STREAM_LEFT)
                logger.info(
                    "timeline %s: leaving %s: %s", self._timeline.ident, stream_info.address, reason
                )
                fuse.reschedule(_now_s())
                return

    def _send_status(self, stream: CopyStream) -> None:
        self._report.clear()
        timeline = self._timeline
        feedback = PageserverFeedback(
            timeline.last_record_lsn,
            timeline.disk_consistent.value,
            timeline.remote_consistent.value,
        )
        if stream.is_congested:
            return
        sent_at_us = self._environment.ports.clock.wall_us() - POSTGRES_EPOCH_US
        try:
            stream.post(feedback.status(sent_at_us))
            stream.post(feedback.encode())
        except ConnectionError as error:
            self._lost(self._safekeeper, error)

    def _set_state(self, address: str, state: str) -> None:
        self._safekeeper, self._state = address, state
        emit(
            "walreceiver",
            tenant=self._timeline.ident.tenant_id,
            timeline=self._timeline.ident.timeline_id,
            safekeeper=address,
            state=state,
        )


def _records(reader: WalReader) -> Iterator[RawRecord]:
    """The whole records received so far; ``DamagedWal`` at the first bad byte."""
    try:
        yield from reader.records()
    except CorruptData as error:
        raise DamagedWal(str(error)) from error


def parse_size(text: str) -> int:
    """Bytes of a size as ``SHOW`` prints it (``16MB``); ``ProtocolError`` for anything else."""
    digits = text.rstrip("BGMk")
    unit = text[len(digits) :] or "B"
    if not digits.isdigit() or unit not in _UNITS:
        raise ProtocolError(f"{text!r} is not a size")
    return int(digits) * _UNITS[unit]


def _now_s() -> float:
    return asyncio.get_running_loop().time()
