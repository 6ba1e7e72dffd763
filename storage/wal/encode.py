"""Assembling records: the inverse of :func:`storage.wal.record.decode`.

The order of headers and data is that of ``XLogRecordAssemble`` in PostgreSQL's
``access/transam/xloginsert.c``, so that equal content gives equal bytes.
"""

from __future__ import annotations

from storage.errors import BadRequest
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
    RECORD_SIZE_MAX,
    BlockFlag,
    ImageFlag,
)
from storage.wal.image import Compression
from storage.wal.record import (
    BLOCK_HEADER,
    IMAGE_HEADER,
    RELATION,
    UINT16,
    UINT32,
    BlockSpec,
    RecordSpec,
)

_CRC = UINT32
_DATA_SHORT_MAX = 255


def encode(record: RecordSpec, prev_lsn: int) -> bytes:
    """The bytes of a record whose predecessor starts at ``prev_lsn``, CRC included.

    Raises ``BadRequest`` for an id, length or order that the format cannot express.
    """
    if not wal_format.is_valid_rmgr(record.rmid):
        raise BadRequest(f"resource manager id {record.rmid} does not exist; custom ones are ≥ 128")
    headers: list[bytes] = []
    payload: list[bytes] = []
    before: BlockSpec | None = None
    for block in record.blocks:
        _add_block(block, before, headers, payload)
        before = block
    if record.origin:
        headers.append(bytes((BLOCK_ID_ORIGIN,)) + UINT16.pack(record.origin))
    if record.toplevel_xid:
        headers.append(bytes((BLOCK_ID_TOPLEVEL_XID,)) + UINT32.pack(record.toplevel_xid))
    if record.main_data:
        headers.append(_main_header(len(record.main_data)))
        payload.append(record.main_data)
    body = b"".join(headers + payload)
    length = RECORD_HEADER_SIZE + len(body)
    if length > RECORD_SIZE_MAX:
        raise BadRequest(f"record of {length} bytes is larger than {RECORD_SIZE_MAX}")
    head = RECORD_HEADER.pack(length, record.xid, prev_lsn, record.info, record.rmid, 0)[:20]
    return head + _CRC.pack(wal_format.crc32c(body + head)) + body


def _main_header(length: int) -> bytes:
    if length <= _DATA_SHORT_MAX:
        return bytes((BLOCK_ID_DATA_SHORT, length))
    return bytes((BLOCK_ID_DATA_LONG,)) + UINT32.pack(length)


def _add_block(
    block: BlockSpec, before: BlockSpec | None, headers: list[bytes], payload: list[bytes]
) -> None:
    _check_block(block, before)
    relation = (block.space, block.database, block.relation)
    is_same = before is not None and relation == (before.space, before.database, before.relation)
    flags = block.fork
    image_header = b""
    if block.image is not None:
        flags |= BlockFlag.HAS_IMAGE
        image_header, stored = _image(block.image, block.compression)
        payload.append(stored)
    if block.data:
        flags |= BlockFlag.HAS_DATA
        payload.append(block.data)
    if block.will_init:
        flags |= BlockFlag.WILL_INIT
    if is_same:
        flags |= BlockFlag.SAME_RELATION
    headers.append(BLOCK_HEADER.pack(block.block_id, flags, len(block.data)))
    headers.append(image_header)
    if not is_same:
        headers.append(RELATION.pack(*relation))
    headers.append(UINT32.pack(block.block))


def _check_block(block: BlockSpec, before: BlockSpec | None) -> None:
    lowest = 0 if before is None else before.block_id + 1
    if not lowest <= block.block_id <= BLOCK_ID_MAX:
        raise BadRequest(f"block id {block.block_id} is outside {lowest} … {BLOCK_ID_MAX}")
    if len(block.data) > 0xFFFF:
        raise BadRequest(f"block data of {len(block.data)} bytes is longer than 65535")
    if block.image is not None and len(block.image) != PAGE_SIZE:
        raise BadRequest(f"page image has {len(block.image)} bytes, a page has {PAGE_SIZE}")


def _image(page: bytes, compression: Compression) -> tuple[bytes, bytes]:
    """The image header and the bytes stored; compression is dropped when it does not pay."""
    hole_offset, hole_size = wal_image.find_hole(page)
    stored = page[:hole_offset] + page[hole_offset + hole_size :] if hole_size else page
    flags = ImageFlag.APPLY | (ImageFlag.HAS_HOLE if hole_size else 0)
    tail = b""
    if compression is not Compression.NONE:
        smaller = wal_image.compress(stored, compression)
        tail = UINT16.pack(hole_size) if hole_size else b""
        if len(smaller) + len(tail) < len(stored):
            flags |= compression.value
            stored = smaller
        else:
            tail = b""
    return IMAGE_HEADER.pack(len(stored), hole_offset, flags) + tail, stored
