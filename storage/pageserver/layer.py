"""A persistent layer of a running timeline: perhaps on disk, always (soon) in the object store."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import contextmanager

from storage.errors import CorruptData, FileMissing, ObjectMissing, PortError
from storage.marks import Mark, reach
from storage.pageserver.layer_file import BlockCache, LayerReader
from storage.pageserver.layer_name import LayerName
from storage.ports import Disk

logger = logging.getLogger(__name__)

Fetch = Callable[["Layer"], Awaitable[None]]
"""Brings a layer's file from the object store to its place on disk, durably."""


@contextmanager
def pinned(layers: Sequence[Layer]) -> Iterator[None]:
    """Keep the layers' files in place while the block runs."""
    for layer in layers:
        layer.pin()
    try:
        yield
    finally:
        for layer in layers:
            layer.unpin()


class Layer:
    """Opens its file at the first read, fetching it if it is not there.

    A file that turns out to be damaged is replaced by the object store's copy. Readers pin the
    layer; :meth:`close` waits for them before its file may go. ``is_remote``: the object store has
    it, and an index there names it or is about to.
    """

    def __init__(self, name: LayerName, size: int, path: str) -> None:
        self.name = name
        self.size = size
        self.path = path
        self._reader: LayerReader | None = None
        self._distrusted: list[LayerReader] = []
        self._damage: CorruptData | None = None
        self._complaint = ""
        self._opening = asyncio.Lock()
        self._pins = 0
        self.is_remote = False
        self.last_use = 0
        self._unpinned = asyncio.Event()
        self._unpinned.set()

    def __repr__(self) -> str:
        return f"Layer({self.name}, {self.size} bytes)"

    def pin(self) -> None:
        """Keep the layer's file in place until :meth:`unpin`; see :func:`pinned`."""
        self._pins += 1
        self._unpinned.clear()

    def unpin(self) -> None:
        """One user less."""
        assert self._pins, f"{self.name} is not pinned"
        self._pins -= 1
        if not self._pins:
            self._unpinned.set()

    @property
    def is_pinned(self) -> bool:
        """Whether somebody relies on the file now."""
        return self._pins > 0

    async def evict(self, disk: Disk) -> bool:
        """Remove the file unless somebody uses it; whether it is gone. ``DiskError``.

        A reader that comes meanwhile waits, and then fetches it again.
        """
        if self._pins:
            return False
        async with self._opening:
            if self._pins:
                return False
            assert self.is_remote, f"{self.name} is nowhere else"
            await self._close_readers()
            self._damage = None
            with contextlib.suppress(FileMissing):
                await disk.unlink(self.path)
            return True

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
            await fetch(self)
        except CorruptData as error:
            await self._replace(fetch, error)
        return await LayerReader.open(disk, self.path, self.name, cache)

    async def _replace(self, fetch: Fetch, damage: CorruptData) -> None:
        """Download a file that is damaged here; raises ``damage`` if it is nowhere else."""
        self._damage = None
        if str(damage) != self._complaint:
            self._complaint = str(damage)
            logger.warning("%s; the layer is downloaded again", damage)
        try:
            await fetch(self)
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
        await self._close_readers()

    async def _close_readers(self) -> None:
        """Nobody may be reading; whoever comes next opens the file anew."""
        reader, self._reader = self._reader, None
        distrusted, self._distrusted = self._distrusted, []
        for each in ([] if reader is None else [reader]) + distrusted:
            await each.close()
