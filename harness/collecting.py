"""Garbage collection as a scenario causes it: small layers, no history kept, pass after pass.

A pass that is refused (the tenant moves, restarts, or was loaded lately) is life; what counts is
how many layers were removed while the scenario did something else.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Self

from harness.errors import NotLive
from harness.faulting.control_plane import ASKING
from harness.topology import KIB

if TYPE_CHECKING:
    from harness.cluster import Cluster
    from storage.ids import TenantTimelineId

LEASE_S = 1.0
BETWEEN_PASSES_S = 0.05

SMALL_LAYERS: Mapping[str, Any] = {
    "checkpoint_distance": 8 * KIB,
    "checkpoint_timeout_s": 0.5,
    "compaction_period_s": 0.3,
    "compaction_threshold": 2,
    "compaction_target_size": 32 * KIB,
    "image_creation_threshold": 1,
    "page_cache_size": 0,
    "gc_period_s": 0,
    "lease_length_s": LEASE_S,
}
"""Options of a pageserver whose history turns into garbage within seconds."""


class Collecting:
    """Passes over one timeline on every pageserver that runs, one after the other, for ever.

    ``async with`` starts and ends them; ``horizon_bytes`` of WAL are kept, ``pause_s`` seconds lie
    between them.
    """

    def __init__(
        self,
        cluster: Cluster,
        timeline: TenantTimelineId,
        *,
        horizon_bytes: int = 0,
        pause_s: float = BETWEEN_PASSES_S,
    ) -> None:
        self.passes = 0
        self.refused = 0
        self.layers_removed = 0
        self._cluster = cluster
        self._timeline = timeline
        self._horizon_bytes = horizon_bytes
        self._pause_s = pause_s
        self._removed = asyncio.Event()
        self._task: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Self:
        self._task = asyncio.create_task(self._run(), name="collecting")
        return self

    async def __aexit__(self, *_: object) -> None:
        assert self._task is not None, "it was never started"
        self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)

    async def _run(self) -> None:
        while True:
            for pageserver in self._cluster.pageservers:
                try:
                    async with asyncio.timeout(5.0):
                        done = await pageserver.collect_garbage(
                            self._timeline, gc_horizon=self._horizon_bytes
                        )
                except ASKING:
                    self.refused += 1
                    continue
                self.passes += 1
                self.layers_removed += done.layers_removed
                if done.layers_removed:
                    self._removed.set()
            await asyncio.sleep(self._pause_s)

    async def removes(self, layers: int, *, within_s: float = 60.0) -> None:
        """Return once so many more layers were removed; ``NotLive`` if that does not come about."""
        wanted = self.layers_removed + layers
        try:
            async with asyncio.timeout(within_s):
                while self.layers_removed < wanted:
                    self._removed.clear()
                    await self._removed.wait()
        except TimeoutError:
            raise NotLive(
                f"{self.layers_removed} of {wanted} layers removed within {within_s:g} s, "
                f"{self.passes} passes, {self.refused} refused",
                checker="collecting",
            ) from None
