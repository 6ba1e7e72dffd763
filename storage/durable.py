"""Whole files over :class:`Disk`: atomic, durable replacement and reading.

The order is the classical one: write a temporary file, fsync it, rename it over the old one, fsync
the directory. A crash at any point leaves the old content or the new one, never a mixture; the
temporary file may survive and is overwritten by the next replacement. What a crashed process left
can be read although it is not durable: who believes it makes it so first (``read_settled``).
"""

from __future__ import annotations

from storage.errors import DiskError
from storage.ports import Disk, File

TEMPORARY_SUFFIX = ".tmp"


def parent_of(path: str) -> str:
    """Directory part of a path as :class:`Disk` writes it; ``""`` is the root."""
    return path.rpartition("/")[0]


async def replace_file(disk: Disk, path: str, data: bytes) -> None:
    """Make ``data`` the whole content of ``path``, durably and atomically.

    Raises ``DiskError``; the caller must then assume that either content may be the durable one.
    Two replacements of one path must not run at once: they share the temporary file.
    """
    assert path, "the root is not a file"
    assert not path.endswith(TEMPORARY_SUFFIX), path
    temporary = path + TEMPORARY_SUFFIX
    await _write_whole(disk, temporary, data)
    await disk.rename(temporary, path)
    await disk.sync_dir(parent_of(path))


async def _write_whole(disk: Disk, path: str, data: bytes) -> None:
    file = await disk.open(path, create=True)
    try:
        # A crashed replacement may have left a longer temporary file.
        await file.truncate(0)
        await file.pwrite(0, data)
        await file.fsync()
    finally:
        await file.close()


async def read_file(disk: Disk, path: str) -> bytes:
    """The whole content of ``path``; ``FileMissing`` if there is none, ``DiskError`` if short."""
    file = await disk.open(path)
    try:
        return await _read_whole(file, path)
    finally:
        await file.close()


async def read_settled(disk: Disk, path: str) -> bytes:
    """The same for a file that :func:`replace_file` wrote, durable when it is returned.

    Else a power cut could bring back an older one after somebody was told of this.
    """
    file = await disk.open(path)
    try:
        await file.fsync()
        data = await _read_whole(file, path)
    finally:
        await file.close()
    await disk.sync_dir(parent_of(path))
    return data


async def _read_whole(file: File, path: str) -> bytes:
    size = await file.size()
    data = await file.pread(0, size)
    if len(data) != size:
        raise DiskError(f"{path}: the disk returned {len(data)} of {size} bytes")
    return data
