"""Files of the disk's contract tests."""

from __future__ import annotations

from storage.ports import Disk, File


async def written(disk: Disk, path: str, data: bytes) -> File:
    """A new file with this content, still open."""
    file = await disk.open(path, create=True)
    await file.pwrite(0, data)
    return file


async def content(disk: Disk, path: str) -> bytes:
    """All that a file holds."""
    file = await disk.open(path)
    try:
        return await file.pread(0, await file.size())
    finally:
        await file.close()
