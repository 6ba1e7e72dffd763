"""Small files and lists kept under ``named_file`` keys: configuration, tablespaces.

A tablespace is rebuilt *in place* (a directory in ``pg_tblspc``), wherever its original lay: an
absolute path of another machine means nothing here. Servers need ``allow_in_place_tablespaces``.
"""

from __future__ import annotations

import struct
from typing import Final

from storage.pageserver import keys
from storage.pageserver.modification import Modification
from storage.pageserver.values import Image

CONFIGURATION: Final = {
    "postgresql.conf": keys.named_file(1),
    "pg_hba.conf": keys.named_file(2),
    "pg_ident.conf": keys.named_file(3),
    "postgresql.auto.conf": keys.named_file(4),
}
"""Imported as they are, and written into every data directory."""

TABLESPACES: Final = keys.named_file(16)
"""Ascending 4-byte ids, little endian, of the tablespaces besides pg_default and pg_global."""


def decode_tablespaces(data: bytes | None) -> list[int]:
    """The ids in a stored list; a missing list is empty."""
    return [space for (space,) in struct.iter_unpack("<I", data or b"")]


def _encode(spaces: list[int]) -> Image:
    return Image(struct.pack(f"<{len(spaces)}I", *spaces))


async def add_tablespace(modification: Modification, space: int) -> None:
    """Add a tablespace; harmless when it exists."""
    spaces = decode_tablespaces(await modification.get(TABLESPACES))
    if space not in spaces:
        modification.put(TABLESPACES, _encode(sorted([*spaces, space])))


async def remove_tablespace(modification: Modification, space: int) -> None:
    """Take a tablespace off the list; harmless when it is not there."""
    spaces = decode_tablespaces(await modification.get(TABLESPACES))
    if space in spaces:
        modification.put(TABLESPACES, _encode([other for other in spaces if other != space]))
