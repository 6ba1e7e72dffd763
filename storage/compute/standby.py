"""Role ``standby``: a compute that follows the primary's WAL, reads pages lazily, changes nothing.

Statements read at the LSN that replay has reached; the pageserver must still have it. The standby
says so by hot standby feedback (``wal_follower.py``), which holds garbage collection back; with
``hot_standby_feedback`` off one that lags is refused, as queries on a stock standby are cancelled.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any, TypeVar

from storage.compute.basebackup import fetch_base, fetch_blocks
from storage.compute.engine import ReadResult, Row, total
from storage.compute.options import StandbyOptions
from storage.compute.page_client import PageClient
from storage.compute.replay import Replay
from storage.compute.service import CLOSE_WITHIN_S, FrontEnds, KvService, ReadOnly, compute_api
from storage.compute.transact import Executed, Step
from storage.compute.wal_follower import WalFollower
from storage.errors import LsnOutOfScope
from storage.http.api import Request
from storage.http.schema import BOOLEAN, object_of
from storage.kv.page import KEY_MAX, KEYS_PER_PAGE, Page, block_of, decode
from storage.life import run_until_stopped
from storage.lsn import Lsn
from storage.node import NodeContext
from storage.tasks import TaskRegistry

logger = logging.getLogger(__name__)

T = TypeVar("T")

REFUSAL = "cannot execute a write during recovery; connect to the primary"


class StandbyTables:
    """Reads at the LSN where replay stands; no page is kept."""

    def __init__(self, replay: Replay, pages: PageClient) -> None:
        self._replay = replay
        self._pages = pages

    async def get(self, key: int) -> ReadResult:
        """The row of a key; ``LsnOutOfScope`` if its page is gone where replay stands."""

        async def read(lsn: Lsn, blocks: int) -> ReadResult:
            block = block_of(key)
            value = (await self._page(block, lsn)).entries.get(key) if block < blocks else None
            return ReadResult([] if value is None else [Row(key, value)], lsn)

        return await self._at_replayed(read)

    async def scan(self, first: int, end: int) -> ReadResult:
        """Rows of the keys ``first`` … ``end - 1``, all at one LSN; raises like :meth:`get`."""

        async def read(lsn: Lsn, blocks: int) -> ReadResult:
            end_block = min(blocks, (end + KEYS_PER_PAGE - 1) // KEYS_PER_PAGE)
            wanted = range(first // KEYS_PER_PAGE, end_block)
            pages = await asyncio.gather(*(self._page(block, lsn) for block in wanted))
            rows = [Row(*item) for page in pages for item in sorted(page.entries.items())]
            return ReadResult([row for row in rows if first <= row.key < end], lsn)

        return await self._at_replayed(read)

    async def sum(self) -> tuple[int, Lsn]:
        """Sum of every value at one LSN."""
        result = await self.scan(0, KEY_MAX + 1)
        return total(result.rows), result.lsn

    async def write(self, changes: Mapping[int, bytes | None]) -> Lsn:
        """Always refuses."""
        raise ReadOnly(REFUSAL)

    async def transact(self, steps: Sequence[Step]) -> tuple[Executed, Lsn]:
        """Always refuses."""
        raise ReadOnly(REFUSAL)

    async def _at_replayed(self, read: Callable[[Lsn, int], Awaitable[T]]) -> T:
        """Read where replay stands; once more if it has moved on from an LSN that is gone."""
        while True:
            with self._replay.reading() as (lsn, blocks):
                try:
                    return await read(lsn, blocks)
                except LsnOutOfScope:
                    if self._replay.lsn == lsn:
                        raise

    async def _page(self, block: int, lsn: Lsn) -> Page:
        page = decode(await self._pages.page_at(block, lsn)) or Page()
        assert page.lsn <= lsn, f"block {block} at {lsn} was changed at {Lsn(page.lsn)}"
        return page


class Standby:
    """One incarnation of the standby."""

    def __init__(self, context: NodeContext, options: StandbyOptions) -> None:
        self._context = context
        self._options = options
        self.registry = TaskRegistry(context.name, context.die)
        self._pages = PageClient(options.pages, self.registry, context.ports.entropy)
        self._replay: Replay | None = None
        self._follower: WalFollower | None = None
        self._front_ends = FrontEnds(context.name, self.registry)

    def status(self) -> dict[str, Any]:
        """Phase and positions; JSON-able."""
        replay = self._replay
        return {
            "phase": "serving" if self._front_ends.serving else "taking_base",
            "replay_lsn": str(Lsn(0) if replay is None else replay.lsn),
            "paused": replay is not None and replay.paused,
            "safekeeper": "" if self._follower is None else self._follower.safekeeper,
            "pageserver": self._pages.address,
        }

    async def run(self) -> None:
        """Start, and serve until cancelled."""
        name, options = self._context.name, self._options
        api = compute_api("Seawall standby", self.status, self._pages.move)
        api.add(
            "PUT",
            "/replay",
            self._put_replay,
            summary="Pause replay, or let it go on; reads stay where it stands",
            body=object_of({"paused": BOOLEAN}),
        )
        await self._front_ends.open_api(api)
        self._pages.start()
        replay = self._replay = await self._start_point()
        self._follower = WalFollower(name, options, replay, self.registry, self._context.ports)
        self._follower.start()
        service = KvService(StandbyTables(replay, self._pages), self.status)
        await self._front_ends.open_commands(service)
        self._context.ready.set()
        logger.info("following from %s", replay.lsn)
        await self._context.stopping.wait()

    async def _start_point(self) -> Replay:
        """Where the pageserver is now; asked again if garbage collection passes it meanwhile."""
        options, entropy = self._options, self._context.ports.entropy
        while True:
            base = await fetch_base(self._pages, options.pages, None, entropy)
            try:
                blocks = await fetch_blocks(self._pages, base.lsn, entropy)
            except LsnOutOfScope as error:
                logger.info("the base at %s is gone, taking another: %s", base.lsn, error)
                continue
            return Replay(base, blocks, options.pg_version)

    async def _put_replay(self, request: Request) -> dict[str, Any]:
        if self._replay is not None:
            self._replay.paused = request.body["paused"]
        return self.status()

    async def close(self) -> None:
        """End everything."""
        await self._front_ends.close()
        await self.registry.shutdown(within_s=CLOSE_WITHIN_S)


async def main(context: NodeContext) -> None:
    """Run the standby; see :class:`storage.compute.options.StandbyOptions` for its options."""
    standby = Standby(context, StandbyOptions.parse(context.options))
    try:
        await run_until_stopped(context, standby.registry, standby.run())
    finally:
        await standby.close()
