"""Streams an unmodified PostgreSQL's WAL to the proposer and acknowledges what is committed.

To PostgreSQL this is its synchronous standby ``walproposer``: a COMMIT returns when we report its
record as flushed, and we report nothing but the proposer's commit_lsn. Before the first byte is
taken the WAL just before the epoch start is compared with the quorum's: a server that descends
from another history is refused. Only whole records are proposed.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from storage.consensus.fetch import RecordBorders
from storage.errors import Conflict, ProtocolError, SeawallError
from storage.log import one_line
from storage.lsn import Lsn
from storage.tasks import ShutdownRequested, interruptible
from storage.walproposer.options import Deposed, ProposerClosed
from storage.walproposer.proposer import WalProposer
from storage.wire.client import Client, ConnectOptions, connect
from storage.wire.copying import CopyStream
from storage.wire.replication import StandbyStatus, XLogData, parse_from_server, standby_status

if TYPE_CHECKING:
    import random

logger = logging.getLogger(__name__)

APPLICATION_NAME = "walproposer"
_PAGE = 8192


@dataclass(frozen=True, slots=True)
class Server:
    """The PostgreSQL to stream from; ``slot`` is a physical replication slot there."""

    host: str
    port: int
    user: str
    slot: str


class PostgresStream:
    """One server's stream, from its first connection until the proposer is deposed."""

    def __init__(
        self,
        proposer: WalProposer,
        server: Server,
        now_us: Callable[[], int],
        entropy: random.Random,
    ) -> None:
        self.connected = False
        self._proposer = proposer
        self._server = server
        self._now_us = now_us
        self._entropy = entropy
        self._stream: CopyStream | None = None
        self._deadline: asyncio.Timeout | None = None
        self._heard_at = 0.0
        self._reported_lsn = Lsn(0)
        proposer.on_commit(self._committed)

    async def check(self) -> None:
        """Connect once and make sure that this server continues the quorum's log.

        Raises ``Conflict`` when it does not, ``ServerError`` or ``OSError`` when it cannot tell.
        """
        client = await self._connect(f"{APPLICATION_NAME}-check")
        try:
            await self._check_system(client)
            start_lsn = self._proposer.campaign.start_lsn
            begin_lsn = self._overlap_begin()
            if begin_lsn < start_lsn:
                ours = await self._proposer.read_back(begin_lsn, start_lsn)
                await self._compare(client, begin_lsn, ours)
        finally:
            await client.close()

    async def run(self) -> None:
        """Stream, and connect again whenever the stream breaks, until deposed or stopped."""
        options = self._proposer.options
        delay_s = options.reconnect_min_s
        async with interruptible():
            while True:
                self._heard_at = 0.0
                try:
                    await self._stream_once()
                except (Deposed, ProposerClosed, ShutdownRequested):
                    return
                except (OSError, TimeoutError, EOFError, SeawallError) as error:
                    logger.info("PostgreSQL %s: %s", self._server.host, one_line(error))
                delay_s = options.reconnect_min_s if self._heard_at else delay_s
                await asyncio.sleep(delay_s * self._entropy.uniform(0.5, 1.5))
                delay_s = min(delay_s * 2, options.reconnect_max_s)

    def tick(self) -> None:
        """Ask for a sign of life; a server that has given none for too long is hung up on."""
        if self._stream is None or self._deadline is None:
            return
        now = asyncio.get_running_loop().time()
        if now - self._heard_at > self._proposer.options.peer_silence_max_s:
            self._deadline.reschedule(now)
        else:
            self._report(reply_requested=True)

    # ---- one connection

    async def _connect(self, application_name: str) -> Client:
        options = ConnectOptions(
            user=self._server.user,
            replication=True,
            application_name=application_name,
            timeout_s=self._proposer.options.peer_silence_max_s,
        )
        return await connect(self._server.host, self._server.port, options=options)

    async def _check_system(self, client: Client) -> None:
        (system_id, *_), *_ = (await client.query("IDENTIFY_SYSTEM")).rows
        if system_id != str(self._proposer.options.system_id):
            raise Conflict(
                f"this PostgreSQL is system {system_id}, the timeline is of system "
                f"{self._proposer.options.system_id}"
            )

    def _overlap_begin(self) -> Lsn:
        """From where to compare: the page of the last byte before the epoch start, if it is ours.

        A data directory rebuilt at that LSN has the real bytes of that page, not of older ones.
        """
        campaign = self._proposer.campaign
        assert campaign.term_history is not None, "streaming begins after the election"
        timeline_start_lsn = campaign.term_history.switches[0].lsn
        last_byte = max(int(campaign.start_lsn) - 1, 0)
        return Lsn(max(timeline_start_lsn, last_byte - last_byte % _PAGE))

    async def _compare(self, client: Client, begin_lsn: Lsn, ours: bytes) -> None:
        stream = await client.copy_both(f"START_REPLICATION PHYSICAL {begin_lsn} TIMELINE 1")
        theirs = b""
        while len(theirs) < len(ours):
            theirs += await self._next_data(stream, Lsn(begin_lsn + len(theirs)))
        for offset, (mine, other) in enumerate(zip(ours, theirs, strict=False)):
            if mine != other:
                raise Conflict(
                    f"this PostgreSQL's WAL differs from the quorum's at "
                    f"{Lsn(begin_lsn + offset)}, before the epoch start "
                    f"{self._proposer.campaign.start_lsn}: rebuild its data directory"
                )

    async def _next_data(self, stream: CopyStream, position: Lsn) -> bytes:
        """The next WAL, which must begin at ``position``; keepalives are answered in passing."""
        while True:
            message = await stream.receive()
            if message is None:
                raise ProtocolError(f"PostgreSQL ended its WAL at {position}")
            self._heard_at = asyncio.get_running_loop().time()
            parsed = parse_from_server(message)
            if isinstance(parsed, XLogData):
                if parsed.start_lsn != position:
                    raise ProtocolError(f"WAL at {parsed.start_lsn} came, {position} was due")
                if parsed.data:
                    return parsed.data
            elif parsed.reply_requested:
                self._report(reply_requested=False)

    async def _stream_once(self) -> None:
        client = await self._connect(APPLICATION_NAME)
        try:
            await self._check_system(client)
            begin_lsn = self._proposer.flush_lsn
            stream = await client.copy_both(
                f'START_REPLICATION SLOT "{self._server.slot}" PHYSICAL {begin_lsn} TIMELINE 1'
            )
            self._heard_at = asyncio.get_running_loop().time()
            self._stream, self.connected = stream, True
            self._report(reply_requested=False)
            async with asyncio.timeout(None) as self._deadline:
                await self._feed(stream, begin_lsn)
        finally:
            self._stream, self._deadline, self.connected = None, None, False
            await client.close()

    async def _feed(self, stream: CopyStream, begin_lsn: Lsn) -> None:
        """Propose whole records as they come; never much more than the quorum can keep up with."""
        options = self._proposer.options
        borders = RecordBorders(begin_lsn, options.pg_version, options.wal_segment_size)
        position = begin_lsn
        while True:
            data = await self._next_data(stream, position)
            position = Lsn(position + len(data))
            piece_begin = borders.begin_lsn
            if piece := borders.feed(data):
                self._proposer.append(piece_begin, piece)
            behind = self._proposer.flush_lsn - options.wal_retained_bytes_max
            if behind > self._proposer.commit_lsn:
                await self._proposer.wait_committed(Lsn(behind))

    # ---- acknowledgements

    def _committed(self, _commit_lsn: Lsn) -> None:
        self._report(reply_requested=False)

    def _report(self, *, reply_requested: bool) -> None:
        """Tell PostgreSQL what a quorum has; never more, whatever it has sent us."""
        if self._stream is None:
            return
        commit_lsn = self._proposer.commit_lsn
        assert commit_lsn >= self._reported_lsn, "what was acknowledged stays acknowledged"
        self._reported_lsn = commit_lsn
        status = StandbyStatus(commit_lsn, commit_lsn, Lsn(0), self._now_us(), reply_requested)
        try:
            self._stream.post(standby_status(status))
        except ConnectionError as error:
            logger.debug("acknowledging to PostgreSQL: %s", error)
