"""The time of the newest commit, as it is stored: a key with a version at every commit."""

from __future__ import annotations

import struct
from typing import NamedTuple

from storage.errors import CorruptData
from storage.lsn import Lsn

_ENCODING = struct.Struct(">qQ")


class NewestCommit(NamedTuple):
    """The newest commit as of some LSN: its time (microseconds of the Postgres epoch, at least
    that of every commit before it) and the end of its record."""

    time_us: int
    lsn: Lsn

    def encode(self) -> bytes:
        """The stored value."""
        return _ENCODING.pack(self.time_us, self.lsn)

    @classmethod
    def decode(cls, data: bytes) -> NewestCommit:
        """Inverse of :meth:`encode`; ``CorruptData`` for anything else."""
        if len(data) != _ENCODING.size:
            raise CorruptData(f"a commit's time has {len(data)} bytes instead of {_ENCODING.size}")
        time_us, lsn = _ENCODING.unpack(data)
        return cls(time_us, Lsn(lsn))
