"""How far a subscriber has applied its origins' transactions survives a rebuild."""

from __future__ import annotations

import asyncio
import struct

import pytest

from storage.errors import BadRequest
from storage.pageserver.postgres import origins
from storage.tests.test_postgres_directory import files, import_all, rebuild
from storage.tests.test_postgres_ingest import Timeline
from storage.wal.format import crc32c

COMMIT, PREPARE, ABORT, COMMIT_PREPARED = 0x80, 0x10, 0xA0, 0xB0
HAS_ORIGIN, HAS_TWOPHASE, HAS_GID = 0x20, 0x10, 0x80


@pytest.fixture
def timeline() -> Timeline:
    return Timeline()


def positions(timeline: Timeline) -> dict[int, int]:
    return origins.decode(asyncio.run(timeline.directory.value(origins.ORIGINS)))


def play(timeline: Timeline, info: int, data: bytes, origin: int) -> None:
    record = timeline.record(1, info, data, xid=1000)
    record.origin = origin
    asyncio.run(timeline.store.ingest(record))


def outcome(lsn: int) -> bytes:
    return struct.pack("<qIQq", 7, HAS_ORIGIN, lsn, 8)


def test_commits_and_aborts_advance_their_origin(timeline: Timeline) -> None:
    play(timeline, COMMIT, outcome(0x500), 3)
    play(timeline, ABORT, outcome(0x600), 3)
    play(timeline, COMMIT, outcome(0x550), 3)
    play(timeline, COMMIT, outcome(0x40), 1)
    assert positions(timeline) == {1: 0x40, 3: 0x600}


def test_transactions_that_must_not_be_replicated_advance_nothing(timeline: Timeline) -> None:
    play(timeline, COMMIT, outcome(0x500), 0xFFFF)
    play(timeline, COMMIT, bytes(12), 0)
    assert positions(timeline) == {}


def test_a_gid_stands_before_the_origin(timeline: Timeline) -> None:
    data = struct.pack("<qII", 7, HAS_ORIGIN | HAS_TWOPHASE | HAS_GID, 900)
    play(timeline, COMMIT_PREPARED, data + b"name\0" + struct.pack("<Qq", 0x700, 8), 2)
    assert positions(timeline) == {2: 0x700}
    assert timeline.xid_status(900) == 1


def test_prepared_transaction_advances_its_origin(timeline: Timeline) -> None:
    prepare = bytearray(72)
    struct.pack_into("<II", prepare, 4, 72, 1000)
    struct.pack_into("<Q", prepare, 56, 0x900)
    play(timeline, PREPARE, bytes(prepare), 4)
    assert positions(timeline) == {4: 0x900}


def test_origins_are_set_backwards_by_force_and_dropped(timeline: Timeline) -> None:
    for lsn, force in ((0x500, False), (0x300, False)):
        timeline.play(19, 0x00, struct.pack("<QH?", lsn, 5, force))
    assert positions(timeline) == {5: 0x500}
    timeline.play(19, 0x00, struct.pack("<QH?", 0x300, 5, True))
    assert positions(timeline) == {5: 0x300}
    timeline.play(19, 0x10, struct.pack("<H", 6))
    assert positions(timeline) == {5: 0x300}
    timeline.play(19, 0x10, struct.pack("<H", 5))
    assert positions(timeline) == {}


def state_file() -> bytes:
    content = struct.pack("<IH6xQH6xQ", 0x1257DADE, 1, 0x40, 3, 0x600)
    return content + crc32c(content).to_bytes(4, "little")


def test_state_file_is_imported_and_written_again() -> None:
    assert origins.PATH not in rebuild(import_all(files()))
    store = import_all(files() | {origins.PATH: state_file()})
    assert rebuild(store)[origins.PATH] == state_file()


@pytest.mark.parametrize("at", [0, 9, 30, -1])
def test_damaged_state_file_is_refused(at: int) -> None:
    damaged = bytearray(state_file())
    damaged[at] ^= 1
    with pytest.raises(BadRequest, match="replorigin_checkpoint does not match"):
        import_all(files() | {origins.PATH: bytes(damaged)})
