"""What one incarnation of a node holds of a simulated disk: ``storage.ports.Disk`` and ``File``.

A call that the page cache serves takes no virtual time and, on the fast path, no turn of the loop.
Once the incarnation is dead, its calls neither happen nor return.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from sim.disk_faults import DiskFault, DiskOperation, io_error, no_space
from sim.inode import Inode
from sim.station import Holder, give_way, never
from storage.errors import DiskError, DiskFull, FileAlreadyExists, FileMissing
from storage.ports import path_parts

if TYPE_CHECKING:
    from sim.disk import SimDisk


class SimFile:
    """An open file; it keeps working after its name is gone, as on any POSIX system."""

    __slots__ = ("_disk", "_holder", "_inode", "_path")

    def __init__(self, disk: SimDisk, holder: Holder, inode: Inode, path: str) -> None:
        self._disk = disk
        self._holder = holder
        self._inode: Inode | None = inode
        self._path = path
        inode.handles += 1

    async def pread(self, offset: int, length: int) -> bytes:
        """Up to ``length`` bytes from ``offset``; shorter only at the end of the file."""
        disk = self._disk
        fault = None
        if disk.hindered or not self._holder.alive:
            fault = await disk.enter(self._holder, DiskOperation.PREAD, self._path)
        elif disk.generator.random() < disk.options.yield_probability:
            await self._give_way()
        inode = self._inode or self._closed()
        if offset < 0 or length < 0:
            raise DiskError(f"pread of {self._path!r} at {offset} of {length} bytes: negative")
        data = bytes(inode.cache[offset : offset + length])
        if fault is DiskFault.SHORT_READ and data:
            return data[: disk.generator.randrange(len(data))]
        return data

    async def pwrite(self, offset: int, data: bytes) -> None:
        """Write all of ``data``; on ``DiskFull`` a prefix of it."""
        disk = self._disk
        fault = None
        if disk.hindered or not self._holder.alive:
            fault = await disk.enter(self._holder, DiskOperation.PWRITE, self._path)
        elif disk.generator.random() < disk.options.yield_probability:
            await self._give_way()
        inode = self._inode or self._closed()
        if offset < 0:
            raise DiskError(f"pwrite of {self._path!r} at {offset}: negative offset")
        if type(data) is not bytes:
            data = bytes(data)  # The journal keeps it, and the caller may reuse its buffer.
        wanted = len(data)
        if fault is DiskFault.EIO:
            raise self._failed("pwrite")
        if fault is DiskFault.MISDIRECTED_WRITE:
            offset = disk.generator.randrange(len(inode.cache) + 1)
        elif fault is DiskFault.ENOSPC:
            data = data[: disk.generator.randrange(wanted + 1)]
        growth = offset + len(data) - len(inode.cache)
        if growth > 0 and data:
            given = disk.grow(growth)
            if given < growth:
                data = self._fitting(inode, offset, data, given)
        if data:
            inode.write(offset, data)
        if len(data) < wanted or fault is DiskFault.ENOSPC:
            raise self._full("pwrite")

    async def size(self) -> int:
        """Present length in bytes."""
        await self._enter(DiskOperation.SIZE)
        return len((self._inode or self._closed()).cache)

    async def truncate(self, size: int) -> None:
        """Cut or zero-extend to ``size`` bytes."""
        await self._enter(DiskOperation.TRUNCATE)
        inode = self._inode or self._closed()
        if size < 0:
            raise DiskError(f"truncate of {self._path!r} to {size} bytes: negative size")
        growth = size - len(inode.cache)
        if growth > 0:
            given = self._disk.grow(growth)
            if given < growth:
                self._disk.shrink(given)
                raise self._full("truncate")
        else:
            self._disk.shrink(-growth)
        inode.truncate(size)

    async def fsync(self) -> None:
        """Make content and size durable."""
        await self._sync(DiskOperation.FSYNC, sizes=True)

    async def fdatasync(self) -> None:
        """Make the content durable, but not a changed size."""
        await self._sync(DiskOperation.FDATASYNC, sizes=False)

    async def close(self) -> None:
        """Release the handle."""
        if not self._holder.alive:
            await never(self._disk.loop)
        inode, self._inode = self._inode, None
        if inode is not None:
            # A host crash forgets all handles, and this one may belong to the time before it.
            inode.handles = max(0, inode.handles - 1)
            self._disk.release(inode)

    async def _sync(self, operation: DiskOperation, *, sizes: bool) -> None:
        disk = self._disk
        fault = await self._enter(operation)
        inode = self._inode or self._closed()
        mark = inode.mark
        await disk.work(self._holder, disk.sync_seconds(inode.dirty_bytes))
        if fault is DiskFault.EIO:
            disk.effects["bytes_lost"] += inode.fail_sync(mark, disk.generator)
            raise self._failed(operation.value)
        if fault is not DiskFault.DROPPED_SYNC:
            inode.persist(mark, sizes=sizes)

    async def _enter(self, operation: DiskOperation) -> DiskFault | None:
        if self._disk.hindered or not self._holder.alive:
            return await self._disk.enter(self._holder, operation, self._path)
        return None

    async def _give_way(self) -> None:
        await give_way()
        if not self._holder.alive:
            await never(self._disk.loop)

    def _fitting(self, inode: Inode, offset: int, data: bytes, given: int) -> bytes:
        """The prefix that fits in a file which may grow by ``given`` bytes; frees the rest."""
        size = len(inode.cache)
        prefix = data[: max(0, size + given - offset)]
        end = max(size, offset + len(prefix)) if prefix else size
        self._disk.shrink(given - (end - size))
        return prefix

    def _full(self, what: str) -> DiskFull:
        return no_space(what, self._path)

    def _failed(self, what: str) -> DiskError:
        return io_error(what, self._path)

    def _closed(self) -> Inode:
        raise DiskError(f"the file {self._path!r} is closed; open it again")


class DiskView:
    """One incarnation's directory tree."""

    __slots__ = ("_disk", "_holder")

    def __init__(self, disk: SimDisk, holder: Holder) -> None:
        self._disk = disk
        self._holder = holder

    async def open(self, path: str, *, create: bool = False, exclusive: bool = False) -> SimFile:
        """Open for reading and writing, creating the file if that is asked for."""
        await self._enter(DiskOperation.OPEN, path)
        names = self._disk.names
        if exclusive and names.find(path) is not None:
            raise FileAlreadyExists(f"{path!r} exists already")
        inode = names.file(path)
        if inode is None:
            if not create and not exclusive:
                raise FileMissing(f"there is no file {path!r} on this disk")
            inode = names.create(path)
        return SimFile(self._disk, self._holder, inode, path)

    async def rename(self, source: str, target: str) -> None:
        """Atomically give a file or directory a new name."""
        await self._enter(DiskOperation.RENAME, source)
        replaced = self._disk.names.rename(source, target)
        if replaced is not None:
            self._disk.release(replaced)

    async def unlink(self, path: str) -> None:
        """Remove a file's name."""
        await self._enter(DiskOperation.UNLINK, path)
        self._disk.release(self._disk.names.unlink(path))

    async def mkdir(self, path: str) -> None:
        """Create a directory and its missing parents."""
        await self._enter(DiskOperation.MKDIR, path)
        self._disk.names.make_directory(path)

    async def rmtree(self, path: str) -> None:
        """Remove a directory and all below it."""
        await self._enter(DiskOperation.RMTREE, path)
        for inode in self._disk.names.remove_tree(path):
            self._disk.release(inode)

    async def listdir(self, path: str) -> list[str]:
        """Names in a directory, sorted."""
        await self._enter(DiskOperation.LISTDIR, path)
        return sorted(self._disk.names.directory(path).entries)

    async def exists(self, path: str) -> bool:
        """Whether the path names a file or a directory."""
        await self._enter(DiskOperation.EXISTS, path)
        return self._disk.names.find(path) is not None

    async def sync_dir(self, path: str) -> None:
        """Make the names in a directory durable."""
        disk = self._disk
        fault = await self._enter(DiskOperation.SYNC_DIR, path)
        mark = disk.names.mark
        directory = disk.names.directory(path)
        await disk.work(self._holder, disk.sync_seconds(0))
        if fault is DiskFault.EIO:
            raise io_error("sync_dir", path)
        if fault is not DiskFault.DROPPED_SYNC:
            disk.names.sync(directory, mark)

    async def _enter(self, operation: DiskOperation, path: str) -> DiskFault | None:
        path_parts(path)
        disk = self._disk
        if disk.hindered or not self._holder.alive:
            return await disk.enter(self._holder, operation, path)
        if disk.generator.random() < disk.options.yield_probability:
            await give_way()
            if not self._holder.alive:
                await never(disk.loop)
        return None
