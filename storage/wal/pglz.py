"""Decompression of PostgreSQL's own LZ variant (``common/pg_lzcompress.c``).

A control byte announces eight items, lowest bit first: 0 is a literal byte; 1 a copy of 3 … 273
bytes from 1 … 4095 bytes back: two bytes, and a third when the length's four bits are all ones.
"""

from __future__ import annotations

from storage.errors import CorruptData

_LENGTH_BASE = 3
_LENGTH_EXTENDED = 18


def decompress(compressed: bytes, size: int) -> bytes:
    """Decompress to exactly ``size`` bytes; raises ``CorruptData`` for any other outcome."""
    out = bytearray()
    at, end = 0, len(compressed)
    try:
        while at < end and len(out) < size:
            control = compressed[at]
            at += 1
            for bit in range(8):
                if at >= end or len(out) >= size:
                    break
                if control >> bit & 1:
                    at = _copy(compressed, at, out)
                else:
                    out.append(compressed[at])
                    at += 1
    except IndexError:
        raise CorruptData(f"pglz data of {end} bytes ends inside a copy instruction") from None
    if len(out) != size or at != end:
        raise CorruptData(f"pglz data of {end} bytes holds {len(out)} bytes, expected {size}")
    return bytes(out)


def _copy(compressed: bytes, at: int, out: bytearray) -> int:
    """Append one back reference to ``out``; returns where the next item begins."""
    high, low = compressed[at], compressed[at + 1]
    length = (high & 0x0F) + _LENGTH_BASE
    distance = (high & 0xF0) << 4 | low
    at += 2
    if length == _LENGTH_EXTENDED:
        length += compressed[at]
        at += 1
    if not 0 < distance <= len(out):
        raise CorruptData(f"pglz copy reaches {distance} bytes back, only {len(out)} are there")
    begin = len(out) - distance
    if length <= distance:
        out += out[begin : begin + length]
    else:  # The source overlaps what is being written: it repeats.
        pattern = bytes(out[begin:])
        out += (pattern * (length // distance + 1))[:length]
    return at
