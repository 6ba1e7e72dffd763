"""WAL on disk, in segment files named and sized as PostgreSQL's.

A segment is filled with zeros under a temporary name, synced and only then given its real name,
so that syncing data (not sizes) is enough for every byte written into it later. Positions come
from the caller: nothing here knows where the WAL ends.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from storage.durable import TEMPORARY_SUFFIX
from storage.errors import CorruptData, DiskError, FileMissing
from storage.failpoints import Failpoint, failpoint
from storage.lsn import Lsn
from storage.marks import Mark, reach
from storage.ports import Disk, File
from storage.wal.format import segment_name

WAL_TIMELINE = 1
"""PostgreSQL's timeline number in file names; branches are timelines of ours, not its."""

_ZEROS = bytes(1024 * 1024)
_NAME_LENGTH = 24
_NAME = re.compile(r"[0-9A-F]{24}\Z")


class WalSegments:
    """The segment files of one timeline. One caller at a time writes; reads may overlap."""

    def __init__(self, disk: Disk, directory: str, segment_size: int) -> None:
        self.segment_size = segment_size
        self._disk = disk
        self._directory = directory
        self._existing: set[int] = set()
        self._file: File | None = None
        self._file_segment = -1

    async def load(self) -> None:
        """Learn which segments exist and drop temporary files; ``CorruptData`` for a wrong size."""
        names = await self._disk.listdir(self._directory)
        for name in names:
            if name.endswith(TEMPORARY_SUFFIX) and len(name) > _NAME_LENGTH:
                reach(Mark.BAKED_SEGMENT_LEFT)
                await self._disk.unlink(f"{self._directory}/{name}")
            elif len(name) == _NAME_LENGTH:
                self._existing.add(await self._check_segment(name))

    async def _check_segment(self, name: str) -> int:
        if _NAME.match(name) is None:
            raise CorruptData(f"{self._directory}/{name} is no segment; nobody here wrote it")
        per_xlog_id = 0x100000000 // self.segment_size
        segment = int(name[8:16], 16) * per_xlog_id + int(name[16:], 16)
        file = await self._disk.open(f"{self._directory}/{name}")
        try:
            size = await file.size()
        finally:
            await file.close()
        if size != self.segment_size:
            raise CorruptData(
                f"{self._directory}/{name} has {size} bytes, a segment has {self.segment_size}"
            )
        return segment

    @property
    def oldest(self) -> int | None:
        """Number of the oldest segment here, ``None`` if there is none."""
        return min(self._existing, default=None)

    @property
    def newest(self) -> int | None:
        """Number of the newest segment here, the one that is written to if any is."""
        return max(self._existing, default=None)

    def has(self, lsn: Lsn) -> bool:
        """Whether the segment that holds ``lsn`` is here."""
        return lsn // self.segment_size in self._existing

    async def remove_oldest(self) -> None:
        """Remove the oldest segment; who reads it now may still finish. ``DiskError``."""
        segment = self.oldest
        assert segment is not None, "there is no segment to remove"
        assert segment != self._file_segment or self._file is None, "it is being written to"
        self._existing.discard(segment)
        try:
            await self._disk.unlink(self._path(segment))
        except FileMissing:
            return
        except DiskError:
            self._existing.add(segment)
            raise

    def check_complete(self, begin_lsn: Lsn, end_lsn: Lsn) -> None:
        """``CorruptData`` if a segment with WAL of ``[begin_lsn, end_lsn)`` is missing."""
        if begin_lsn < end_lsn:
            first, last = begin_lsn // self.segment_size, (end_lsn - 1) // self.segment_size
            for segment in range(first, last + 1):
                if segment not in self._existing:
                    raise CorruptData(
                        f"{self._path(segment)} is missing; WAL below {end_lsn} is lost"
                    )

    async def write(self, begin_lsn: Lsn, pieces: Sequence[bytes]) -> None:
        """Write WAL from ``begin_lsn`` on; durable after :meth:`flush`. ``DiskError``."""
        data = pieces[0] if len(pieces) == 1 else b"".join(pieces)
        position, done = int(begin_lsn), 0
        while done < len(data):
            offset = position % self.segment_size
            part = data[done : done + self.segment_size - offset]
            file = await self._open_for_write(position // self.segment_size)
            await file.pwrite(offset, part)
            done += len(part)
            position += len(part)

    async def flush(self) -> None:
        """Make everything written durable. ``DiskError``."""
        if self._file is not None:
            await self._file.fdatasync()

    async def settle(self, begin_lsn: Lsn, end_lsn: Lsn) -> None:
        """Write WAL of ``[begin_lsn, end_lsn)`` that was found here again, durably. ``DiskError``.

        A crashed process may have left it in the cache only, and a sync that failed before the
        crash lets the next one succeed without it (PostgreSQL's "fsyncgate", 2018).
        """
        while begin_lsn < end_lsn:
            until_lsn = Lsn(min(end_lsn, begin_lsn + len(_ZEROS)))
            await self.write(begin_lsn, [await self.read(begin_lsn, until_lsn)])
            begin_lsn = until_lsn
        await self.flush()

    async def _open_for_write(self, segment: int) -> File:
        if self._file is not None and segment == self._file_segment:
            return self._file
        await self.close()
        if segment not in self._existing:
            await self._create(segment)
        self._file = await self._disk.open(self._path(segment))
        self._file_segment = segment
        return self._file

    async def close(self) -> None:
        """Sync and close the segment open for writing, if there is one. ``DiskError``."""
        file, self._file = self._file, None
        if file is not None:
            try:
                await file.fdatasync()
            finally:
                await file.close()

    async def _create(self, segment: int) -> None:
        """Bake a segment of zeros and give it its name, both durably."""
        if self._existing:
            reach(Mark.NEW_SEGMENT)
        path = self._path(segment)
        temporary = path + TEMPORARY_SUFFIX
        file = await self._disk.open(temporary, create=True)
        try:
            await self._fill(file, 0)
            await file.fsync()
        finally:
            await file.close()
        await self._disk.rename(temporary, path)
        await self._disk.sync_dir(self._directory)
        self._existing.add(segment)

    async def _fill(self, file: File, offset: int) -> None:
        while offset < self.segment_size:
            zeros = _ZEROS[: self.segment_size - offset]
            await file.pwrite(offset, zeros)
            offset += len(zeros)

    async def truncate(self, end_lsn: Lsn) -> None:
        """Durably turn every byte from ``end_lsn`` on into nothing. ``DiskError``.

        Later segments go first, last one first: a crash half way leaves a shorter log, no hole.
        """
        await failpoint(Failpoint.SK_BEFORE_TRUNCATE)
        await self.close()
        segment, offset = divmod(int(end_lsn), self.segment_size)
        for later in sorted((s for s in self._existing if s > segment), reverse=True):
            await self._disk.unlink(self._path(later))
            self._existing.discard(later)
        await self._disk.sync_dir(self._directory)
        await failpoint(Failpoint.SK_WITHIN_TRUNCATE)
        if segment in self._existing:
            file = await self._disk.open(self._path(segment))
            try:
                await self._fill(file, offset)
                await file.fsync()
            finally:
                await file.close()
        await failpoint(Failpoint.SK_AFTER_TRUNCATE)

    async def read(self, begin_lsn: Lsn, end_lsn: Lsn) -> bytes:
        """Bytes of a range that was written; ``DiskError``, or ``FileMissing`` for a segment."""
        parts = []
        position = int(begin_lsn)
        while position < end_lsn:
            segment, offset = divmod(position, self.segment_size)
            length = min(int(end_lsn) - position, self.segment_size - offset)
            part = await self.read_segment(segment, offset, length)
            if len(part) != length:
                raise CorruptData(f"{self._path(segment)} ends at byte {offset + len(part)}")
            parts.append(part)
            position += length
        return parts[0] if len(parts) == 1 else b"".join(parts)

    async def read_segment(self, segment: int, offset: int, length: int) -> bytes:
        """Bytes of one segment, none if it does not exist; what ``find_end_of_wal`` asks for."""
        if segment not in self._existing:
            return b""
        file = await self._disk.open(self._path(segment))
        try:
            return await file.pread(offset, length)
        finally:
            await file.close()

    def _path(self, segment: int) -> str:
        return f"{self._directory}/{segment_name(WAL_TIMELINE, segment, self.segment_size)}"
