"""Counters on their circles, the control file, page checksums."""

from __future__ import annotations

import random
import struct

import pytest

from storage.errors import BadRequest, CorruptData
from storage.pageserver.postgres import checksum
from storage.pageserver.postgres.control import (
    CHECKPOINT,
    CONTROL_FILE_SIZE,
    STATE_SHUT_DOWN,
    Checkpoint,
    ControlFile,
    precedes,
)
from storage.wal.format import PAGE_SIZE

EPOCH = 1 << 32


def checkpoint(next_xid: int = 1000, **changes: int) -> Checkpoint:
    values = dict(
        redo=0, timeline=1, previous_timeline=1, full_page_writes=1, wal_level=0,
        next_xid=next_xid, next_oid=16384, next_multi=1, next_multi_offset=0, oldest_xid=700,
        oldest_xid_database=1, oldest_multi=1, oldest_multi_database=1, time_s=1,
        oldest_commit_ts_xid=0, newest_commit_ts_xid=0, oldest_active_xid=0,
    )  # fmt: skip
    return Checkpoint(**{**values, **changes})


@pytest.mark.parametrize(
    ("next_xid", "seen", "after"),
    [
        (1000, 999, 1000),
        (1000, 1000, 1001),
        (1000, 1005, 1006),
        (1000, 2, 1000),
        (1000, 1000 + (1 << 31) - 1, 1000 + (1 << 31)),
        (1000, 1000 + (1 << 31), 1000),
        (EPOCH - 1, EPOCH - 1, EPOCH + 3),
        (EPOCH - 5, 7, EPOCH + 8),
        (7 * EPOCH + 5, 5, 7 * EPOCH + 6),
        (7 * EPOCH + 5, EPOCH - 1, 7 * EPOCH + 5),
    ],
)
def test_next_xid_follows_what_was_seen(next_xid: int, seen: int, after: int) -> None:
    running = checkpoint(next_xid)
    assert running.advance_next_xid(seen) == (after != next_xid)
    assert running.next_xid == after


@pytest.mark.parametrize(
    ("reported", "after"), [(1000, 1000), (1001, 1001), (999, 1000), (5000, 5000)]
)
def test_next_xid_is_raised_to_a_reported_one(reported: int, after: int) -> None:
    running = checkpoint(1000)
    assert running.advance_next_xid_to(reported) == (after != 1000)
    assert running.next_xid == after


def test_full_xid_reaches_into_the_epoch_before() -> None:
    running = checkpoint(3 * EPOCH + 10)
    assert running.full_xid(9) == 3 * EPOCH + 9
    assert running.full_xid(EPOCH - 2) == 3 * EPOCH - 2


def test_multixact_counters_wrap() -> None:
    running = checkpoint(next_multi=EPOCH - 1, next_multi_offset=EPOCH - 10)
    assert running.advance_next_multi(3, 5)
    assert (running.next_multi, running.next_multi_offset) == (3, 5)
    assert not running.advance_next_multi(EPOCH - 1, EPOCH - 10)
    assert (running.next_multi, running.next_multi_offset) == (3, 5)


def test_oldest_ids_only_move_forward() -> None:
    running = checkpoint()
    assert not running.advance_oldest_xid(700, 5)
    assert not running.advance_oldest_xid(699, 5)
    assert running.oldest_xid_database == 1
    assert running.advance_oldest_xid(701, 5)
    assert (running.oldest_xid, running.oldest_xid_database) == (701, 5)
    assert running.advance_oldest_multi(2, 6)
    assert (running.oldest_multi, running.oldest_multi_database) == (2, 6)


def test_precedes_is_a_circle() -> None:
    assert precedes(1, 2)
    assert not precedes(2, 1)
    assert not precedes(2, 2)
    assert precedes(EPOCH - 1, 0)
    assert precedes(0, 1 << 31)
    assert precedes(1 << 31, 0)


def test_checkpoint_bytes() -> None:
    packed = checkpoint(2 * EPOCH + 77).pack()
    assert len(packed) == CHECKPOINT.size == 88
    assert struct.unpack_from("<II", packed, 24) == (77, 2)
    assert struct.unpack_from("<I", packed, 32) == (16384,)
    assert Checkpoint.unpack(packed) == checkpoint(2 * EPOCH + 77)
    with pytest.raises(CorruptData, match="87 bytes"):
        Checkpoint.unpack(packed[:-1])


def control_file(pg_version: int = 15, **values: int) -> bytes:
    """A control file as a stopped server leaves it."""
    version = 1800 if pg_version == 18 else 1300
    base = ControlFile(bytes(CONTROL_FILE_SIZE), pg_version)
    defaults = {
        "system_id": 4711, "control_version": version, "catalog_version": 202209061,
        "state": STATE_SHUT_DOWN, "checkpoint_lsn": 0x100_0028, "block_size": PAGE_SIZE,
        "segment_blocks": 131072, "wal_segment_size": 1 << 24,
    }  # fmt: skip
    return base.replace({**defaults, **values}, checkpoint()).data


@pytest.mark.parametrize("pg_version", [15, 16, 18])
def test_control_file_survives_replacement(pg_version: int) -> None:
    control = ControlFile.load(control_file(pg_version), pg_version)
    changed = control.replace({"max_connections": 77, "track_commit_timestamp": 1})
    again = ControlFile.load(changed.data, pg_version)
    assert again["max_connections"] == 77
    assert again["track_commit_timestamp"] == 1
    assert again["system_id"] == 4711
    assert again.checkpoint == checkpoint()


def test_unfit_control_files_are_refused() -> None:
    good = control_file()
    with pytest.raises(BadRequest, match="has 100 bytes"):
        ControlFile.load(good[:100], 15)
    with pytest.raises(BadRequest, match="version 1300; PostgreSQL 18 writes 1800"):
        ControlFile.load(good, 18)
    broken = bytearray(good)
    broken[50] ^= 1
    with pytest.raises(BadRequest, match="CRC"):
        ControlFile.load(bytes(broken), 15)


def plain_checksum(page: bytes, block: int) -> int:
    """The algorithm as PostgreSQL spells it, one number at a time."""
    words = list(struct.unpack("<2048I", page[:8] + b"\0\0" + page[10:]))
    basis = [(checksum._BASIS >> 64 * lane) & 0xFFFFFFFF for lane in range(32)]
    for row in [words[at : at + 32] for at in range(0, 2048, 32)] + [[0] * 32] * 2:
        for lane, word in enumerate(row):
            mixed = basis[lane] ^ word
            basis[lane] = (mixed * 16777619 & 0xFFFFFFFF) ^ mixed >> 17
    folded = 0
    for lane_sum in basis:
        folded ^= lane_sum
    return (folded ^ block) % 65535 + 1


def test_checksum_equals_the_plain_algorithm() -> None:
    entropy = random.Random(5)
    for block in (0, 1, 131072):
        page = entropy.randbytes(PAGE_SIZE)
        assert checksum.page_checksum(page, block) == plain_checksum(page, block)
        stamped = checksum.with_checksum(page, block)
        assert checksum.has_right_checksum(stamped, block)
        assert not checksum.has_right_checksum(stamped, block + 1)
        assert stamped[:8] + stamped[10:] == page[:8] + page[10:]


def test_new_pages_have_no_checksum() -> None:
    new = bytes(PAGE_SIZE)
    assert checksum.with_checksum(new, 3) == new
    assert checksum.has_right_checksum(new, 3)
    assert not checksum.has_right_checksum(b"\0" * 14 + b"\1" + b"\0" * 8177, 3)
