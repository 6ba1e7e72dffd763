"""Role ``readonly``: a compute that reads pages lazily, all as of one LSN, and changes nothing."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any, TypeVar

from storage.compute.engine import Engine, Log, ReadResult
from storage.compute.lease import LeaseKeeper
from storage.compute.options import ReadonlyOptions
from storage.compute.page_cache import CacheOptions, PageCache
from storage.compute.page_client import PageClient
from storage.compute.service import CLOSE_WITHIN_S, FrontEnds, KvService, ReadOnly, compute_api
from storage.compute.transact import Executed, Step
from storage.errors import CorruptData, LsnOutOfScope, NotReady
from storage.life import run_until_stopped
from storage.lsn import Lsn
from storage.node import NodeContext
from storage.tasks import TaskRegistry
from storage.wal.record import RecordSpec

logger = logging.getLogger(__name__)

T = TypeVar("T")


class PinnedLog:
    """A log that ended at an LSN: everything in it is committed, nothing is added."""

    def __init__(self, lsn: Lsn) -> None:
        self.commit_lsn = lsn

    def add(self, record: RecordSpec) -> Lsn:
        """Always refuses."""
        raise ReadOnly(f"this compute reads at {self.commit_lsn} and cannot write")

    async def committed(self, lsn: int) -> None:
        """Whatever a page at the pinned LSN shows is committed."""
        assert lsn <= self.commit_lsn, f"a page of {Lsn(lsn)} was read at {self.commit_lsn}"


class PinnedTables(Engine):
    """Reads as of the pinned LSN, as long as ``check`` does not refuse them."""

    def __init__(self, log: Log, cache: PageCache, check: Callable[[], None]) -> None:
        super().__init__(log, cache)
        self._check_readable = check

    async def get(self, key: int) -> ReadResult:
        """See :meth:`Engine.get`; ``LsnOutOfScope`` once the LSN is gone."""
        self._check_readable()
        return await super().get(key)

    async def scan(self, first: int, end: int) -> ReadResult:
        """See :meth:`Engine.scan`; ``LsnOutOfScope`` once the LSN is gone."""
        self._check_readable()
        return await super().scan(first, end)

    async def write(self, changes: Mapping[int, bytes | None]) -> Lsn:
        """Always refuses, before it touches a page."""
        raise ReadOnly("cannot execute a write in a read-only compute; connect to the primary")

    async def transact(self, steps: Sequence[Step]) -> tuple[Executed, Lsn]:
        """Always refuses."""
        raise ReadOnly("cannot execute a write in a read-only compute; connect to the primary")


class Readonly:
    """One incarnation of the read-only compute."""

    def __init__(self, context: NodeContext, options: ReadonlyOptions) -> None:
        self._context = context
        self._options = options
        self.registry = TaskRegistry(context.name, context.die)
        self._refusal: LsnOutOfScope | None = None
        self._pages = PageClient(options.pages, self.registry, context.ports.entropy)
        self._lease: LeaseKeeper | None = None
        if options.lease:
            self._lease = LeaseKeeper(options.pages, options.lsn, self.registry)
        self._front_ends = FrontEnds(context.name, self.registry)

    def status(self) -> dict[str, Any]:
        """Phase and the pinned LSN; JSON-able."""
        return {
            "phase": "serving" if self._front_ends.serving else "taking_base",
            "lsn": str(self._options.lsn),
            "pageserver": self._pages.address,
            "leased": self._lease is not None and self._lease.is_live,
        }

    async def run(self) -> None:
        """Start, and serve until cancelled."""
        lsn = self._options.lsn
        api = compute_api("Seawall readonly", self.status, self._move)
        await self._front_ends.open_api(api)
        self._pages.start()
        if self._lease is not None:
            self._lease.start(self._context.ports.entropy)
            await self._lease.settled()
        cache = PageCache(
            lambda block, _: self._page(block),
            self.registry,
            lambda: lsn,
            CacheOptions(
                start_lsn=lsn,
                blocks=await self._blocks(),
                capacity=self._options.pages.cache_pages,
            ),
        )
        service = KvService(PinnedTables(PinnedLog(lsn), cache, self._check), self.status)
        await self._front_ends.open_commands(service)
        self._context.ready.set()
        logger.info("serving reads as of %s", lsn)
        await self._context.stopping.wait()

    def _move(self, address: str) -> None:
        self._pages.move(address)
        if self._lease is not None:
            self._lease.move(address)

    async def _page(self, block: int) -> bytes:
        lsn = self._options.lsn
        return await self._promised(self._pages.page_at(block, lsn), f"block {block}")

    async def _promised(self, read: Awaitable[T], what: str) -> T:
        """A read at the pinned LSN; ``CorruptData`` if it is refused although it is leased."""
        promised = self._lease is not None and self._lease.is_live
        try:
            return await read
        except LsnOutOfScope as error:
            if promised and self._lease is not None and self._lease.is_live:
                raise CorruptData(
                    f"the lease at {self._options.lsn} is valid, but {what}: {error}"
                ) from error
            raise

    async def _blocks(self) -> int:
        """Length of the relation at the pinned LSN; waits for a pageserver as long as it takes."""
        lsn = self._options.lsn
        while True:
            try:
                return await self._promised(self._pages.blocks(lsn, lsn), "the size of kv")
            except LsnOutOfScope as error:
                self._refusal = error
                logger.warning("nothing can be read at %s any more: %s", lsn, error)
                return 0
            except NotReady as error:
                logger.info("still waiting for a pageserver: %s", error)

    def _check(self) -> None:
        """Refuse every read if the LSN was gone when this compute started."""
        if self._refusal is not None:
            raise LsnOutOfScope(str(self._refusal))

    async def close(self) -> None:
        """End everything."""
        await self._front_ends.close()
        await self.registry.shutdown(within_s=CLOSE_WITHIN_S)


async def main(context: NodeContext) -> None:
    """Run the compute; see :class:`storage.compute.options.ReadonlyOptions` for its options."""
    readonly = Readonly(context, ReadonlyOptions.parse(context.options))
    try:
        await run_until_stopped(context, readonly.registry, readonly.run())
    finally:
        await readonly.close()
