"""A standby's stream of WAL: from any safekeeper that has it, replayed as it comes.

What the standby reads goes back to the safekeeper as a stock standby's would: its status names the
horizon as the LSN applied, and hot standby feedback says whether it wants that kept. WAL that
arrives while replay is paused is not kept: it is asked for again afterwards.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from typing import TYPE_CHECKING

from storage.compute.options import StandbyOptions, host_and_port
from storage.compute.replay import Replay
from storage.errors import SeawallError
from storage.tasks import ShutdownRequested, TaskKind, TaskRegistry, interruptible
from storage.wal.reader import WalReader
from storage.wire.client import ConnectOptions, connect
from storage.wire.copying import CopyStream
from storage.wire.replication import (
    POSTGRES_EPOCH_US,
    HotStandbyFeedback,
    Keepalive,
    StandbyStatus,
    XLogData,
    hot_standby_feedback,
    parse_from_server,
    standby_status,
)

if TYPE_CHECKING:
    from storage.ports import Ports

logger = logging.getLogger(__name__)

RETRY_FIRST_S = 0.1
RETRY_MAX_S = 2.0
FIRST_XID = 3
"""FirstNormalTransactionId: this compute has no transaction ids, and any says that it asks."""


class WalFollower:
    """Moves a :class:`Replay` along; ``safekeeper`` is where its WAL comes from now."""

    def __init__(
        self,
        name: str,
        options: StandbyOptions,
        replay: Replay,
        registry: TaskRegistry,
        ports: Ports,
    ) -> None:
        self.safekeeper = ""
        self._name = name
        self._options = options
        self._replay = replay
        self._registry = registry
        self._ports = ports
        self._report = asyncio.Event()

    def start(self) -> None:
        """Start the task that follows."""
        self._registry.spawn(TaskKind.WAL_RECEIVER, "follower", self._run(), critical=True)

    async def _run(self) -> None:
        """One safekeeper after the other, for ever."""
        attempt, delay_s = 0, RETRY_FIRST_S
        async with interruptible():
            while True:
                addresses = self._options.safekeepers
                self.safekeeper = addresses[attempt % len(addresses)]
                before = self._replay.lsn
                if await self._try(self.safekeeper):
                    continue
                attempt += 1
                moved = self._replay.lsn != before
                delay_s = RETRY_FIRST_S if moved else min(2 * delay_s, RETRY_MAX_S)
                await asyncio.sleep(delay_s * (0.5 + 0.5 * self._ports.entropy.random()))

    async def _try(self, address: str) -> bool:
        """One stream to its end; ``True`` if this safekeeper is to be asked again at once."""
        host, port = host_and_port(address)
        timeline = self._options.pages.timeline
        options = ConnectOptions(
            settings={"tenant_id": timeline.tenant_id, "timeline_id": timeline.timeline_id},
            replication=True,
            application_name=self._name,
            timeout_s=self._options.silence_s,
        )
        try:
            client = await connect(host, port, options=options)
            try:
                stream = await client.copy_both(f"START_REPLICATION PHYSICAL {self._replay.lsn}")
                return await self._converse(stream)
            finally:
                await client.close()
        except (OSError, EOFError, SeawallError) as error:
            if isinstance(error, ShutdownRequested):
                raise
            logger.info("no WAL from %s: %s", address, str(error) or type(error).__name__)
            return False

    async def _converse(self, stream: CopyStream) -> bool:
        reporter = self._registry.spawn(
            TaskKind.WAL_RECEIVER, "standby status", self._report_always(stream)
        )
        try:
            return await self._receive(stream)
        finally:
            reporter.cancel()

    async def _receive(self, stream: CopyStream) -> bool:
        """Replay until the stream ends (``False``), or WAL was passed over while paused."""
        options, replay = self._options, self._replay
        reader = WalReader(
            replay.lsn, options.pg_version, options.wal_segment_size,
            check_prev=replay.prev_lsn or None,
        )  # fmt: skip
        passed_over = False
        while True:
            async with asyncio.timeout(options.silence_s):
                message = await stream.receive()
            if message is None:
                return False
            parsed = parse_from_server(message)
            if isinstance(parsed, Keepalive):
                if parsed.reply_requested:
                    self._report.set()
            elif passed_over or replay.paused:
                passed_over = True
            else:
                self._replay_all(reader, parsed)
            if passed_over and not replay.paused:
                return True

    def _replay_all(self, reader: WalReader, parsed: XLogData) -> None:
        reader.feed(parsed.data)
        for raw in reader.records():
            self._replay.apply(raw)

    async def _report_always(self, stream: CopyStream) -> None:
        """Say where the standby reads, once in a while and when asked; the receiver meets the end
        of the stream."""
        with contextlib.suppress(OSError, SeawallError):
            while True:
                self._report.clear()
                await stream.send(self._status())
                await stream.send(self._feedback())
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(self._options.status_s):
                        await self._report.wait()

    def _status(self) -> bytes:
        replayed = self._replay.lsn
        return standby_status(
            StandbyStatus(replayed, replayed, self._replay.horizon, self._now_us())
        )

    def _feedback(self) -> bytes:
        xmin = FIRST_XID if self._options.hot_standby_feedback else 0
        return hot_standby_feedback(HotStandbyFeedback(self._now_us(), xmin, 0, 0, 0))

    def _now_us(self) -> int:
        return self._ports.clock.wall_us() - POSTGRES_EPOCH_US
