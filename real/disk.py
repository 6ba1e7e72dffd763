"""Files of the operating system below one directory; implements ``storage.ports.Disk``.

Every call runs on the node's :class:`~real.disk_pool.DiskPool`. A call whose task is cancelled
still finishes, and a descriptor is closed only after the last call that uses it has returned.
"""

from __future__ import annotations

import asyncio
import errno
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

from real.disk_pool import DiskPool
from storage.errors import DiskError, DiskFull, FileAlreadyExists, FileMissing
from storage.ports import path_parts

T = TypeVar("T")

_OPEN_FLAGS = os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW
_KINDS: dict[int, type[DiskError]] = {
    errno.ENOENT: FileMissing,
    errno.ENOTDIR: FileMissing,
    errno.EEXIST: FileAlreadyExists,
    errno.ENOSPC: DiskFull,
    errno.EDQUOT: DiskFull,
    errno.EFBIG: DiskFull,
}


class ThreadPoolFile:
    """An open file descriptor and the calls that use it now."""

    def __init__(self, disk: ThreadPoolDisk, descriptor: int, path: str) -> None:
        self._disk = disk
        self._descriptor = descriptor
        self._path = path
        self._under_way = 0
        self._closing = False

    async def pread(self, offset: int, length: int) -> bytes:
        """Up to ``length`` bytes from ``offset``; shorter only at the end of the file."""
        data: bytes = await self._call("pread", _pread, offset, length)
        return data

    async def pwrite(self, offset: int, data: bytes) -> None:
        """Write all of ``data``; on ``DiskFull`` perhaps a prefix of it."""
        # A thread may still write when the caller was cancelled and reuses its buffer.
        owned = data if type(data) is bytes else bytes(data)
        await self._call("pwrite", _pwrite, offset, owned)

    async def size(self) -> int:
        """Present length in bytes."""
        size: int = await self._call("size", _size)
        return size

    async def truncate(self, size: int) -> None:
        """Cut or zero-extend to ``size`` bytes."""
        await self._call("truncate", os.ftruncate, size)

    async def fsync(self) -> None:
        """Make content and size durable."""
        await self._call("fsync", os.fsync)

    async def fdatasync(self) -> None:
        """Make the content durable."""
        await self._call("fdatasync", os.fdatasync)

    async def close(self) -> None:
        """Release the descriptor, once no call uses it any more."""
        if self._closing:
            return
        self._closing = True
        if not self._under_way:
            await self._disk.pool.submit(self._disk.forget, self._descriptor)

    async def _call(self, what: str, call: Callable[..., Any], *args: Any) -> Any:
        if self._closing:
            raise DiskError(f"the file {self._path!r} is closed; open it again")
        self._under_way += 1
        try:
            return await self._disk.pool.submit(call, self._descriptor, *args, after=self._returned)
        except OSError as error:
            raise disk_error(error, f"{what} of {self._path!r}") from error

    def _returned(self, result: Any, error: BaseException | None) -> None:
        self._under_way -= 1
        assert self._under_way >= 0, f"{self._path!r} has {self._under_way} calls under way"
        if self._closing and not self._under_way:
            self._disk.pool.submit(self._disk.forget, self._descriptor)


class ThreadPoolDisk:
    """One node's directory tree. ``close`` it when the node ends."""

    def __init__(self, root: Path, pool_name: str, threads: int = 4) -> None:
        """Use the directory ``root``, made if missing; ``DiskError`` if it cannot be written."""
        self._root = str(root)
        self._descriptors: dict[int, None] = {}
        try:
            os.makedirs(self._root, exist_ok=True)
        except OSError as error:
            raise disk_error(error, f"making the data directory {self._root!r}") from error
        if not os.access(self._root, os.R_OK | os.W_OK | os.X_OK):
            raise DiskError(
                f"the data directory {self._root!r} is not writable for user {os.geteuid()}; "
                "choose another or change its permissions"
            )
        self.pool = DiskPool(pool_name, threads)

    async def open(
        self, path: str, *, create: bool = False, exclusive: bool = False
    ) -> ThreadPoolFile:
        """Open for reading and writing, creating the file if that is asked for."""
        flags = _OPEN_FLAGS
        if create or exclusive:
            flags |= os.O_CREAT
        if exclusive:
            flags |= os.O_EXCL

        def opened(descriptor: int | None, error: BaseException | None) -> None:
            if descriptor is not None and opening.cancelled():
                self.pool.submit(self.forget, descriptor)

        opening = self.pool.submit(self._open, self._below(path), flags, after=opened)
        try:
            descriptor = await opening
        except OSError as error:
            raise disk_error(error, f"open of {path!r}") from error
        except asyncio.CancelledError:
            if not opening.cancelled() and opening.exception() is None:
                # It was open already when the caller went away.
                self.pool.submit(self.forget, opening.result())
            raise
        return ThreadPoolFile(self, descriptor, path)

    async def rename(self, source: str, target: str) -> None:
        """Atomically give a file or directory a new name."""
        await self._call(
            f"rename of {source!r} to {target!r}", _rename, self._below(source), self._below(target)
        )

    async def unlink(self, path: str) -> None:
        """Remove a file's name."""
        await self._call(f"unlink of {path!r}", os.unlink, self._below(path))

    async def mkdir(self, path: str) -> None:
        """Create a directory and its missing parents."""
        await self._call(f"mkdir of {path!r}", _mkdir, self._below(path))

    async def rmtree(self, path: str) -> None:
        """Remove a directory and all below it."""
        if not path_parts(path):
            raise DiskError("the root of a disk cannot be created, renamed or removed")
        await self._call(f"rmtree of {path!r}", _rmtree, self._below(path))

    async def listdir(self, path: str) -> list[str]:
        """Names in a directory, sorted."""
        return sorted(await self._call(f"listdir of {path!r}", os.listdir, self._below(path)))

    async def exists(self, path: str) -> bool:
        """Whether the path names a file or a directory."""
        found: bool = await self._call(f"exists of {path!r}", os.path.lexists, self._below(path))
        return found

    async def sync_dir(self, path: str) -> None:
        """Make the names in a directory durable."""
        await self._call(f"sync_dir of {path!r}", _sync_dir, self._below(path))

    def close(self) -> None:
        """End the threads and close what the node left open; blocks for calls under way."""
        if self.pool.close():
            for descriptor in list(self._descriptors):
                self.forget(descriptor)

    def forget(self, descriptor: int) -> None:
        """Close a descriptor of a file that nobody uses."""
        if self._descriptors.pop(descriptor, True) is None:
            os.close(descriptor)

    def _open(self, path: str, flags: int) -> int:
        descriptor = os.open(path, flags, 0o644)
        self._descriptors[descriptor] = None
        return descriptor

    def _below(self, path: str) -> str:
        return os.path.join(self._root, *path_parts(path))

    async def _call(self, what: str, call: Callable[..., T], *args: Any) -> T:
        future: asyncio.Future[T] = self.pool.submit(call, *args)
        try:
            return await future
        except OSError as error:
            raise disk_error(error, what) from error


def disk_error(error: OSError, what: str) -> DiskError:
    """The port's error for one of the operating system's; ``what`` names call and path."""
    kind = _KINDS.get(error.errno or 0, DiskError)
    reason = error.strerror or str(error)
    may_have_happened = kind in (DiskError, DiskFull)
    return kind(f"{what} failed: {reason}", may_have_happened=may_have_happened)


def _pread(descriptor: int, offset: int, length: int) -> bytes:
    data = os.pread(descriptor, length, offset)
    if len(data) == length or not data:
        return data
    pieces = [data]
    while (got := sum(map(len, pieces))) < length:
        data = os.pread(descriptor, length - got, offset + got)
        if not data:
            break
        pieces.append(data)
    return b"".join(pieces)


def _pwrite(descriptor: int, offset: int, data: bytes) -> None:
    written = os.pwrite(descriptor, data, offset)
    while written < len(data):
        written += os.pwrite(descriptor, memoryview(data)[written:], offset + written)


def _size(descriptor: int) -> int:
    return os.fstat(descriptor).st_size


def _rename(source: str, target: str) -> None:
    os.lstat(source)  # Of several errors a missing source is the one to report.
    if source != target and os.path.isdir(target):
        raise IsADirectoryError(errno.EISDIR, "the target is a directory")
    if source != target and os.path.isdir(source) and os.path.lexists(target):
        raise IsADirectoryError(errno.EISDIR, "a directory cannot replace a file")
    os.rename(source, target)


def _mkdir(path: str) -> None:
    try:
        os.makedirs(path, exist_ok=True)
    except NotADirectoryError as error:
        raise FileExistsError(errno.EEXIST, "a parent is a file") from error


def _rmtree(path: str) -> None:
    if os.path.isdir(path):
        shutil.rmtree(path)
    elif os.path.lexists(path):
        raise OSError(errno.EIO, "it is a file; rmtree removes directories")


def _sync_dir(path: str) -> None:
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
