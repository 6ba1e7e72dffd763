"""Records without images change what they say, and nothing that cannot be stored goes unnoticed."""

from __future__ import annotations

import asyncio
import struct
from typing import Any, NamedTuple

import pytest

from storage.errors import CorruptData
from storage.events import Field, current_sink
from storage.lsn import INVALID_LSN, Lsn
from storage.pageserver import keys
from storage.pageserver.datadir import DataDirectory
from storage.pageserver.keys import Relation, Slru
from storage.pageserver.postgres.change import ImageMissing, UnsupportedRecord
from storage.pageserver.postgres.control import Checkpoint
from storage.tests.postgres_store import VersionStore
from storage.tests.test_postgres_control import checkpoint, control_file
from storage.wal.format import PAGE_SIZE, crc32c
from storage.wal.record import BlockRef, WalRecord

HEAP = Relation(1663, 5, 16400, 0)
MAP = HEAP._replace(fork=2)
PAGE = bytes(12) + b"\x20\x00\x00\x20" + bytes(PAGE_SIZE - 16)
FULL_MAP = bytes(12) + b"\x18\x00\x18\x00" + bytes(8) + b"\xff" * (PAGE_SIZE - 24)


class Timeline:
    """A store with a checkpoint, and records of growing LSN."""

    def __init__(self, pg_version: int = 15, next_xid: int = 1000) -> None:
        self.store = VersionStore(pg_version)
        modification = self.store.modification
        modification.begin(INVALID_LSN, Lsn(0x1000))
        modification.put_checkpoint(checkpoint(next_xid).pack())
        modification.put_control_file(control_file(pg_version))
        modification.commit()

    def record(self, rmid: int, info: int, data: bytes = b"", **more: Any) -> WalRecord:
        lsn = self.store.last_record_lsn
        blocks, xid = more.get("blocks", ()), more.get("xid", 0)
        return WalRecord(lsn, Lsn(lsn + 64), lsn, xid, rmid, info, data, blocks)

    def play(self, rmid: int, info: int, data: bytes = b"", **more: Any) -> None:
        asyncio.run(self.store.ingest(self.record(rmid, info, data, **more)))

    def put(self, relation: Relation, block: int, page: bytes = PAGE) -> None:
        """By an XLOG_FPI record."""
        self.play(0, 0xB0, blocks=(reference(relation, block, page),))

    @property
    def checkpoint(self) -> Checkpoint:
        data = asyncio.run(self.directory.checkpoint())
        assert data is not None
        return Checkpoint.unpack(data)

    @property
    def directory(self) -> DataDirectory:
        return self.store.directory(self.store.last_record_lsn)

    def size(self, relation: Relation) -> int | None:
        return asyncio.run(self.directory.relation_size(relation))

    def xid_status(self, xid: int) -> int:
        page = asyncio.run(self.directory.slru_block(Slru.CLOG, xid // 2**20, xid // 32768 % 32))
        return page[xid % 32768 // 4] >> xid % 4 * 2 & 3

    def map_bits(self, heap_block: int) -> int:
        page = asyncio.run(self.directory.relation_block(MAP, 0))
        return page[24 + heap_block // 4] >> heap_block % 4 * 2 & 3


def reference(relation: Relation, block: int, image: bytes | None = PAGE) -> BlockRef:
    space, database, number, fork = relation
    return BlockRef(0, space, database, number, fork, block, 0x10, image, b"")


@pytest.fixture
def timeline() -> Timeline:
    return Timeline()


def test_image_is_stored_with_the_records_end(timeline: Timeline) -> None:
    timeline.put(HEAP, 2)
    page = asyncio.run(timeline.directory.relation_block(HEAP, 2))
    assert struct.unpack_from("<II", page) == (0, timeline.store.last_record_lsn)
    assert page[8:] == PAGE[8:]
    assert timeline.size(HEAP) == 3
    assert asyncio.run(timeline.directory.relation_block(HEAP, 1)) == bytes(PAGE_SIZE)


def test_block_without_image_raises_the_alarm(timeline: Timeline) -> None:
    events: list[tuple[str, dict[str, Field]]] = []
    token = current_sink.set(lambda kind, fields: events.append((kind, fields)))
    before = timeline.store.last_record_lsn
    blocks = (reference(HEAP, 0), reference(HEAP, 7, None))
    with pytest.raises(ImageMissing, match=r"block 7 of 1663/5/16400\.0 .*wal_consistency"):
        timeline.play(10, 0x00, b"\0\0\0", blocks=blocks, xid=1000)
    current_sink.reset(token)
    assert [kind for kind, _ in events] == ["alarm"]
    assert timeline.store.last_record_lsn == before
    assert timeline.size(HEAP) is None
    assert timeline.checkpoint.next_xid == 1000


def test_hints_may_change_without_an_image(timeline: Timeline) -> None:
    """With full_page_writes off there is none, and stock replay leaves the page alone as well."""
    timeline.put(HEAP, 0)
    before = asyncio.run(timeline.directory.relation_block(HEAP, 0))
    timeline.play(0, 0xA0, blocks=(reference(HEAP, 0, None),))
    assert asyncio.run(timeline.directory.relation_block(HEAP, 0)) == before
    with pytest.raises(ImageMissing):
        timeline.play(0, 0xB0, blocks=(reference(HEAP, 0, None),))


def test_free_space_map_is_not_kept(timeline: Timeline) -> None:
    space_map = HEAP._replace(fork=1)
    timeline.play(0, 0xB0, blocks=(reference(space_map, 0), reference(space_map, 1, None)))
    timeline.play(2, 0x10, struct.pack("<IIIi", *space_map))
    assert timeline.size(space_map) is None


@pytest.mark.parametrize(
    ("rmid", "info", "data"),
    [
        (18, 0x00, b""), (19, 0x20, b""), (22, 0x00, b""), (130, 0x00, b""), (0, 0xF0, b""),
        (1, 0x70, b""), (2, 0x00, b""), (3, 0x20, b""), (4, 0x30, b""), (5, 0x20, bytes(4)),
        (6, 0x40, b""), (7, 0x10, b""), (8, 0x30, b""), (9, 0x80, b""), (10, 0x90, bytes(8)),
        (11, 0xF0, b""), (15, 0x10, b""), (20, 0x10, b""), (21, 0x10, b""), (0, 0xE0, b""),
    ],
)  # fmt: skip
def test_unknown_records_raise_the_alarm(
    timeline: Timeline, rmid: int, info: int, data: bytes
) -> None:
    with pytest.raises(UnsupportedRecord, match=r"record at 0/1000"):
        timeline.play(rmid, info, data)
    assert timeline.store.last_record_lsn == 0x1000


def test_images_do_not_excuse_a_record_that_changes_files_as_well(timeline: Timeline) -> None:
    """PostgreSQL marks what changes relation files beyond the blocks named (xlogrecord.h)."""
    with pytest.raises(UnsupportedRecord, match="XLOG/FPI says that it changes relation files"):
        timeline.play(0, 0xB1, blocks=(reference(HEAP, 0),))
    assert timeline.size(HEAP) is None


def test_record_that_is_too_short_is_corrupt(timeline: Timeline) -> None:
    for rmid, info in ((1, 0x80), (1, 0x10), (2, 0x20), (4, 0x00), (6, 0x20), (8, 0x10), (10, 0)):
        with pytest.raises(CorruptData, match="0/1000"):
            timeline.play(rmid, info, b"")


def test_an_aborted_record_leaves_no_trace_in_the_counters(timeline: Timeline) -> None:
    """The same record comes again after a failure: its xid must count then."""
    store, record = timeline.store, timeline.record(11, 0, xid=2000)

    async def begin_and_abort() -> None:
        store.modification.begin(record.lsn, record.end_lsn)
        await store.support.ingest(store.modification, record, 15)
        store.modification.abort()

    asyncio.run(begin_and_abort())
    assert timeline.checkpoint.next_xid == 1000
    asyncio.run(store.ingest(record))
    assert timeline.checkpoint.next_xid == 2001


def test_filler_needs_no_imported_directory() -> None:
    store = VersionStore(15)
    filler = WalRecord(Lsn(0x1000), Lsn(0x1040), Lsn(0), 0, 0, 0x20, b"", ())
    asyncio.run(store.ingest(filler))
    assert store.last_record_lsn == 0x1040
    with pytest.raises(CorruptData, match="import a data directory"):
        asyncio.run(store.ingest(WalRecord(Lsn(0x1040), Lsn(0x1080), Lsn(0), 9, 11, 0, b"", ())))


def outcome(*, subxids: tuple[int, ...] = (), dropped: tuple[Relation, ...] = (), stats: int = 0,
            stat_size: int = 12, twophase: int = 0) -> bytes:  # fmt: skip
    info = (2 if subxids else 0) | (4 if dropped else 0) | (0x100 if stats else 0)
    info |= (0x10 if twophase else 0) | 1 | 8
    parts = [struct.pack("<qIII", 7, info, 5, 1663)]
    if subxids:
        parts.append(struct.pack(f"<i{len(subxids)}I", len(subxids), *subxids))
    if dropped:
        parts.append(struct.pack("<i", len(dropped)))
        parts += [struct.pack("<III", *relation[:3]) for relation in dropped]
    if stats:
        parts.append(struct.pack("<i", stats) + bytes(stats * stat_size))
    parts.append(struct.pack("<i", 1) + bytes(16))
    if twophase:
        parts.append(struct.pack("<I", twophase))
    return b"".join(parts)


@pytest.mark.parametrize(("info", "status"), [(0x80, 1), (0xA0, 2)])
def test_outcome_sets_status_of_all_and_drops_relations(
    timeline: Timeline, info: int, status: int
) -> None:
    timeline.put(HEAP, 0)
    timeline.put(MAP, 0)
    data = outcome(subxids=(40_000, 1002), dropped=(HEAP,), stats=2)
    timeline.play(1, info, data, xid=1000)
    assert [timeline.xid_status(xid) for xid in (1000, 1002, 40_000)] == [status] * 3
    assert timeline.xid_status(1001) == 0
    assert timeline.size(HEAP) is None
    assert timeline.size(MAP) is None
    assert timeline.checkpoint.next_xid == 40_001


@pytest.mark.parametrize(("pg_version", "stat_size"), [(15, 12), (16, 12), (18, 16)])
def test_prepared_transaction_comes_and_goes(pg_version: int, stat_size: int) -> None:
    timeline = Timeline(pg_version, (3 << 32) + 500)
    prepare = bytearray(72)
    struct.pack_into("<II", prepare, 4, 100, 500)
    struct.pack_into("<i", prepare, 28, 1)
    struct.pack_into("<H", prepare, 54, 5)
    data = bytes(prepare) + b"gid\0\0\0\0\0" + struct.pack("<I", 501)
    timeline.play(1, 0x10, data, xid=500)
    full_xid = (3 << 32) + 500
    assert asyncio.run(timeline.directory.twophase_xids()) == [full_xid]
    stored = asyncio.run(timeline.directory.twophase_file(full_xid))
    assert stored == data + crc32c(data).to_bytes(4, "little")
    assert timeline.checkpoint.next_xid == (3 << 32) + 502
    finish = outcome(subxids=(501,), stats=1, stat_size=stat_size, twophase=500)
    timeline.play(1, 0xB0, finish)
    assert asyncio.run(timeline.directory.twophase_xids()) == []
    assert [timeline.xid_status(500), timeline.xid_status(501)] == [1, 1]
    assert timeline.xid_status(0) == 0


def test_truncation_cuts_heap_and_map(timeline: Timeline) -> None:
    timeline.put(HEAP, 9)
    timeline.put(MAP, 0, FULL_MAP)
    timeline.play(2, 0x20, struct.pack("<IIIIi", 6, *HEAP[:3], 7))
    assert timeline.size(HEAP) == 6
    assert timeline.size(MAP) == 1
    assert [timeline.map_bits(block) for block in (5, 6, 7, 8)] == [3, 0, 0, 0]
    timeline.put(HEAP, 8)
    assert asyncio.run(timeline.directory.relation_block(HEAP, 7)) == bytes(PAGE_SIZE)
    timeline.play(2, 0x20, struct.pack("<IIIIi", 0, *HEAP[:3], 3))
    assert (timeline.size(HEAP), timeline.size(MAP)) == (0, 0)


INSERT, DELETE = struct.pack("<HB", 1, 1), struct.pack("<IHBB", 9, 1, 0, 1)


class HeapCase(NamedTuple):
    """A record on a heap whose map is full, and what it leaves of some blocks' bits."""

    rmid: int
    info: int
    data: bytes
    blocks: tuple[int, ...]
    left: dict[int, int]


@pytest.mark.parametrize(
    "case",
    [
        HeapCase(10, 0x00, INSERT, (2,), {2: 0}),
        HeapCase(10, 0x80, INSERT, (2,), {2: 0}),
        HeapCase(10, 0x00, struct.pack("<HB", 1, 0xFE), (2,), {}),
        HeapCase(10, 0x10, DELETE, (2,), {2: 0}),
        HeapCase(10, 0x20, struct.pack("<IHBB", 9, 1, 0, 1), (2, 3), {3: 0}),
        HeapCase(10, 0x20, struct.pack("<IHBB", 9, 1, 0, 2), (2, 3), {2: 0}),
        HeapCase(10, 0x40, struct.pack("<IHBB", 9, 1, 0, 1), (2,), {2: 0}),
        HeapCase(10, 0x60, DELETE, (2,), {2: 1}),
        HeapCase(9, 0x60, DELETE, (2,), {2: 1}),
        HeapCase(9, 0x50, b"\1\0\1\0", (2,), {2: 0}),
        HeapCase(9, 0x50, b"\2\0\1\0", (2,), {}),
        HeapCase(9, 0x10, b"\1\0\1\0", (2,), {}),
        HeapCase(10, 0x70, b"\1\1\1\1\1\1\1\1", (2,), {}),
    ],
)
def test_heap_records_clear_map_bits(timeline: Timeline, case: HeapCase) -> None:
    timeline.put(HEAP, 4)
    timeline.put(MAP, 0, FULL_MAP)
    blocks = tuple(reference(HEAP, block) for block in case.blocks)
    timeline.play(case.rmid, case.info, case.data, blocks=blocks)
    assert {block: timeline.map_bits(block) for block in range(5)} == {
        block: case.left.get(block, 3) for block in range(5)
    }


def test_map_that_has_no_page_there_is_left_alone(timeline: Timeline) -> None:
    timeline.play(10, 0x00, INSERT, blocks=(reference(HEAP, 2),))
    assert timeline.size(MAP) is None
    timeline.put(MAP, 0, FULL_MAP)
    timeline.play(10, 0x00, INSERT, blocks=(reference(HEAP, 40_000),))
    assert timeline.size(MAP) == 1


def test_copied_database_has_the_source_as_of_then(timeline: Timeline) -> None:
    timeline.play(7, 0, struct.pack("<IIi", 5, 1663, 4) + b"map!")
    timeline.put(HEAP, 2)
    timeline.put(HEAP._replace(fork=3), 0)
    timeline.play(4, 0x00, struct.pack("<4I", 77, 1663, 5, 1663))
    timeline.put(HEAP, 3)
    copy = HEAP._replace(database=77)
    assert timeline.size(copy) == 3
    assert asyncio.run(timeline.directory.relation_map(1663, 77)) == b"map!"
    source = asyncio.run(timeline.directory.relation_block(HEAP, 2))
    assert asyncio.run(timeline.directory.relation_block(copy, 2)) == source
    assert asyncio.run(timeline.directory.relation_block(copy, 1)) == bytes(PAGE_SIZE)
    assert timeline.size(copy._replace(fork=3)) == 1
    timeline.play(4, 0x20, struct.pack("<IiI", 77, 1, 1663))
    assert timeline.size(copy) is None
    assert asyncio.run(timeline.directory.relation_map(1663, 77)) is None
    assert (1663, 77) not in asyncio.run(timeline.directory.databases())
    assert timeline.size(HEAP) == 4


def test_copied_database_with_tables_in_two_tablespaces(timeline: Timeline) -> None:
    """Each tablespace has a record of its own; the relation map lies in the first one only."""
    annex = HEAP._replace(space=16_500)
    timeline.play(7, 0, struct.pack("<IIi", 5, 1663, 4) + b"map!")
    timeline.put(HEAP, 0)
    timeline.put(annex, 1)
    for space in (1663, 16_500):
        timeline.play(4, 0x00, struct.pack("<4I", 77, space, 5, space))
    assert timeline.size(HEAP._replace(database=77)) == 1
    assert timeline.size(annex._replace(database=77)) == 2
    assert asyncio.run(timeline.directory.relation_map(1663, 77)) == b"map!"
    assert asyncio.run(timeline.directory.relation_map(16_500, 77)) is None
    with pytest.raises(CorruptData, match="database 6 in tablespace 1663, which does not exist"):
        timeline.play(4, 0x00, struct.pack("<4I", 78, 1663, 6, 1663))


def test_commit_log_pages_and_truncation(timeline: Timeline) -> None:
    for page in (0, 31, 32, 63, 64):
        timeline.play(3, 0x00, struct.pack("<i", page))
    assert asyncio.run(timeline.directory.slru_segments(Slru.CLOG)) == [0, 1, 2]
    timeline.play(3, 0x10, struct.pack("<iII", 63, 2_080_000, 5))
    assert asyncio.run(timeline.directory.slru_segments(Slru.CLOG)) == [1, 2]
    assert timeline.checkpoint.oldest_xid == 2_080_000
    assert timeline.checkpoint.oldest_xid_database == 5


def test_zeroed_page_forgets_what_it_held(timeline: Timeline) -> None:
    timeline.play(1, 0x00, bytes(8), xid=1000)
    assert timeline.xid_status(1000) == 1
    timeline.play(3, 0x00, struct.pack("<i", 0))
    assert timeline.xid_status(1000) == 0


def test_multixact_is_stored_and_counted() -> None:
    timeline = Timeline(18)
    timeline.play(6, 0x00, struct.pack("<q", 0))
    data = struct.pack("<IIi", 9, 50, 2) + struct.pack("<4I", 1200, 3, 900, 1)
    timeline.play(6, 0x20, data)
    page = asyncio.run(timeline.directory.slru_block(Slru.MULTIXACT_OFFSETS, 0, 0))
    assert struct.unpack_from("<2I", page, 36) == (50, 52)
    running = timeline.checkpoint
    assert (running.next_multi, running.next_multi_offset) == (10, 52)
    assert running.next_xid == 1201
    timeline.play(6, 0x30, struct.pack("<5I", 5, 1, 8, 0, 51))
    assert timeline.checkpoint.oldest_multi == 8


def test_counters_of_the_server(timeline: Timeline) -> None:
    timeline.play(0, 0x30, struct.pack("<I", 24_576))
    assert timeline.checkpoint.next_oid == 24_576
    seen = checkpoint(5000, next_oid=20_000, next_multi=7, oldest_xid=900, time_s=99)
    timeline.play(0, 0x10, seen.pack())
    assert timeline.checkpoint.next_oid == 24_576
    assert timeline.checkpoint.next_xid == 5000
    assert timeline.checkpoint.next_multi == 7
    assert timeline.checkpoint.oldest_xid == 900
    timeline.play(0, 0x00, seen.pack())
    assert timeline.checkpoint.next_oid == 20_000
    timeline.play(8, 0x10, struct.pack("<ii?3xIII", 0, 0, False, 6000, 1, 1))
    assert timeline.checkpoint.next_xid == 6000
    timeline.play(0, 0x80, b"\0")
    assert timeline.checkpoint.full_page_writes == 0


def test_parameters_reach_the_control_file(timeline: Timeline) -> None:
    timeline.play(0, 0x60, struct.pack("<6i??", 55, 8, 10, 3, 64, 1, True, False))
    control = asyncio.run(timeline.store.get(keys.control_file(), timeline.store.last_record_lsn))
    assert control is not None
    assert struct.unpack_from("<i", control, 180) == (55,)
    assert control[176] == 1


def test_commit_timestamps_are_refused_when_they_are_turned_on(timeline: Timeline) -> None:
    """The first page of timestamps is made without a record, so this is the only sign of them."""
    with pytest.raises(UnsupportedRecord, match="track_commit_timestamp"):
        timeline.play(0, 0x60, struct.pack("<6i??", 55, 8, 10, 3, 64, 1, True, True))


def test_timeline_switch_is_refused(timeline: Timeline) -> None:
    switched = checkpoint(timeline=2).pack()
    with pytest.raises(UnsupportedRecord, match="timeline 1 to 2"):
        timeline.play(0, 0x00, switched)
    with pytest.raises(UnsupportedRecord, match="timeline 1 to 2"):
        timeline.play(0, 0x90, struct.pack("<qII", 0, 2, 1))
