"""Pages in memory: bounded, filled from the pageserver, with the LSN each page was left at.

Rules: a page is evicted only when a quorum has its last change (so a page is never asked for at an
LSN that may not come to exist) and nobody has it pinned; the bound gives way to both. What comes
back from the pageserver must be exactly what was evicted; a newer page means that another compute
writes this timeline, an older one that the pageserver lost a change.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass

from storage.errors import BadRequest, CorruptData, NotReady
from storage.kv.page import Page, decode
from storage.lsn import Lsn
from storage.tasks import TaskKind, TaskRegistry

Fetch = Callable[[int, Lsn], Awaitable[bytes]]
"""(block, LSN of its last change or an upper bound of it) → the page's newest version."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CacheOptions:
    """``blocks``: size of the relation at ``start_lsn``; ``capacity`` in pages."""

    start_lsn: Lsn
    blocks: int
    capacity: int

    def __post_init__(self) -> None:
        if self.capacity < 1:
            raise BadRequest(f"option cache_pages is {self.capacity}; at least 1 is needed")


class PageCache:
    """``blocks`` is the relation's size in pages, this compute's own extensions included.

    At ``start_lsn`` the relation had ``blocks`` pages; later ones exist only if this compute wrote
    them. ``commit_lsn`` is asked at each eviction. Besides the pages it remembers one LSN for every
    page that was changed and evicted, for as long as the compute lives.
    """

    def __init__(
        self,
        fetch: Fetch,
        registry: TaskRegistry,
        commit_lsn: Callable[[], Lsn],
        options: CacheOptions,
    ) -> None:
        self.blocks = options.blocks
        self._fetch = fetch
        self._registry = registry
        self._commit_lsn = commit_lsn
        self._options = options
        self._pages: dict[int, Page] = {}
        self._pins: dict[int, int] = {}
        self._loading: dict[int, asyncio.Future[None]] = {}
        self._left_at: dict[int, int] = {}

    def __len__(self) -> int:
        return len(self._pages)

    def __getitem__(self, block: int) -> Page:
        """A page that :meth:`load` just made present; valid until the next ``await``."""
        page = self._pages.pop(block)
        self._pages[block] = page  # The dict's order is the order of use.
        return page

    async def load(self, blocks: Sequence[int]) -> None:
        """Make pages present, all at once, until the caller's next ``await``.

        Raises what the fetch raises, and ``NotReady`` or ``CorruptData`` for a page that is not
        what this compute left (see the module's second paragraph).
        """
        if not self._absent(blocks):
            return
        for block in blocks:
            self._pins[block] = self._pins.get(block, 0) + 1
        try:
            while absent := self._absent(blocks):
                for loading in [self._load(block) for block in absent]:
                    await asyncio.shield(loading)
        finally:
            for block in blocks:
                self._unpin(block)

    def _absent(self, blocks: Sequence[int]) -> list[int]:
        pages = self._pages
        return [block for block in blocks if block not in pages]

    def _unpin(self, block: int) -> None:
        pins = self._pins[block] - 1
        assert pins >= 0, f"block {block} is unpinned more often than pinned"
        if pins:
            self._pins[block] = pins
        else:
            del self._pins[block]

    def _load(self, block: int) -> asyncio.Future[None]:
        """Begin to load a page, or join the load that runs; done when it is present."""
        loading = self._loading.get(block)
        if loading is not None:
            return loading
        loading = asyncio.get_running_loop().create_future()
        if block >= self._options.blocks and block not in self._left_at:
            self._insert(block, Page())
            loading.set_result(None)
            return loading
        self._loading[block] = loading
        self._registry.spawn(TaskKind.ENDPOINT, f"load {block}", self._fetch_into(block, loading))
        return loading

    async def _fetch_into(self, block: int, loading: asyncio.Future[None]) -> None:
        hint_lsn = Lsn(self._left_at.get(block, self._options.start_lsn))
        try:
            page = decode(await self._fetch(block, hint_lsn)) or Page()
            self.check_fetched(block, page)
            self._insert(block, page)
            loading.set_result(None)
        except Exception as error:
            loading.set_exception(error)
            loading.exception()  # Retrieved here: perhaps nobody waits any more.
        finally:
            del self._loading[block]
            loading.cancel()  # No effect unless this task was cancelled.

    def check_fetched(self, block: int, page: Page) -> None:
        """Compare a page from the pageserver with how this compute left it."""
        start_lsn = self._options.start_lsn
        left_at = self._left_at.get(block)
        newest = start_lsn if left_at is None else left_at
        if page.lsn > newest:
            raise NotReady(
                f"block {block} was changed at {Lsn(page.lsn)}, after {Lsn(newest)} where this "
                "compute knew it; another compute writes this timeline"
            )
        if left_at is not None and page.lsn < left_at:
            raise CorruptData(
                f"the pageserver answered block {block} as of {Lsn(page.lsn)}, "
                f"but this compute changed it at {Lsn(left_at)}"
            )

    def _insert(self, block: int, page: Page) -> None:
        assert block not in self._pages, f"block {block} is loaded twice"
        while len(self._pages) >= self._options.capacity:
            victim = self.choose_victim()
            if victim is None:
                break
            self._evict(victim)
        self._pages[block] = page

    def choose_victim(self) -> int | None:
        """The page used longest ago that may go; ``None`` if every page must stay."""
        commit_lsn = self._commit_lsn()
        for block, page in self._pages.items():
            if page.lsn <= commit_lsn and block not in self._pins:
                return block
        return None

    def _evict(self, block: int) -> None:
        page = self._pages.pop(block)
        assert page.lsn <= self._commit_lsn(), f"block {block} is evicted before its commit"
        if page.lsn > self._options.start_lsn:
            self._left_at[block] = page.lsn
