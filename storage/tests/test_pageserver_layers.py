"""Layers below the timeline: memory, files, the map that finds them, small parts."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

import sim
from sim.disk import SimDisk
from storage.durable import read_file
from storage.errors import CorruptData, NotReady
from storage.lsn import Lsn
from storage.pageserver import values
from storage.pageserver.gate import Gate
from storage.pageserver.keys import FIRST_KEY, LAST_KEY, Key
from storage.pageserver.layer_file import (
    ENTRIES_PER_BLOCK,
    HEADER_SIZE,
    LayerReader,
    LayerWriter,
    check_whole,
)
from storage.pageserver.layer_name import LayerKind, LayerName
from storage.pageserver.memory_layer import MemoryLayer, Version
from storage.pageserver.sized_cache import ENTRY_OVERHEAD, SizedCache
from storage.pageserver.states import TRANSITIONS, Broken, State, StateCell
from storage.pageserver.values import Delta, Image, Removed, Value
from storage.pageserver.watermark import Watermark
from storage.ports import Disk
from storage.tests.postgres_store import is_base


def key(number: int) -> Key:
    return Key(0, 1663, 1, number // 100, 0, number % 100)


def in_sim(story: Callable[[sim.SimLoop], Awaitable[None]]) -> None:
    async def main() -> None:
        loop = asyncio.get_running_loop()
        assert isinstance(loop, sim.SimLoop)
        await story(loop)

    sim.run(main)


History = dict[Key, list[Version]]


def history(generator: random.Random, count: int, *, keys: int) -> History:
    """Random versions of a few keys at LSNs 8, 16, …"""
    made: History = {}
    for number in range(1, count + 1):
        value: Value = generator.choice(
            [Image(b"i%d" % number), Delta(7, b"d%d" % number), Removed()]
        )
        made.setdefault(key(generator.randrange(keys)), []).append((Lsn(8 * number), value))
    return made


def expected(made: History, wanted: Key, above: Lsn, upto: Lsn) -> tuple[list[Version], bool]:
    """What ``collect`` must find, and whether it ends at a base."""
    found: list[Version] = []
    for lsn, value in reversed(made.get(wanted, [])):
        if above < lsn <= upto:
            found.append((lsn, value))
            if is_base(value):
                return found, True
    return found, False


@given(st.integers(0, 2**32), st.integers(0, 60), st.integers(0, 500), st.integers(0, 500))
def test_the_memory_layer_finds_versions_from_the_newest_down(
    seed: int, number: int, above: int, upto: int
) -> None:
    made = history(random.Random(seed), 60, keys=5)
    layer = MemoryLayer(Lsn(1))
    by_lsn = sorted((lsn, k, value) for k, versions in made.items() for lsn, value in versions)
    for lsn, k, value in by_lsn:
        layer.put(lsn, [(k, value)])
    found: list[Version] = []
    complete = layer.collect(key(number % 6), Lsn(above), Lsn(upto), found)
    assert (found, complete) == expected(made, key(number % 6), Lsn(above), Lsn(upto))


def test_a_frozen_memory_layer_takes_nothing() -> None:
    layer = MemoryLayer(Lsn(9))
    with pytest.raises(AssertionError, match="before the layer's start"):
        layer.put(Lsn(8), [])
    layer.put(Lsn(9), [(key(1), Image(b"x"))])
    assert layer.size_bytes > 0
    with pytest.raises(AssertionError, match="a version at"):
        layer.put(Lsn(9), [(key(1), Image(b"y"))])
    layer.freeze(Lsn(17))
    with pytest.raises(AssertionError, match="frozen"):
        layer.put(Lsn(16), [])


# Files.


async def write(disk: Disk, made: History, name: LayerName) -> int:
    file = await disk.open("layer", create=True)
    writer = LayerWriter(file)
    for k in sorted(made):
        for lsn, value in made[k]:
            writer.add(k.encode(), lsn, values.encode(value))
        await writer.drain()
    size = await writer.finish(name)
    await file.close()
    return size


NAME = LayerName(LayerKind.DELTA_0, FIRST_KEY, LAST_KEY, Lsn(1), Lsn(1 << 40), 1)


def test_a_file_holds_what_was_written() -> None:
    async def story(loop: sim.SimLoop) -> None:
        generator = random.Random(5)
        disk = SimDisk(loop, generator).view()
        made = history(generator, 4 * ENTRIES_PER_BLOCK, keys=12)
        size = await write(disk, made, NAME)
        file = await disk.open("layer")
        assert await file.size() == size
        reader = await LayerReader.open(disk, "layer", NAME, SizedCache(1 << 20))
        assert reader.entries == 4 * ENTRIES_PER_BLOCK

        for _ in range(300):
            wanted = key(generator.randrange(14))
            above, upto = Lsn(generator.randrange(3000)), Lsn(generator.randrange(7000))
            found: list[Version] = []
            complete = await reader.collect(wanted, above, upto, found)
            assert (found, complete) == expected(made, wanted, above, upto)

        scanned = [
            (Key.decode(entry.key), Lsn(entry.lsn), values.decode(data))
            async for batch in reader.scan()
            for entry, data in batch
        ]
        assert scanned == [(k, *version) for k in sorted(made) for version in made[k]]
        listed = [Key.decode(k) async for batch in reader.distinct_keys() for k in batch]
        assert listed == sorted(made)
        await reader.close()

    in_sim(story)


def test_a_long_history_of_one_key_spans_index_blocks() -> None:
    async def story(loop: sim.SimLoop) -> None:
        disk = SimDisk(loop, random.Random(5)).view()
        count = 3 * ENTRIES_PER_BLOCK
        versions: list[Version] = [(Lsn(8), Image(b"base"))]
        versions += [(Lsn(8 * n), Delta(7, b"%d" % n)) for n in range(2, count)]
        await write(disk, {key(1): versions, key(2): [(Lsn(8), Image(b"other"))]}, NAME)
        reader = await LayerReader.open(disk, "layer", NAME, SizedCache(0))
        found: list[Version] = []
        assert await reader.collect(key(1), Lsn(0), Lsn(8 * count), found)
        assert found == versions[::-1]
        await reader.close()

    in_sim(story)


def test_every_flipped_byte_is_noticed() -> None:
    async def story(loop: sim.SimLoop) -> None:
        generator = random.Random(6)
        disk = SimDisk(loop, generator).view()
        made = {key(n): [(Lsn(8 + n), Image(b"value %d" % n))] for n in range(5)}
        size = await write(disk, made, NAME)
        file = await disk.open("layer")
        for offset in range(0, size, 3):
            good = await file.pread(offset, 1)
            await file.pwrite(offset, bytes([good[0] ^ 0x10]))
            with pytest.raises(CorruptData, match="layer"):
                await _read_everything(disk, made)
            await file.pwrite(offset, good)
        await _read_everything(disk, made)

    in_sim(story)


async def _read_everything(disk: Disk, made: History) -> None:
    reader = await LayerReader.open(disk, "layer", NAME, SizedCache(0))
    try:
        for k in made:
            await reader.collect(k, Lsn(0), Lsn(1 << 30), [])
    finally:
        await reader.close()


def test_a_whole_file_is_checked_before_it_spreads() -> None:
    """A write that a disk put elsewhere once reached the object store, and replaced the truth."""

    async def story(loop: sim.SimLoop) -> None:
        generator = random.Random(5)
        disk = SimDisk(loop, generator).view()
        size = await write(disk, history(generator, 50, keys=5), NAME)
        whole = await read_file(disk, "layer")
        check_whole(whole, "layer")
        for at in (HEADER_SIZE, size // 2, size - 1):
            altered = whole[:at] + bytes([whole[at] ^ 1]) + whole[at + 1 :]
            with pytest.raises(CorruptData, match="layer is not what was written"):
                check_whole(altered, "layer")
        with pytest.raises(CorruptData):
            check_whole(whole[:-1], "layer")

    in_sim(story)


def test_a_file_under_another_layers_name_is_refused() -> None:
    async def story(loop: sim.SimLoop) -> None:
        disk = SimDisk(loop, random.Random(5)).view()
        await write(disk, {key(1): [(Lsn(8), Image(b"x"))]}, NAME)
        other = LayerName(LayerKind.DELTA_0, FIRST_KEY, LAST_KEY, Lsn(1), Lsn(9), 1)
        with pytest.raises(CorruptData, match="holds the layer"):
            await LayerReader.open(disk, "layer", other, SizedCache(0))
        with pytest.raises(CorruptData, match="header"):
            file = await disk.open("layer")
            await file.truncate(100)
            await LayerReader.open(disk, "layer", NAME, SizedCache(0))

    in_sim(story)


# Small parts.


def test_the_cache_keeps_its_budget_and_what_was_used_last() -> None:
    cache: SizedCache[int, str] = SizedCache(2 * (ENTRY_OVERHEAD + 10))
    cache.put(1, "one", 10)
    cache.put(2, "two", 10)
    assert cache.get(1) == "one"
    cache.put(3, "three", 10)
    assert [cache.get(n) for n in (1, 2, 3)] == ["one", None, "three"]
    cache.put(3, "large", 10_000)
    assert cache.get(3) is None
    cache.put(4, "four", 10)
    assert [cache.get(n) for n in (1, 4)] == ["one", "four"], "what was too large took no room"


def test_a_closing_gate_waits_for_those_inside() -> None:
    async def story(loop: sim.SimLoop) -> None:
        gate = Gate("thing")
        with gate.hold():
            closing = loop.create_task(gate.close())
            await asyncio.sleep(1)
            assert not closing.done()
            with pytest.raises(NotReady, match="thing is stopping"), gate.hold():
                pass
        await closing

    in_sim(story)


def test_a_watermark_wakes_whom_it_concerns() -> None:
    async def story(loop: sim.SimLoop) -> None:
        mark = Watermark("lsn", Lsn(10))
        await mark.wait_for(Lsn(10))
        low, high = (loop.create_task(mark.wait_for(Lsn(n))) for n in (11, 20))
        await asyncio.sleep(0)
        mark.advance_quietly(Lsn(19))
        await asyncio.sleep(0)
        assert not low.done()
        mark.notify()
        await low
        assert not high.done()
        with pytest.raises(AssertionError):
            mark.advance(Lsn(18))
        mark.fail(NotReady("over"))
        with pytest.raises(NotReady):
            await high
        with pytest.raises(NotReady):
            await mark.wait_for(Lsn(21))

    in_sim(story)


def test_states_follow_their_table() -> None:
    for state, following in TRANSITIONS.items():
        for other in State:
            cell = StateCell("tenant x", state)
            if other in following:
                cell.set(other)
            else:
                with pytest.raises(AssertionError):
                    cell.set(other)


def test_waiting_for_active_ends_when_it_cannot_come() -> None:
    async def story(loop: sim.SimLoop) -> None:
        cell = StateCell("tenant x")
        waiting = loop.create_task(cell.wait_active())
        await asyncio.sleep(1)
        cell.set(State.BROKEN, "bad index")
        with pytest.raises(Broken, match="bad index"):
            await waiting
        cell.set(State.STOPPING)
        with pytest.raises(NotReady, match="Stopping"):
            await cell.wait_active()

    in_sim(story)
