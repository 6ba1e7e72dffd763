"""A contiguous run of WAL in memory: grows at its end, forgets at its beginning."""

from __future__ import annotations

from bisect import bisect_left, bisect_right

from storage.lsn import Lsn


class WalRun:
    """Pieces of WAL that touch; every piece ends where a record ends.

    Slices are cut only between pieces, so whoever is sent a slice always ends on a record.
    """

    def __init__(self, begin_lsn: Lsn) -> None:
        self.begin_lsn = begin_lsn
        self.end_lsn = begin_lsn
        self._pieces: list[bytes] = []
        self._ends: list[Lsn] = []

    def __len__(self) -> int:
        """Bytes held."""
        return self.end_lsn - self.begin_lsn

    def append(self, begin_lsn: Lsn, data: bytes) -> Lsn:
        """Add a piece that begins where the run ends; returns the new end."""
        assert begin_lsn == self.end_lsn, f"WAL at {begin_lsn} does not follow {self.end_lsn}"
        assert data, f"an empty piece of WAL at {begin_lsn}"
        self.end_lsn = Lsn(begin_lsn + len(data))
        self._pieces.append(data)
        self._ends.append(self.end_lsn)
        return self.end_lsn

    def take(self, begin_lsn: Lsn, bytes_max: int) -> bytes:
        """From ``begin_lsn`` to the end of a piece: as many bytes as fit, at least one piece.

        Empty at the end of the run.
        """
        assert self.begin_lsn <= begin_lsn <= self.end_lsn, f"{begin_lsn} is not held"
        first = bisect_right(self._ends, begin_lsn)
        last = max(bisect_right(self._ends, begin_lsn + bytes_max), first + 1)
        pieces = self._pieces[first:last]
        if not pieces:
            return b""
        offset = begin_lsn - (self._ends[first] - len(pieces[0]))
        data = pieces[0] if len(pieces) == 1 else b"".join(pieces)
        return data[offset:] if offset else data

    def read(self, begin_lsn: Lsn, end_lsn: Lsn) -> bytes:
        """The bytes of any range inside the run, borders or not."""
        assert self.begin_lsn <= begin_lsn <= end_lsn <= self.end_lsn
        if begin_lsn == end_lsn:
            return b""
        first = bisect_right(self._ends, begin_lsn)
        last = bisect_left(self._ends, end_lsn)
        offset = begin_lsn - (self._ends[first] - len(self._pieces[first]))
        if first == last:
            return self._pieces[first][offset : offset + (end_lsn - begin_lsn)]
        return b"".join(self._pieces[first : last + 1])[offset : offset + (end_lsn - begin_lsn)]

    def forget(self, lsn: Lsn) -> None:
        """Drop whole pieces that end at or before ``lsn``."""
        count = bisect_right(self._ends, lsn)
        if count:
            self.begin_lsn = self._ends[count - 1]
            del self._pieces[:count]
            del self._ends[:count]
