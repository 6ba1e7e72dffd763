"""Replication origins: how far each origin's transactions are applied here.

A subscriber that forgot it would ask its publisher for transactions once more. The server keeps
the file ``pg_logical/replorigin_checkpoint`` (``origin.c``); its entries live here under one key.
"""

from __future__ import annotations

import struct
from enum import IntEnum
from typing import Final

from storage.errors import BadRequest
from storage.pageserver import keys
from storage.pageserver.modification import Modification
from storage.pageserver.postgres.change import Change
from storage.pageserver.values import Image
from storage.wal.format import crc32c

PATH: Final = "pg_logical/replorigin_checkpoint"
ORIGINS: Final = keys.named_file(17)
"""Entries (origin, position) as in the file, by ascending origin."""

_MAGIC: Final = (0x1257DADE).to_bytes(4, "little")
_ENTRY: Final = struct.Struct("<H6xQ")
_DO_NOT_REPLICATE: Final = 0xFFFF


class Operation(IntEnum):
    """Operations of the resource manager REPLORIGIN (``origin.h``)."""

    SET = 0x00
    DROP = 0x10


class OriginRecords:
    """Handler of resource manager 19."""

    async def apply(self, change: Change) -> None:
        """See :class:`~storage.pageserver.postgres.change.RecordHandler`."""
        match change.record.info & 0xF0:
            case Operation.SET:
                lsn, origin, backwards = change.unpack("<QH?")
                await advance(change.modification, origin, lsn, backwards=bool(backwards))
            case Operation.DROP:
                (origin,) = change.unpack("<H")
                await _drop(change.modification, origin)
            case info:
                raise change.unsupported(f"replication origin operation {info:#04x}")


async def advance(
    modification: Modification, origin: int, lsn: int, *, backwards: bool = False
) -> None:
    """Note that an origin's transactions are applied up to ``lsn`` (``replorigin_advance``)."""
    if origin == _DO_NOT_REPLICATE:
        return
    positions = decode(await modification.get(ORIGINS))
    if origin not in positions or backwards or positions[origin] < lsn:
        modification.put(ORIGINS, _image(positions | {origin: lsn}))


async def _drop(modification: Modification, origin: int) -> None:
    positions = decode(await modification.get(ORIGINS))
    if positions.pop(origin, None) is not None:
        modification.put(ORIGINS, _image(positions))


def decode(data: bytes | None) -> dict[int, int]:
    """Position by origin; nothing stored means that there are no origins."""
    return dict(_ENTRY.iter_unpack(data or b""))


def _image(positions: dict[int, int]) -> Image:
    return Image(b"".join(_ENTRY.pack(*entry) for entry in sorted(positions.items())))


def to_file(entries: bytes) -> bytes:
    """The file that a server reads at its start."""
    content = _MAGIC + entries
    return content + crc32c(content).to_bytes(4, "little")


def from_file(content: bytes) -> Image:
    """What to store of a file; ``BadRequest`` if it is damaged."""
    entries, crc = content[4:-4], content[-4:]
    whole = content[:4] == _MAGIC and len(entries) % _ENTRY.size == 0
    if not whole or crc32c(content[:-4]).to_bytes(4, "little") != crc:
        raise BadRequest(f"{PATH} does not match its CRC; copy the data directory again")
    return _image(decode(entries))
