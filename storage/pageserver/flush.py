"""Writes frozen in-memory layers out, oldest first; freezes by age so that idle timelines settle.

Age counts from the first record after the last freeze and needs no traffic (BUGBANK
``idle-timeline-never-flushed``).
"""

from __future__ import annotations

import asyncio
import contextlib
import logging

from storage.errors import PortError
from storage.failpoints import Failpoint, failpoint
from storage.marks import Mark, reach
from storage.pageserver import values
from storage.pageserver.backoff import Backoff
from storage.pageserver.layer import Layer
from storage.pageserver.layer_name import LayerKind, LayerName
from storage.pageserver.timeline import FrozenLayer, Timeline
from storage.tasks import interruptible

logger = logging.getLogger(__name__)

VERSIONS_BETWEEN_YIELDS = 2000
"""A flush gives the loop back to readers after this many versions."""


class Flusher:
    """The flush of one timeline; :meth:`run` is its only worker."""

    def __init__(self, timeline: Timeline) -> None:
        self._timeline = timeline
        self._options = timeline.environment.options
        self._backoff = Backoff(timeline.environment.ports.entropy)

    async def run(self) -> None:
        """Flush until the task is asked to stop."""
        async with interruptible():
            while True:
                if self._timeline.frozen:
                    await self._flush_persistently()
                elif self._is_old():
                    self._timeline.freeze()
                else:
                    await self._wait()

    def _age_left_s(self) -> float | None:
        """Seconds until the open layer is old enough to be frozen; ``None`` while it is clean."""
        since = self._timeline.open_since_s
        if since is None:
            return None
        return since + self._options.checkpoint_timeout_s - asyncio.get_running_loop().time()

    def _is_old(self) -> bool:
        left_s = self._age_left_s()
        return left_s is not None and left_s <= 0

    async def _wait(self) -> None:
        """Until there is something to do, as far as can be known now."""
        self._timeline.flush_wanted.clear()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(self._age_left_s()):
                await self._timeline.flush_wanted.wait()

    async def _flush_persistently(self) -> None:
        """Write the oldest frozen layer; a failing disk is tried again, ingest waits meanwhile."""
        try:
            await self.flush_oldest()
        except PortError as error:
            reach(Mark.FLUSH_REPEATED)
            delay_s = self._backoff.next_delay_s()
            logger.warning(
                "flush of timeline %s: %s; again in %.2f s", self._timeline.ident, error, delay_s
            )
            await asyncio.sleep(delay_s)
        else:
            self._backoff.reset()

    async def flush_oldest(self) -> None:
        """Write the oldest frozen layer and make it known; ``PortError`` leaves it as it was."""
        frozen = self._timeline.frozen[0]
        with self._timeline.gate.hold():
            layer = await self._write(frozen) if len(frozen.layer) else None
            try:
                await failpoint(Failpoint.PS_FLUSH_WRITTEN)
            except PortError:
                await self._timeline.files.discard([] if layer is None else [layer])
                raise
            self._timeline.flushed(frozen, layer)

    async def _write(self, frozen: FrozenLayer) -> Layer:
        """The level-0 layer of a frozen one, durable under its name."""
        first, last = frozen.layer.key_range()
        async with self._timeline.files.writing("flush") as writer:
            for number, (key, lsn, value) in enumerate(frozen.layer.sorted_versions()):
                writer.add(key.encode(), lsn, values.encode(value))
                if number % VERSIONS_BETWEEN_YIELDS == 0:
                    await writer.drain()
                    await asyncio.sleep(0)
            name = LayerName(
                LayerKind.DELTA_0, first, last, frozen.layer.start_lsn, frozen.end_lsn,
                self._timeline.generation,
            )  # fmt: skip
            size = await writer.finish(name)
        return await self._timeline.files.publish("flush", name, size, self._timeline.layers)
