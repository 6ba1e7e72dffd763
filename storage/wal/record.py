"""Records: what a decoded one holds, what one to be written is made of, and decoding.

Source: ``DecodeXLogRecord`` in PostgreSQL's ``access/transam/xlogreader.c``, versions 15 to 18.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, NamedTuple

from storage.errors import CorruptData
from storage.lsn import Lsn
from storage.wal import format as wal_format
from storage.wal import image as wal_image
from storage.wal.format import (
    BLOCK_ID_DATA_LONG,
    BLOCK_ID_DATA_SHORT,
    BLOCK_ID_MAX,
    BLOCK_ID_ORIGIN,
    BLOCK_ID_TOPLEVEL_XID,
    PAGE_SIZE,
    RECORD_HEADER,
    RECORD_HEADER_SIZE,
    BlockFlag,
    ImageFlag,
)
from storage.wal.image import Compression

BLOCK_HEADER: Final = struct.Struct("<BBH")  # id, fork and flags, data length
IMAGE_HEADER: Final = struct.Struct("<HHB")  # stored length, hole offset, flags
RELATION: Final = struct.Struct("<III")  # tablespace, database, relation
UINT16: Final = struct.Struct("<H")
UINT32: Final = struct.Struct("<I")

_HAS_IMAGE: Final = int(BlockFlag.HAS_IMAGE)
_HAS_DATA: Final = int(BlockFlag.HAS_DATA)
_WILL_INIT: Final = int(BlockFlag.WILL_INIT)
_SAME_RELATION: Final = int(BlockFlag.SAME_RELATION)
_HAS_HOLE: Final = int(ImageFlag.HAS_HOLE)


@dataclass(slots=True)
class BlockRef:
    """A block that a record touches. ``image``: 8192 bytes with ``pd_lsn`` as logged, or None."""

    block_id: int
    space: int
    database: int
    relation: int
    fork: int
    block: int
    flags: int
    image: bytes | None
    data: bytes

    @property
    def will_init(self) -> bool:
        """Whether redo builds the page anew, so that no earlier version is needed."""
        return bool(self.flags & _WILL_INIT)


@dataclass(slots=True)
class WalRecord:
    """A decoded record. ``origin`` is the replication origin's id, 0 without one."""

    lsn: Lsn
    end_lsn: Lsn
    prev_lsn: Lsn
    xid: int
    rmid: int
    info: int
    main_data: bytes
    blocks: tuple[BlockRef, ...]
    origin: int = 0
    toplevel_xid: int = 0


@dataclass(frozen=True, slots=True)
class BlockSpec:
    """A block reference to write. ``image`` is a whole page; its hole is found from its header."""

    block_id: int
    space: int
    database: int
    relation: int
    block: int
    fork: int = 0
    will_init: bool = False
    image: bytes | None = None
    data: bytes = b""
    compression: Compression = Compression.NONE


@dataclass(frozen=True, slots=True)
class RecordSpec:
    """A record to write; ``blocks`` in ascending ``block_id``."""

    rmid: int
    info: int
    xid: int
    main_data: bytes = b""
    blocks: Sequence[BlockSpec] = ()
    origin: int = 0
    toplevel_xid: int = 0


class _BlockHeader(NamedTuple):
    block_id: int
    flags: int
    data_length: int
    image_length: int
    hole_offset: int
    hole_size: int
    image_flags: int
    relation: tuple[int, int, int]
    block: int


def decode(raw: bytes, lsn: Lsn, end_lsn: Lsn, version: int) -> WalRecord:
    """Take a whole record apart. The CRC is the reader's affair and not checked again.

    Raises ``CorruptData`` when its parts do not add up to its length.
    """
    assert version in wal_format.PAGE_MAGIC, f"PostgreSQL version {version} is not supported"
    length, xid, prev, info, rmid, _ = RECORD_HEADER.unpack_from(raw)
    if length != len(raw):
        raise CorruptData(f"record at {lsn} has length {length}, got {len(raw)} bytes")
    try:
        return _Decoder(raw).decode(WalRecord(lsn, end_lsn, Lsn(prev), xid, rmid, info, b"", ()))
    except (struct.error, IndexError):
        raise CorruptData(f"record at {lsn} ends inside its block headers") from None
    except CorruptData as error:
        raise CorruptData(f"record at {lsn}: {error}") from error


class _Decoder:
    """One pass over the headers, then one over the data they describe."""

    __slots__ = ("_at", "_headers", "_main_length", "_payload", "_raw", "_relation")

    def __init__(self, raw: bytes) -> None:
        self._raw = raw
        self._at = RECORD_HEADER_SIZE
        self._payload = 0  # bytes of images and data that the headers announced
        self._main_length = 0
        self._relation: tuple[int, int, int] | None = None
        self._headers: list[_BlockHeader] = []

    def decode(self, record: WalRecord) -> WalRecord:
        raw = self._raw
        while self._at + self._payload < len(raw):
            block_id = raw[self._at]
            if block_id <= BLOCK_ID_MAX:
                self._take_block_header(block_id)
            elif block_id == BLOCK_ID_DATA_SHORT:
                self._take_main_header(raw[self._at + 1], 2)
                break
            elif block_id == BLOCK_ID_DATA_LONG:
                self._take_main_header(UINT32.unpack_from(raw, self._at + 1)[0], 5)
                break
            elif block_id == BLOCK_ID_ORIGIN:
                (record.origin,) = UINT16.unpack_from(raw, self._at + 1)
                self._at += 3
            elif block_id == BLOCK_ID_TOPLEVEL_XID:
                (record.toplevel_xid,) = UINT32.unpack_from(raw, self._at + 1)
                self._at += 5
            else:
                raise CorruptData(f"block id {block_id} at byte {self._at}")
        if self._at + self._payload != len(raw):
            raise CorruptData(
                f"parts take {self._at + self._payload} bytes, the record has {len(raw)}"
            )
        if self._headers:
            record.blocks = tuple(map(self._take_block, self._headers))
        record.main_data = raw[self._at :]
        return record

    def _take_main_header(self, length: int, size: int) -> None:
        self._at += size
        self._payload += length

    def _take_block_header(self, block_id: int) -> None:
        raw = self._raw
        if self._headers and block_id <= self._headers[-1].block_id:
            raise CorruptData(f"block id {block_id} follows {self._headers[-1].block_id}")
        _, flags, data_length = BLOCK_HEADER.unpack_from(raw, self._at)
        self._at += BLOCK_HEADER.size
        if bool(flags & _HAS_DATA) != (data_length > 0):
            raise CorruptData(f"block {block_id}: flags {flags:#04x}, {data_length} bytes of data")
        length = hole_offset = hole_size = image_flags = 0
        if flags & _HAS_IMAGE:
            length, hole_offset, hole_size, image_flags = self._take_image_header(block_id)
        if not flags & _SAME_RELATION:
            self._relation = RELATION.unpack_from(raw, self._at)
            self._at += RELATION.size
        if self._relation is None:
            raise CorruptData(f"block {block_id} refers to the relation of a block before it")
        (block,) = UINT32.unpack_from(raw, self._at)
        self._at += UINT32.size
        self._payload += data_length + length
        self._headers.append(
            _BlockHeader(
                block_id, flags, data_length, length, hole_offset, hole_size, image_flags,
                self._relation, block,
            )
        )  # fmt: skip

    def _take_image_header(self, block_id: int) -> tuple[int, int, int, int]:
        """Length stored, hole offset, hole size, flags."""
        length, hole_offset, flags = IMAGE_HEADER.unpack_from(self._raw, self._at)
        self._at += IMAGE_HEADER.size
        hole_size = PAGE_SIZE - length
        if flags & wal_image.COMPRESSED:
            hole_size = 0
            if flags & _HAS_HOLE:
                (hole_size,) = UINT16.unpack_from(self._raw, self._at)
                self._at += UINT16.size
        has_hole = bool(flags & _HAS_HOLE)
        if has_hole != (hole_size > 0) or hole_offset + max(hole_size, 0) > PAGE_SIZE:
            raise CorruptData(
                f"block {block_id}: image of {length} bytes, flags {flags:#04x}, hole at "
                f"{hole_offset} of {hole_size} bytes"
            )
        return length, hole_offset, hole_size, flags

    def _take_block(self, header: _BlockHeader) -> BlockRef:
        raw, at = self._raw, self._at
        page = None
        if header.flags & _HAS_IMAGE:
            stored = raw[at : at + header.image_length]
            page = wal_image.restore(
                stored, header.image_flags, header.hole_offset, header.hole_size
            )
            at += header.image_length
        self._at = at + header.data_length
        return BlockRef(
            header.block_id, *header.relation, header.flags & 0x0F, header.block,
            header.flags & 0xF0, page, raw[at : self._at],
        )  # fmt: skip
