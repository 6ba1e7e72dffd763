"""WAL records of the key-value relation: one transaction is one record, so it is atomic.

The record carries one block reference per page, in order of block number: a delta
(:func:`storage.kv.page.encode_changes`), a full image at every ``FULL_IMAGE_EVERY``-th version so
that page stores see images as well as deltas, and WILL_INIT at a page's first version.
Images leave ``pd_lsn`` zero: nobody knows the record's end yet, redo sets it. The main data is the
time of the commit, as in PostgreSQL's ``xl_xact_commit``, or empty.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from typing import NamedTuple

from storage.errors import BadRequest, CorruptData
from storage.kv.page import Changes, Page, encode, encode_changes
from storage.wal.record import BlockSpec, RecordSpec

KV_RMGR_ID = 203
KV_SPACE, KV_DATABASE, KV_RELATION, KV_FORK = 1663, 16384, 16385, 0
INFO_TRANSACTION = 0x00
FULL_IMAGE_EVERY = 16
PAGES_MAX = 32
_TIME = struct.Struct("<q")


class ChangedPage(NamedTuple):
    """A block that a transaction changed: its page after the change, and the change."""

    block: int
    page: Page
    changes: Changes


def check_pages(count: int) -> None:
    """``BadRequest`` when a transaction touches more pages than one record can name."""
    if count > PAGES_MAX:
        raise BadRequest(
            f"the transaction changes {count} pages; one record names at most {PAGES_MAX}, "
            "split it into several transactions"
        )


def transaction(changed: Sequence[ChangedPage], committed_us: int | None = None) -> RecordSpec:
    """The record of a transaction; ``changed`` holds 1 … 32 pages by ascending block number,
    ``committed_us`` is its time in microseconds of the Postgres epoch."""
    assert 1 <= len(changed) <= PAGES_MAX, f"a record of {len(changed)} pages"
    blocks: list[BlockSpec] = []
    for block_id, (block, page, changes) in enumerate(changed):
        assert block_id == 0 or block > changed[block_id - 1].block, "blocks out of order"
        image: bytes | None = None
        data = b""
        if page.version % FULL_IMAGE_EVERY == 0:
            image = encode(Page(0, page.version, page.entries))
        else:
            data = encode_changes(page.version, changes)
        blocks.append(
            BlockSpec(
                block_id,
                KV_SPACE,
                KV_DATABASE,
                KV_RELATION,
                block,
                fork=KV_FORK,
                will_init=page.version == 1,
                image=image,
                data=data,
            )
        )
    main_data = b"" if committed_us is None else _TIME.pack(committed_us)
    return RecordSpec(KV_RMGR_ID, INFO_TRANSACTION, 0, main_data, blocks)


def commit_time_us(main_data: bytes) -> int | None:
    """The time in a record's main data, if it has one; ``CorruptData`` for anything else."""
    if not main_data:
        return None
    if len(main_data) != _TIME.size:
        raise CorruptData(f"a transaction's time has {len(main_data)} bytes, not {_TIME.size}")
    return int(_TIME.unpack(main_data)[0])
