"""A node's disk and clock seen through its fault page; without faults, one look at a number more.

Implements ``storage.ports.Disk`` over another one, and ``storage.ports.Clock`` over the system's.
Twin of ``sim/disk_view.py``: a fault means the same there.
"""

from __future__ import annotations

import asyncio
import errno
import time

from harness.fault_ports import DiskFault
from real.disk import disk_error
from real.fault_page import MICRO_PER_S, FaultPage, Slot
from storage.ports import Clock, Disk, File

STALL_POLL_S = 0.01
EVERYTHING = 1
"""In ``Slot.STALLED``: every call waits; 2: only syncs do."""


def _error(number: int, what: str) -> OSError:
    return OSError(number, "injected: " + errno.errorcode[number])


class Hindrance:
    """What stands between a node and its disk."""

    def __init__(self, page: FaultPage) -> None:
        self.page = page

    async def pass_by(self, what: str, *, grows: bool = False, syncs: bool = False) -> None:
        """Wait as long as the disk does; raise ``DiskError`` or ``DiskFull`` if a fault strikes."""
        page = self.page
        if not page[Slot.HINDERED]:
            return
        await self._wait(syncs=syncs)
        if page.take(DiskFault.EIO):
            page.count(Slot.CALLS_FAILED)
            raise disk_error(_error(errno.EIO, what), what)
        if grows and page.take(DiskFault.ENOSPC):
            page.count(Slot.CALLS_FAILED)
            raise disk_error(_error(errno.ENOSPC, what), what)

    async def _wait(self, *, syncs: bool) -> None:
        page = self.page
        if page[Slot.SLOW_US]:
            page.count(Slot.CALLS_SLOWED)
            await asyncio.sleep(page[Slot.SLOW_US] / MICRO_PER_S)
        if page[Slot.STALLED] == EVERYTHING or (syncs and page[Slot.STALLED]):
            page.count(Slot.CALLS_STALLED)
            while page[Slot.STALLED]:  # noqa: ASYNC110 (the other end is another process)
                await asyncio.sleep(STALL_POLL_S)

    def take_space(self, size: int) -> int:
        """How many bytes of a write fit."""
        page = self.page
        if not page[Slot.FULL]:
            return size
        fits = min(size, page[Slot.FREE_BYTES])
        page[Slot.FREE_BYTES] -= fits
        if fits < size:
            page.count(Slot.WRITES_REFUSED)
        return fits

    def strikes(self, fault: DiskFault, counter: Slot) -> bool:
        """Whether a fault that is no error strikes this call."""
        if not self.page[Slot.HINDERED] or not self.page.take(fault):
            return False
        self.page.count(counter)
        return True


class FaultyFile:
    """An open file behind a hindrance."""

    def __init__(self, file: File, hindrance: Hindrance, path: str) -> None:
        self._file = file
        self._hindrance = hindrance
        self._path = path

    async def pread(self, offset: int, length: int) -> bytes:
        """Up to ``length`` bytes from ``offset``; shorter at the end, or when a fault strikes."""
        await self._hindrance.pass_by(f"pread of {self._path!r}")
        data = await self._file.pread(offset, length)
        if len(data) > 1 and self._hindrance.strikes(DiskFault.SHORT_READ, Slot.READS_SHORTENED):
            return data[: len(data) // 2]
        return data

    async def pwrite(self, offset: int, data: bytes) -> None:
        """Write all of ``data``, unless a fault strikes."""
        what = f"pwrite of {self._path!r}"
        await self._hindrance.pass_by(what, grows=True)
        fits = self._hindrance.take_space(len(data))
        if fits < len(data):
            await self._file.pwrite(offset, data[:fits])
            raise disk_error(_error(errno.ENOSPC, what), what)
        if self._hindrance.strikes(DiskFault.MISDIRECTED_WRITE, Slot.WRITES_MISDIRECTED):
            offset = max(0, offset - len(data))
        await self._file.pwrite(offset, data)

    async def size(self) -> int:
        """Present length in bytes."""
        await self._hindrance.pass_by(f"size of {self._path!r}")
        return await self._file.size()

    async def truncate(self, size: int) -> None:
        """Cut or zero-extend to ``size`` bytes."""
        await self._hindrance.pass_by(f"truncate of {self._path!r}", grows=True)
        await self._file.truncate(size)

    async def fsync(self) -> None:
        """Make content and size durable, unless a fault strikes."""
        await self._hindrance.pass_by(f"fsync of {self._path!r}", syncs=True)
        if not self._hindrance.strikes(DiskFault.DROPPED_SYNC, Slot.SYNCS_DROPPED):
            await self._file.fsync()

    async def fdatasync(self) -> None:
        """Make the content durable, unless a fault strikes."""
        await self._hindrance.pass_by(f"fdatasync of {self._path!r}", syncs=True)
        if not self._hindrance.strikes(DiskFault.DROPPED_SYNC, Slot.SYNCS_DROPPED):
            await self._file.fdatasync()

    async def close(self) -> None:
        """Release the descriptor."""
        await self._file.close()


class FaultyDisk:
    """A directory tree behind a hindrance."""

    def __init__(self, disk: Disk, page: FaultPage) -> None:
        self._disk = disk
        self._hindrance = Hindrance(page)

    async def open(self, path: str, *, create: bool = False, exclusive: bool = False) -> File:
        """Open for reading and writing."""
        await self._hindrance.pass_by(f"open of {path!r}", grows=create or exclusive)
        file = await self._disk.open(path, create=create, exclusive=exclusive)
        return FaultyFile(file, self._hindrance, path)

    async def rename(self, source: str, target: str) -> None:
        """Atomically give a file or directory a new name."""
        await self._hindrance.pass_by(f"rename of {source!r} to {target!r}")
        await self._disk.rename(source, target)

    async def unlink(self, path: str) -> None:
        """Remove a file's name."""
        await self._hindrance.pass_by(f"unlink of {path!r}")
        await self._disk.unlink(path)

    async def mkdir(self, path: str) -> None:
        """Create a directory and its missing parents."""
        await self._hindrance.pass_by(f"mkdir of {path!r}", grows=True)
        await self._disk.mkdir(path)

    async def rmtree(self, path: str) -> None:
        """Remove a directory and all below it."""
        await self._hindrance.pass_by(f"rmtree of {path!r}")
        await self._disk.rmtree(path)

    async def listdir(self, path: str) -> list[str]:
        """Names in a directory, sorted."""
        await self._hindrance.pass_by(f"listdir of {path!r}")
        return await self._disk.listdir(path)

    async def exists(self, path: str) -> bool:
        """Whether the path names a file or a directory."""
        await self._hindrance.pass_by(f"exists of {path!r}")
        return await self._disk.exists(path)

    async def sync_dir(self, path: str) -> None:
        """Make the names in a directory durable, unless a fault strikes."""
        await self._hindrance.pass_by(f"sync_dir of {path!r}", syncs=True)
        if not self._hindrance.strikes(DiskFault.DROPPED_SYNC, Slot.SYNCS_DROPPED):
            await self._disk.sync_dir(path)


class FaultyClock:
    """A wall clock, as wrong as the page says."""

    def __init__(self, clock: Clock, page: FaultPage) -> None:
        self._clock = clock
        self._page = page

    def wall_us(self) -> int:
        """Microseconds since the Unix epoch, as this node believes."""
        error_us = self._page.wall_error_us(time.monotonic_ns())
        if error_us:
            self._page.count(Slot.TIMES_TOLD_WRONG)
        return self._clock.wall_us() + error_us
