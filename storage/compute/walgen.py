"""Role ``walgen``: the deterministic primary.

It wins an election, takes the state at the end of the recovered log from the pageserver, and then
turns transactions into WAL. It keeps nothing of its own: safekeepers have its WAL, the pageserver
its pages. The WAL depends on system id, start LSN and the order of transactions, and on the clock
only if commits are to tell their time.
Once a higher term rules it acknowledges nothing more and ends with ``Deposed``.
"""

from __future__ import annotations

import asyncio
import enum
import logging
from typing import Any

from storage.compute.basebackup import check_base, fetch_base, fetch_blocks
from storage.compute.commit_log import CommitLog
from storage.compute.engine import Engine
from storage.compute.options import WalgenOptions
from storage.compute.page_cache import CacheOptions, PageCache
from storage.compute.page_client import PageClient
from storage.compute.service import CLOSE_WITHIN_S, FrontEnds, KvService, compute_api
from storage.errors import NotReady
from storage.life import run_until_stopped
from storage.lsn import INVALID_LSN, Lsn
from storage.node import NodeContext
from storage.tasks import TaskRegistry
from storage.wal.writer import WalWriter, WriterOptions
from storage.walproposer.options import Elected, ProposerOptions
from storage.walproposer.proposer import WalProposer
from storage.wire.replication import POSTGRES_EPOCH_US

logger = logging.getLogger(__name__)

LAST_LSN = Lsn(0xFFFFFFFFFFFFFFFF)


class ComputePhase(enum.StrEnum):
    """Where a primary stands."""

    ELECTING = "electing"
    TAKING_BASE = "taking_base"
    SERVING = "serving"
    ENDED = "ended"


class Walgen:
    """One incarnation of the primary."""

    def __init__(self, context: NodeContext, options: WalgenOptions) -> None:
        self._context = context
        self._options = options
        self._entropy = context.ports.entropy
        self.registry = TaskRegistry(context.name, context.die)
        self._phase = ComputePhase.ELECTING
        self._elected: Elected | None = None
        self._won = asyncio.Event()
        self._proposer = WalProposer(proposer_options(options), self.registry, self._entropy)
        self._pages = PageClient(options.pages, self.registry, self._entropy)
        self._log: CommitLog | None = None
        self._front_ends = FrontEnds(context.name, self.registry)

    def status(self) -> dict[str, Any]:
        """Phase, term and LSNs; JSON-able."""
        elected = self._elected
        return {
            "phase": self._phase.value,
            "term": 0 if elected is None else elected.term,
            "start_lsn": str(INVALID_LSN if elected is None else elected.start_lsn),
            "flush_lsn": str(self._proposer.flush_lsn),
            "commit_lsn": str(self._proposer.commit_lsn),
            "pageserver": self._pages.address,
        }

    async def run(self) -> None:
        """Start, and serve until cancelled."""
        api = compute_api("Seawall walgen", self.status, self._pages.move)
        await self._front_ends.open_api(api)
        self._pages.start()
        self._elected = await self._proposer.elect()
        self._won.set()
        self._phase = ComputePhase.TAKING_BASE
        engine = await self._engine(self._elected.start_lsn)
        service = KvService(engine, self.status)
        await self._front_ends.open_commands(service)
        self._phase = ComputePhase.SERVING
        logger.info("serving in term %s from %s", self._elected.term, self._elected.start_lsn)
        self._context.ready.set()
        await self._context.stopping.wait()

    async def stay_elected(self) -> None:
        """Raise ``Deposed`` once this compute, elected, leads no more; whatever it is doing."""
        await self._won.wait()
        await self._proposer.wait_committed(LAST_LSN)

    async def _engine(self, start_lsn: Lsn) -> Engine:
        """The core, standing where the recovered log ends."""
        options = self._options
        base = await fetch_base(self._pages, options.pages, start_lsn, self._entropy)
        check_base(base, start_lsn)
        wal = WriterOptions(options.pg_version, options.wal_segment_size, options.system_id)
        log = CommitLog(WalWriter(wal, start_lsn, base.prev_lsn), self._proposer)
        self._log = log
        self._proposer.on_deposed(log.fail)
        cache = PageCache(
            self._pages.page,
            self.registry,
            lambda: self._proposer.commit_lsn,
            CacheOptions(
                start_lsn=start_lsn,
                blocks=await fetch_blocks(self._pages, start_lsn, self._entropy),
                capacity=options.pages.cache_pages,
            ),
        )
        clock = self._context.ports.clock
        if not options.commit_timestamps:
            return Engine(log, cache)
        return Engine(log, cache, lambda: clock.wall_us() - POSTGRES_EPOCH_US)

    async def close(self) -> None:
        """End everything; whoever still waits for a commit hears that its outcome is unknown."""
        self._phase = ComputePhase.ENDED
        if self._log is not None:
            self._log.fail(NotReady("the compute is stopping"))
        await self._front_ends.close()
        await self._proposer.close()
        await self.registry.shutdown(within_s=CLOSE_WITHIN_S)


def proposer_options(options: WalgenOptions) -> ProposerOptions:
    """What the compute's own proposer is told."""
    return ProposerOptions(
        tenant_id=options.pages.tenant_id,
        timeline_id=options.pages.timeline_id,
        safekeepers=options.safekeepers,
        proposer_id=options.proposer_id,
        system_id=options.system_id,
        pg_version=options.pg_version,
        wal_segment_size=options.wal_segment_size,
        pageserver=options.pages.pageserver if options.callmemaybe else None,
        append_bytes_max=options.append_bytes_max,
        wal_retained_bytes_max=options.wal_retained_bytes_max,
    )


async def main(context: NodeContext) -> None:
    """Run the primary; see :class:`storage.compute.options.WalgenOptions` for its options."""
    walgen = Walgen(context, WalgenOptions.parse(context.options))
    try:
        await run_until_stopped(context, walgen.registry, walgen.run(), walgen.stay_elected())
    finally:
        await walgen.close()
