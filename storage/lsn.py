"""Log sequence numbers: byte positions in the write-ahead log.

Source: PostgreSQL ``src/include/access/xlogdefs.h``; text form ``%X/%X`` of the two 32-bit halves.
"""

from __future__ import annotations

import re

_TEXT = re.compile(r"([0-9A-Fa-f]{1,8})/([0-9A-Fa-f]{1,8})\Z")
_LARGEST = (1 << 64) - 1


class Lsn(int):
    """A byte position in the WAL, 64-bit unsigned, printed as PostgreSQL prints it (``0/16B3740``).

    Arithmetic yields plain ``int`` (a distance in bytes is not a position); wrap a result that is
    a position again. Raises ``ValueError`` outside 0 … 2**64-1.
    """

    __slots__ = ()

    def __new__(cls, position: int = 0) -> Lsn:
        """The position ``position`` bytes into the WAL."""
        if not 0 <= position <= _LARGEST:
            raise ValueError(f"LSN {position} is outside 0 … 2**64-1")
        return super().__new__(cls, position)

    @classmethod
    def parse(cls, text: str) -> Lsn:
        """Read ``"0/16B3740"``; anything else raises ``ValueError`` naming the text."""
        match = _TEXT.match(text)
        if match is None:
            raise ValueError(f"{text!r} is not an LSN; write it as two hex numbers, like 0/16B3740")
        return cls((int(match[1], 16) << 32) | int(match[2], 16))

    def __str__(self) -> str:
        return f"{self >> 32:X}/{self & 0xFFFFFFFF:X}"

    def __repr__(self) -> str:
        return f"Lsn({self})"

    def __format__(self, spec: str) -> str:
        return (
            format(str(self), spec)
            if not spec or spec[-1] in "s<>^" or spec.isdigit()
            else (format(int(self), spec))
        )

    def segment(self, segment_size: int) -> int:
        """Number of the WAL segment that holds the byte at this position."""
        return self // segment_size

    def offset(self, segment_size: int) -> int:
        """Offset in bytes of this position within its segment."""
        return self % segment_size


INVALID_LSN = Lsn(0)
