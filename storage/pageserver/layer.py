"""A persistent layer of a running timeline: perhaps on disk, always (soon) in the object store."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager

from storage.errors import FileMissing
from storage.pageserver.layer_file import BlockCache, LayerReader
from storage.pageserver.layer_name import LayerName
from storage.ports import Disk

Fetch = Callable[[LayerName, int], Awaitable[None]]
"""Brings a layer file of a known size from the object store to its place on disk, durably."""


class Layer:
    """Opens its file at the first read, fetching it if it is not there.

    Readers pin the layer; :meth:`close` waits for them before its file may go.
    """

    def __init__(self, name: LayerName, size: int, path: str) -> None:
        self.name = name
        self.size = size
        self.path = path
        self._reader: LayerReader | None = None
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
            return await LayerReader.open(disk, self.path, self.name, cache)
        except FileMissing:
            await fetch(self.name, self.size)
            return await LayerReader.open(disk, self.path, self.name, cache)

    async def close(self) -> None:
        """Wait for the readers, then release the file; the layer must be out of the map."""
        while self._pins:
            await self._unpinned.wait()
        reader, self._reader = self._reader, None
        if reader is not None:
            await reader.close()
