"""The disk is a cache of the object store: when layer files exceed a budget, the coldest go.

Only a file that the object store has, and that nobody reads, may go; the layer stays in the layer
map and is downloaded at its next read. One evictor for the whole node, woken by new files.
"""

from __future__ import annotations

import asyncio
import logging
from typing import Protocol

from storage.errors import NotReady, PortError
from storage.pageserver.layer import Layer
from storage.tasks import interruptible

logger = logging.getLogger(__name__)

RETRY_S = 0.05
"""When everything cold is being read or not uploaded yet, look again after this long."""


class Owner(Protocol):
    """Whose directory a layer's file lies in."""

    async def evict(self, layer: Layer) -> bool:
        """Remove the file if nobody reads it; whether it went. ``NotReady`` once closed."""
        ...


class DiskBudget:
    """Layer files that are on this node's disk. A budget of 0 bytes means no limit."""

    def __init__(self, budget_bytes: int) -> None:
        assert budget_bytes >= 0, f"a disk budget of {budget_bytes} bytes"
        self.budget_bytes = budget_bytes
        self.used_bytes = 0
        self.evictions = 0
        self.downloads = 0
        self._resident: dict[str, tuple[Layer, Owner]] = {}
        self._uses = 0
        self._grown = asyncio.Event()

    def add(self, layer: Layer, owner: Owner) -> None:
        """A layer's file is on disk now; harmless if it was, and whoever knew it before (an attempt
        to attach that failed) is forgotten."""
        previous = self._resident.get(layer.path)
        if previous is not None:
            self.used_bytes -= previous[0].size
        self._resident[layer.path] = (layer, owner)
        self.used_bytes += layer.size
        self.touch(layer)
        if self.is_exceeded():
            self._grown.set()

    def drop(self, layer: Layer) -> None:
        """A layer's file is gone, or nobody's business any more; harmless if it was not here."""
        resident = self._resident.get(layer.path)
        if resident is not None and resident[0] is layer:
            del self._resident[layer.path]
            self.used_bytes -= layer.size
            assert self.used_bytes >= 0, "the accounting of the disk is off"

    def touch(self, layer: Layer) -> None:
        """A layer is read: it is the last to go."""
        self._uses += 1
        layer.last_use = self._uses

    def is_exceeded(self) -> bool:
        """Whether there is more on disk than there may be."""
        return bool(self.budget_bytes) and self.used_bytes > self.budget_bytes

    async def run(self) -> None:
        """Evict until the task is asked to stop."""
        async with interruptible():
            while True:
                await self._grown.wait()
                self._grown.clear()
                while self.is_exceeded():
                    if not await self._evict_coldest():
                        await asyncio.sleep(RETRY_S)

    async def _evict_coldest(self) -> bool:
        """Evict the coldest file that may go; whether there was one."""
        for layer, owner in self._by_age():
            if not may_evict(layer):
                continue
            try:
                if await owner.evict(layer):
                    self.drop(layer)
                    self.evictions += 1
                    return True
            except (PortError, NotReady) as error:
                logger.info("evicting %s: %s", layer.path, error)
        return False

    def _by_age(self) -> list[tuple[Layer, Owner]]:
        return sorted(self._resident.values(), key=lambda resident: resident[0].last_use)


def may_evict(layer: Layer) -> bool:
    """Whether a file can be brought back from the object store, and nobody uses it now."""
    return layer.is_remote and not layer.is_pinned
