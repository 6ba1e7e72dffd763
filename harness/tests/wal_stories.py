"""Short ways to write WAL down in tests: pages and changes laid out by hand."""

from __future__ import annotations

import struct
from collections.abc import Mapping
from dataclasses import dataclass, field

from harness.checkers.wal_model import KV_RELATION, WalModel
from storage.lsn import Lsn


def page_bytes(lsn: int, version: int, rows: Mapping[int, str]) -> bytes:
    page = bytearray(8192)
    position, lower = 8184, 24
    for key, value in sorted(rows.items()):
        item = struct.pack("<Q", key) + value.encode()
        position -= len(item) + -len(item) % 8
        page[position : position + len(item)] = item
        struct.pack_into("<I", page, lower, position | 1 << 15 | len(item) << 17)
        lower += 4
    header = (lsn >> 32, lsn & 0xFFFFFFFF, 0, 0, lower, position, 8184, 0x2004, 0)
    struct.pack_into("<IIHHHHHHI", page, 0, *header)
    struct.pack_into("<Q", page, 8184, version)
    return bytes(page)


def change_bytes(version: int, rows: Mapping[int, str | None]) -> bytes:
    parts = [struct.pack("<Q", version)]
    for key, value in rows.items():
        if value is None:
            parts.append(struct.pack("<QB", key, 0xFF))
        else:
            parts.append(struct.pack("<QB", key, len(value)) + value.encode())
    return b"".join(parts)


@dataclass
class Block:
    """:class:`harness.checkers.wal_model.BlockChange` in memory."""

    block: int
    data: bytes = b""
    image: bytes | None = None
    space: int = KV_RELATION[0]
    database: int = KV_RELATION[1]
    relation: int = KV_RELATION[2]
    fork: int = KV_RELATION[3]


@dataclass
class WalStory:
    """Writes records; each changes rows, all in block 0 unless keys are 32 or more."""

    model: WalModel = field(default_factory=lambda: WalModel(Lsn(0)))
    versions: dict[int, int] = field(default_factory=dict)

    def record(self, lsn: int, rows: Mapping[int, str | None]) -> WalStory:
        blocks = []
        for block in sorted({key // 32 for key in rows}):
            self.versions[block] = self.versions.get(block, 0) + 1
            own = {key: value for key, value in rows.items() if key // 32 == block}
            blocks.append(Block(block, change_bytes(self.versions[block], own)))
        self.model.take(Lsn(lsn), blocks)
        return self
