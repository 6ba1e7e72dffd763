"""A persistent layer of a running timeline: perhaps on disk, always (soon) in the object store."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager

from storage.errors import CorruptData, FileMissing, ObjectMissing, PortError
from storage.marks import Mark, reach
from storage.pageserver.layer_file import BlockCache, LayerReader
from storage.pageserver.layer_name import LayerName
from storage.ports import Disk

logger = logging.getLogger(__name__)

Fetch = Callable[[LayerName, int], Awaitable[None]]
"""Brings a layer file of a known size from the object store to its place on disk, durably."""


class Layer:
    """Opens its file at the first read, fetching it if it is not there.

    A file that turns out to be damaged is replaced by the object store's copy. Readers pin the
    layer; :meth:`close` waits for them before its file may go.
    """

    def __init__(self, name: LayerName, size: int, path: str) -> None:
        self.name = name
        self.size = size
        self.path = path
        self._reader: LayerReader | None = None
        self._distrusted: list[LayerReader] = []
        self._damage: CorruptData | None = None
        self._opening = asyncio.Lock()
        self._pins = 0
        self._unpinned = asyncio.Event()
        self._unpinned.set()

    def __repr__(self) -> str:
        return f"Layer({self.name}, {self.size} bytes)"

    @contextmanager
    def pin(self) -> Iterator[None]:
        """Keep the layer's file in place while the block runs."""
        self._pins += 1
        self._unpinned.clear()
        try:
            yield
        finally:
            self._pins -= 1
            if not self._pins:
                self._unpinned.set()

    async def reader(self, disk: Disk, cache: BlockCache, fetch: Fetch) -> LayerReader:
        """The open file; raises ``PortError`` or ``CorruptData``. Hold a pin while using it."""
        assert self._pins, f"{self.name} is read without a pin"
        if self._reader is not None:
            return self._reader
        async with self._opening:
            if self._reader is None:
                self._reader = await self._open(disk, cache, fetch)
            return self._reader

    async def _open(self, disk: Disk, cache: BlockCache, fetch: Fetch) -> LayerReader:
        try:
            if self._damage is not None:
                raise self._damage
            return await LayerReader.open(disk, self.path, self.name, cache)
        except FileMissing:
            await fetch(self.name, self.size)
        except CorruptData as error:
            await self._replace(fetch, error)
        return await LayerReader.open(disk, self.path, self.name, cache)

    async def _replace(self, fetch: Fetch, damage: CorruptData) -> None:
        """Download a file that is damaged here; raises ``damage`` if it is nowhere else."""
        self._damage = None
        logger.warning("%s; the layer is downloaded again", damage)
        try:
            await fetch(self.name, self.size)
        except ObjectMissing:
            raise damage from None
        except PortError:
            self._damage = damage
            raise
        reach(Mark.LAYER_REPAIRED)

    def distrust(self, reader: LayerReader, damage: CorruptData) -> None:
        """What ``reader`` reads is damaged: whoever asks for a reader next gets another file."""
        if self._reader is reader:
            self._reader, self._damage = None, damage
            self._distrusted.append(reader)  # Others may be in the middle of a read.

    async def close(self) -> None:
        """Wait for the readers, then release the file; the layer must be out of the map."""
        while self._pins:
            await self._unpinned.wait()
        reader, self._reader = self._reader, None
        for each in ([] if reader is None else [reader]) + self._distrusted:
            await each.close()
