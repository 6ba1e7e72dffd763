"""Modification and DataDirectory: a record is whole, and data directories behave like ones."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Iterable

import pytest

from storage.errors import NotFound
from storage.lsn import Lsn
from storage.pageserver.datadir import ZERO_PAGE, DataDirectory
from storage.pageserver.keys import BLOCK_SIZE, Key, Relation, Slru, relation_block
from storage.pageserver.memory_layer import MemoryLayer, Version
from storage.pageserver.modification import Modification
from storage.pageserver.redo import RedoTable
from storage.pageserver.values import Delta, Image, Value

REL = Relation(1663, 5, 100, 0)


def page(text: str) -> bytes:
    return text.encode().ljust(BLOCK_SIZE, b"\0")


class Tip:
    """The tip of a timeline, with only a memory layer beneath."""

    def __init__(self) -> None:
        self.redo = RedoTable()
        self.redo.register(100, lambda base, data, lsn: (base or b"") + data)
        self.last_record_lsn = Lsn(0)
        self.layer = MemoryLayer(Lsn(1))
        self.reads = 0

    async def get(self, key: Key, lsn: Lsn) -> bytes | None:
        self.reads += 1
        found: list[Version] = []
        self.layer.collect(key, Lsn(0), lsn, found)
        return self.redo.reconstruct(None, reversed(found))

    def apply_record(
        self, start_lsn: Lsn, end_lsn: Lsn, changes: Iterable[tuple[Key, Value]]
    ) -> None:
        self.layer.put(end_lsn, changes)
        self.last_record_lsn = end_lsn

    def at(self, lsn: int) -> DataDirectory:
        return DataDirectory(lambda key: self.get(key, Lsn(lsn)))


class Writer:
    """Numbers the records of a modification."""

    def __init__(self) -> None:
        self.tip = Tip()
        self.modification = Modification(self.tip)

    def __enter__(self) -> Modification:
        start = self.tip.last_record_lsn
        self.modification.begin(start, Lsn(start + 8))
        return self.modification

    def __exit__(self, kind: object, *_: object) -> None:
        if kind is None:
            self.modification.commit()
        else:
            self.modification.abort()


def test_a_record_is_seen_whole_at_its_end() -> None:
    async def story() -> None:
        writer = Writer()
        with writer as record:
            await record.put_block(REL, 0, Image(page("a")))
            await record.put_block(REL, 1, Image(page("b")))
            assert await record.relation_size(REL) == 2
            assert await record.directory.relation_block(REL, 1) == page("b")
            assert not await writer.tip.at(8).relation_exists(REL)
        assert await writer.tip.at(8).relation_size(REL) == 2
        assert not await writer.tip.at(7).relation_exists(REL)
        assert await writer.tip.at(8).relations(1663, 5) == [REL]
        assert await writer.tip.at(8).databases() == [(1663, 5)]

    asyncio.run(story())


def test_an_aborted_record_leaves_nothing() -> None:
    async def story() -> None:
        writer = Writer()
        with writer as record:
            await record.put_block(REL, 0, Image(page("a")))
        other = REL._replace(relation=101)
        with pytest.raises(RuntimeError), writer as record:
            await record.truncate_relation(REL, 0)
            await record.put_block(other, 3, Image(page("x")))
            raise RuntimeError("the record is bad")
        with writer as record:
            assert await record.relation_size(REL) == 1
            assert await record.relation_size(other) is None
        assert await writer.tip.at(16).relations(1663, 5) == [REL]

    asyncio.run(story())


def test_several_changes_of_one_key_become_one_version() -> None:
    async def story() -> None:
        writer = Writer()
        key = relation_block(REL, 0)
        with writer as record:
            await record.put_block(REL, 0, Image(b"a"))
            record.put(key, Delta(100, b"b"))
            record.put(key, Delta(100, b"c"))
        with writer as record:
            record.put(key, Delta(100, b"d"))
            record.put(key, Delta(100, b"e"))
            assert await record.get(key) == b"abcde"
        assert await writer.tip.get(key, Lsn(8)) == b"abc"
        assert await writer.tip.get(key, Lsn(16)) == b"abcde"

    asyncio.run(story())


def test_the_fast_path_is_taken_only_inside_known_relations() -> None:
    async def story() -> None:
        writer = Writer()
        changes = [(relation_block(REL, block), Image(page(f"new {block}"))) for block in (0, 1)]
        fast = writer.modification.commit_known_blocks
        assert not fast(Lsn(0), Lsn(8), changes)
        with writer as record:
            await record.put_block(REL, 1, Image(page("a")))
        reads = writer.tip.reads
        beyond = (relation_block(REL, 2), Image(page("b")))
        assert not fast(Lsn(8), Lsn(16), [*changes, beyond])
        assert writer.tip.last_record_lsn == 8
        assert fast(Lsn(8), Lsn(16), changes)
        assert writer.tip.reads == reads
        for block in (0, 1):
            assert await writer.tip.at(16).relation_block(REL, block) == page(f"new {block}")
        assert await writer.tip.at(8).relation_block(REL, 0) == ZERO_PAGE
        with writer as record:
            assert record.put_known_block(REL, 1, Image(page("c")))
            assert not record.put_known_block(REL, 2, Image(page("d")))
        assert await writer.tip.at(24).relation_block(REL, 1) == page("c")

    asyncio.run(story())


def test_blocks_that_were_cut_off_read_as_zeros_when_they_come_back() -> None:
    async def story() -> None:
        writer = Writer()
        with writer as record:
            for block in range(4):
                await record.put_block(REL, block, Image(page(f"old {block}")))
        with writer as record:
            await record.truncate_relation(REL, 1)
        with writer as record:
            await record.put_block(REL, 3, Delta(100, page("new")))
        then = writer.tip.at(24)
        assert await then.relation_block(REL, 0) == page("old 0")
        assert await then.relation_block(REL, 1) == ZERO_PAGE
        assert await then.relation_block(REL, 2) == ZERO_PAGE
        assert await then.relation_block(REL, 3) == page("new")
        with pytest.raises(NotFound):
            await writer.tip.at(16).relation_block(REL, 1)
        assert await writer.tip.at(8).relation_block(REL, 3) == page("old 3")

    asyncio.run(story())


def test_a_dropped_relation_is_gone_and_may_come_again() -> None:
    async def story() -> None:
        writer = Writer()
        with writer as record:
            await record.put_block(REL, 0, Image(page("old")))
        with writer as record:
            await record.drop_relation(REL)
            await record.drop_relation(REL)
        with writer as record:
            await record.create_relation(REL)
            assert await record.relation_size(REL) == 0
        with writer as record:
            await record.put_block(REL, 1, Image(page("new")))
        assert await writer.tip.at(16).relations(1663, 5) == []
        assert not await writer.tip.at(16).relation_exists(REL)
        assert await writer.tip.at(24).relation_size(REL) == 0
        assert await writer.tip.at(32).relation_block(REL, 0) == ZERO_PAGE

    asyncio.run(story())


def test_dropping_a_database_drops_what_is_in_it() -> None:
    async def story() -> None:
        writer = Writer()
        with writer as record:
            for relation in range(3):
                for fork in (0, 2):
                    rel = Relation(1663, 5, relation, fork)
                    await record.put_block(rel, 1, Image(page("x")))
            await record.create_relation(Relation(1663, 6, 1, 0))
            record.put_relation_map(1663, 5, b"map")
        assert await writer.tip.at(8).database_blocks(1663, 5) == 6
        with writer as record:
            await record.drop_database(1663, 5)
        then = writer.tip.at(16)
        assert await then.databases() == [(1663, 6)]
        assert await then.relations(1663, 5) == []
        assert await then.relation_map(1663, 5) is None
        assert await then.database_blocks(1663, 5) == 0
        assert await writer.tip.at(8).relation_map(1663, 5) == b"map"

    asyncio.run(story())


def test_slrus_and_single_files() -> None:
    async def story() -> None:
        writer = Writer()
        with writer as record:
            await record.put_slru_block(Slru.CLOG, 2, 1, Image(page("clog")))
            await record.put_slru_block(Slru.CLOG, 0, 0, Delta(100, page("zero")))
            await record.put_twophase_file(1 << 33 | 5, b"prepared")
            record.put_control_file(b"control")
            record.put_checkpoint(b"checkpoint")
        then = writer.tip.at(8)
        assert await then.slru_segments(Slru.CLOG) == [0, 2]
        assert await then.slru_segments(Slru.MULTIXACT_OFFSETS) == []
        assert await then.slru_segment_size(Slru.CLOG, 2) == 2
        assert await then.slru_block(Slru.CLOG, 2, 0) == ZERO_PAGE
        assert await then.slru_block(Slru.CLOG, 2, 1) == page("clog")
        assert await then.twophase_xids() == [1 << 33 | 5]
        assert await then.twophase_file(1 << 33 | 5) == b"prepared"
        assert await then.control_file() == b"control"
        assert await then.checkpoint() == b"checkpoint"
        with writer as record:
            await record.drop_slru_segment(Slru.CLOG, 2)
            await record.drop_twophase_file(1 << 33 | 5)
        then = writer.tip.at(16)
        assert await then.slru_segments(Slru.CLOG) == [0]
        assert await then.twophase_xids() == []
        assert await then.twophase_file(1 << 33 | 5) is None
        with pytest.raises(NotFound):
            await then.slru_block(Slru.CLOG, 2, 1)

    asyncio.run(story())


@pytest.mark.parametrize("seed", range(5))
def test_random_records_against_a_plain_model(seed: int) -> None:
    async def story() -> None:
        generator = random.Random(seed)
        writer = Writer()
        model: dict[Relation, list[bytes]] = {}
        states: list[dict[Relation, list[bytes]]] = []
        for number in range(60):
            with writer as record:
                for _ in range(generator.randrange(1, 4)):
                    await _random_change(generator, record, model, number)
            states.append({relation: list(pages) for relation, pages in model.items()})
        for number, state in enumerate(states):
            await _check_state(writer.tip.at(8 * (number + 1)), state)

    asyncio.run(story())


async def _random_change(
    generator: random.Random, record: Modification, model: dict[Relation, list[bytes]], number: int
) -> None:
    relation = Relation(1663, generator.randrange(2), generator.randrange(3), 0)
    pages = model.get(relation)
    match generator.randrange(6):
        case 0:
            await record.drop_relation(relation)
            model.pop(relation, None)
        case 1:
            blocks = generator.randrange(4)
            await record.truncate_relation(relation, blocks)
            if pages is not None:
                del pages[blocks:]
        case 2:
            await record.create_relation(relation)
            model.setdefault(relation, [])
        case _:
            block = generator.randrange(6)
            content = page(f"record {number} block {block}")
            await record.put_block(relation, block, Image(content))
            pages = model.setdefault(relation, [])
            pages.extend([ZERO_PAGE] * (block + 1 - len(pages)))
            pages[block] = content


async def _check_state(then: DataDirectory, state: dict[Relation, list[bytes]]) -> None:
    for database in range(2):
        expected = sorted(relation for relation in state if relation.database == database)
        assert await then.relations(1663, database) == expected
    for relation, pages in state.items():
        assert await then.relation_size(relation) == len(pages)
        for block, content in enumerate(pages):
            assert await then.relation_block(relation, block) == content
