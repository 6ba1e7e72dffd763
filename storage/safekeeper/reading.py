"""Reads a timeline's WAL from wherever it is: memory, this disk, or S3 once it left the disk."""

from __future__ import annotations

import hashlib

from storage.consensus.wal_run import WalRun
from storage.errors import BadRequest, CorruptData, FileMissing
from storage.lsn import Lsn
from storage.marks import Mark, reach
from storage.safekeeper.remote_wal import RemoteWal
from storage.safekeeper.segments import WalSegments
from storage.safekeeper.state import Acceptor, WriteBatch

_DIGEST_BYTES = 1024 * 1024


class WalReading:
    """One timeline's WAL for readers. ``recent_bytes_max`` of it are kept in memory."""

    def __init__(
        self, acceptor: Acceptor, segments: WalSegments, remote: RemoteWal, recent_bytes_max: int
    ) -> None:
        self._acceptor = acceptor
        self._segments = segments
        self._remote = remote
        self._recent_bytes_max = recent_bytes_max
        self._recent = WalRun(acceptor.flush_lsn)

    def flushed(self, batch: WriteBatch) -> None:
        """This WAL has become durable."""
        lsn = batch.begin_lsn
        for piece in batch.pieces:
            lsn = self._recent.append(lsn, piece)
        surplus_end = self._recent.end_lsn - self._recent_bytes_max
        if surplus_end > self._recent.begin_lsn:
            self._recent.forget(Lsn(surplus_end))

    def cut(self, end_lsn: Lsn) -> None:
        """The log ends at ``end_lsn`` now."""
        self._recent = WalRun(end_lsn)

    @property
    def first_lsn(self) -> Lsn:
        """Where the oldest segment begins; before the timeline's start it holds zeros."""
        start_lsn = self._acceptor.identity.start_lsn
        return Lsn(start_lsn - start_lsn % self._segments.segment_size)

    def has_wal_from(self, lsn: Lsn) -> bool:
        """Whether a stream may begin at ``lsn``: within the WAL, or, as stock clients do, at the
        beginning of the oldest segment."""
        return lsn >= self._acceptor.identity.start_lsn or lsn == self.first_lsn

    async def read(self, begin_lsn: Lsn, end_lsn: Lsn) -> bytes:
        """Flushed WAL of ``[begin_lsn, end_lsn)``, from memory if it is recent.

        Raises ``DiskError``, ``ObjectStoreError``, and ``CorruptData`` for WAL that is nowhere.
        """
        assert begin_lsn < end_lsn <= self._acceptor.flush_lsn, f"{begin_lsn}..{end_lsn}"
        hole_end_lsn = min(end_lsn, self._acceptor.identity.start_lsn)
        if begin_lsn < hole_end_lsn:
            return bytes(hole_end_lsn - begin_lsn) + (
                await self.read(hole_end_lsn, end_lsn) if hole_end_lsn < end_lsn else b""
            )
        if begin_lsn >= self._recent.begin_lsn:
            return self._recent.read(begin_lsn, end_lsn)
        parts = []
        size = self._segments.segment_size
        while begin_lsn < end_lsn:
            part_end_lsn = Lsn(min(end_lsn, begin_lsn - begin_lsn % size + size))
            parts.append(await self._read_within_segment(begin_lsn, part_end_lsn))
            begin_lsn = part_end_lsn
        return parts[0] if len(parts) == 1 else b"".join(parts)

    async def _read_within_segment(self, begin_lsn: Lsn, end_lsn: Lsn) -> bytes:
        if begin_lsn >= self._acceptor.local_start_lsn and self._segments.has(begin_lsn):
            try:
                return await self._segments.read(begin_lsn, end_lsn)
            except FileMissing:
                if self._segments.has(begin_lsn):
                    raise
        if end_lsn > self._acceptor.backup_lsn:
            raise CorruptData(
                f"WAL {begin_lsn}..{end_lsn} is neither on this disk nor in S3, which has WAL up "
                f"to {self._acceptor.backup_lsn}"
            )
        reach(Mark.REMOTE_WAL_READ)
        return await self._remote.read(begin_lsn, end_lsn)

    async def digest(self, from_lsn: Lsn, until_lsn: Lsn) -> str:
        """SHA-256 in hex of flushed WAL; ``BadRequest`` for a range that is not here."""
        start_lsn, flush_lsn = self._acceptor.identity.start_lsn, self._acceptor.flush_lsn
        if not start_lsn <= from_lsn <= until_lsn <= flush_lsn:
            raise BadRequest(
                f"{from_lsn}..{until_lsn} is not within the WAL here, {start_lsn}..{flush_lsn}"
            )
        digest = hashlib.sha256()
        while from_lsn < until_lsn:
            end_lsn = Lsn(min(until_lsn, from_lsn + _DIGEST_BYTES))
            digest.update(await self.read(from_lsn, end_lsn))
            from_lsn = end_lsn
        return digest.hexdigest()
