"""The layer files of one timeline on disk: written once, visible only when durable.

Temporary file → fsync → rename → fsync of the directory, and only then may anybody refer to the
layer (BUGBANK ``layer-file-visible-before-durable``). A file is never overwritten: a leftover that
the layer map does not name is removed first. What the index does not name is removed at load.
"""

from __future__ import annotations

import contextlib
import logging
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Iterable
from contextlib import aclosing, asynccontextmanager
from typing import TypeVar

from storage.durable import TEMPORARY_SUFFIX, parent_of
from storage.errors import CorruptData, DiskError, FileMissing, NotReady, ObjectMissing
from storage.ids import TenantTimelineId
from storage.lsn import Lsn
from storage.marks import Mark, reach
from storage.pageserver.environment import Environment
from storage.pageserver.gate import Gate
from storage.pageserver.keys import Key
from storage.pageserver.layer import Layer
from storage.pageserver.layer_file import Entry, LayerReader, LayerWriter, check_whole
from storage.pageserver.layer_map import LayerMap
from storage.pageserver.layer_name import LayerName
from storage.pageserver.memory_layer import Version
from storage.pageserver.remote import RemoteTenant
from storage.ports import Disk

logger = logging.getLogger(__name__)

T = TypeVar("T")

TENANTS = "tenants"
"""Directory of everything the node keeps for its tenants."""


def tenant_directory(tenant_id: str) -> str:
    """Directory of one tenant."""
    return f"{TENANTS}/{tenant_id}"


async def make_directory(disk: Disk, path: str) -> None:
    """Create a directory with its parents, every name of them durable; ``DiskError``."""
    await disk.mkdir(path)
    while path:
        path = parent_of(path)
        await disk.sync_dir(path)


class SpoiltLayer(CorruptData):
    """The file of ``layer`` is damaged, and nobody has a better copy of it now."""

    def __init__(self, layer: LayerName, damage: CorruptData) -> None:
        super().__init__(str(damage))
        self.layer = layer


class LayerFiles:
    """File operations on layers; every method raises ``PortError``. Callers hold the gate."""

    def __init__(
        self, environment: Environment, ident: TenantTimelineId, remote: RemoteTenant
    ) -> None:
        self.gate = Gate(f"timeline {ident}")
        self.is_newest: Callable[[], Awaitable[bool]] = remote_is_ours
        self.keeps_all = False
        self._disk = environment.ports.disk
        self._ident = ident
        self._remote = remote
        self._cache = environment.blocks
        self._budget = environment.budget
        self._directory = f"{tenant_directory(ident.tenant_id)}/timelines/{ident.timeline_id}"

    def path(self, name: LayerName) -> str:
        """Where a layer's file lies."""
        return f"{self._directory}/{name}"

    async def load(self, listed: Iterable[tuple[LayerName, int]]) -> list[Layer]:
        """The layers an index lists; removes other layers, those of a wrong size and temporary
        files. A file of any other name is not ours to remove."""
        await make_directory(self._disk, self._directory)
        layers = {str(name): Layer(name, size, self.path(name)) for name, size in listed}
        for text in await self._disk.listdir(self._directory):
            path = f"{self._directory}/{text}"
            if not LayerName.is_name(text) and not text.endswith(TEMPORARY_SUFFIX):
                logger.info("leaving %s alone: it is no layer", path)
            elif text not in layers or await self._size(path) != layers[text].size:
                reach(Mark.LAYER_IGNORED_AT_LOAD)
                logger.info("removing %s: the index does not name it so", path)
                await self._disk.unlink(path)
            else:
                self._budget.add(layers[text], self)
        await self._disk.sync_dir(self._directory)
        for layer in layers.values():
            layer.is_remote = True
        return list(layers.values())

    async def _size(self, path: str) -> int:
        file = await self._disk.open(path)
        try:
            return await file.size()
        finally:
            await file.close()

    async def reader(self, layer: Layer) -> LayerReader:
        """The open file of a pinned layer, downloaded first if it is not here; ``SpoiltLayer``."""
        self._budget.touch(layer)
        try:
            return await layer.reader(self._disk, self._cache, self.fetch)
        except CorruptData as error:
            raise SpoiltLayer(layer.name, error) from error

    def scan(self, layer: Layer) -> AsyncGenerator[list[tuple[Entry, bytes]], None]:
        """Every version of a pinned layer in order, in batches; ``PortError``, ``SpoiltLayer``."""
        return self._repairing(layer, LayerReader.scan)

    def distinct_keys(self, layer: Layer) -> AsyncGenerator[list[bytes], None]:
        """As :meth:`scan`, the encoded keys only."""
        return self._repairing(layer, LayerReader.distinct_keys)

    async def _repairing(
        self, layer: Layer, read: Callable[[LayerReader, int], AsyncGenerator[T, None]]
    ) -> AsyncGenerator[T, None]:
        """Batches of a layer; when its file turns out to be damaged it is replaced once, and the
        next batch comes from the other file, which has the same bytes."""
        done, repaired = 0, False
        while True:
            reader = await self.reader(layer)
            try:
                async with aclosing(read(reader, done)) as batches:
                    async for batch in batches:
                        done += 1
                        yield batch
                return
            except CorruptData as error:
                layer.distrust(reader, error)
                if repaired:
                    raise SpoiltLayer(layer.name, error) from error
                repaired = True

    async def is_here(self, layer: Layer) -> bool:
        """Whether the layer's file is on disk."""
        return await self._disk.exists(layer.path)

    async def collect(
        self, layer: Layer, key: Key, span: tuple[Lsn, Lsn], into: list[Version]
    ) -> bool:
        """As ``MemoryLayer.collect`` from a pinned layer, ``span`` being above and upto; a damaged
        file is replaced once. ``PortError``, or ``CorruptData`` if nobody has a better one."""
        begin = len(into)
        reader = await self.reader(layer)
        try:
            return await reader.collect(key, *span, into)
        except CorruptData as error:
            del into[begin:]
            layer.distrust(reader, error)
            return await (await self.reader(layer)).collect(key, *span, into)

    async def evict(self, layer: Layer) -> bool:
        """Remove a file that can be downloaded again, unless somebody uses it."""
        if self.keeps_all:
            return False
        with self.gate.hold():
            return await layer.evict(self._disk)

    @asynccontextmanager
    async def writing(self, purpose: str) -> AsyncIterator[LayerWriter]:
        """A writer into the temporary file of ``purpose``; finish it inside the block."""
        file = await self._disk.open(self._temporary(purpose), create=True)
        try:
            await file.truncate(0)
            yield LayerWriter(file)
        finally:
            await file.close()

    def _temporary(self, purpose: str) -> str:
        return f"{self._directory}/{purpose}{TEMPORARY_SUFFIX}"

    async def publish(
        self, purpose: str, name: LayerName, size: int, layers: LayerMap[Layer]
    ) -> Layer:
        """Give a finished temporary file its name, durably; returns the layer."""
        assert name not in layers, f"layer {name} exists: it must not be overwritten"
        layer = Layer(name, size, self.path(name))
        if await self._disk.exists(layer.path):
            reach(Mark.HALF_LAYER_REPLACED)
            logger.info("removing %s, which an attempt that failed left", layer.path)
            await self._disk.unlink(layer.path)
        await self._disk.rename(self._temporary(purpose), layer.path)
        await self._disk.sync_dir(self._directory)
        self._budget.add(layer, self)
        return layer

    async def _download(self, name: LayerName) -> bytes:
        """The object of a layer. A stale attachment's successor may have removed it: ``NotReady``;
        for the newest one it is lost: ``ObjectMissing``."""
        try:
            return await self._remote.get(self._remote.layer_key(self._ident.timeline_id, name))
        except ObjectMissing as error:
            if await self.is_newest():
                raise
            raise NotReady(f"timeline {self._ident} was attached elsewhere since") from error

    async def fetch(self, layer: Layer) -> None:
        """Download a layer; ``CorruptData`` if it is not what the index says."""
        name = layer.name
        data = await self._download(name)
        if len(data) != layer.size:
            raise CorruptData(
                f"object of layer {name} has {len(data)} bytes instead of {layer.size}"
            )
        check_whole(data, f"object of layer {name}")
        reach(Mark.LAYER_DOWNLOADED)
        temporary = self._temporary(f"{name}.download")
        file = await self._disk.open(temporary, create=True)
        try:
            await file.truncate(0)
            await file.pwrite(0, data)
            await file.fsync()
        finally:
            await file.close()
        await self._disk.rename(temporary, self.path(name))
        await self._disk.sync_dir(self._directory)
        self._budget.downloads += 1
        self._budget.add(layer, self)

    async def remove(self, layer: Layer) -> None:
        """Close a layer that left the map, once nobody reads it, and remove its file."""
        await layer.close()
        self._budget.drop(layer)
        with contextlib.suppress(FileMissing):
            await self._disk.unlink(layer.path)

    async def discard(self, layers: list[Layer]) -> None:
        """Remove files of layers that were never in the map: the work that made them failed."""
        for layer in layers:
            try:
                await self.remove(layer)
            except DiskError as error:
                logger.info("removing %s, which nobody needs: %s", layer.path, error)

    async def release(self, layer: Layer) -> None:
        """Close a layer whose timeline ends here; its file stays."""
        await layer.close()
        self._budget.drop(layer)


async def remote_is_ours() -> bool:
    """Until somebody knows better, a missing object is a lost one."""
    return True
