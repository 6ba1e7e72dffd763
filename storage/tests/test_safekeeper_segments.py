"""Segments: PostgreSQL's names, atomic creation, data sync that suffices, cuts that leave zeros."""

from __future__ import annotations

import pytest

from sim import SimLoop
from sim.disk import SimDisk
from sim.disk_faults import DiskFault, DiskOperation, DiskOptions
from sim.inode import Loss
from sim.run import run_on
from storage.errors import CorruptData, DiskError, DiskFull
from storage.lsn import Lsn
from storage.safekeeper.segments import WalSegments

SIZE = 1 << 20


def on_disk(story, *, seed: int = 0, **options):
    """Run ``story(disk, segments)`` with an empty directory ``t``."""
    loop = SimLoop(seed)

    async def main():
        disk = SimDisk(loop, loop.seeds.child("disk"), DiskOptions(**options))
        await disk.view().mkdir("t")
        await disk.view().sync_dir("")
        await story(disk, await reopen(disk))

    run_on(loop, main)


async def reopen(disk: SimDisk) -> WalSegments:
    segments = WalSegments(disk.view(), "t", SIZE)
    await segments.load()
    return segments


def test_names_are_those_of_postgresql():
    async def story(disk, segments):
        await segments.write(Lsn(SIZE * 0x1234 - 2), [b"ab", b"cd"])
        assert await disk.view().listdir("t") == [
            "000000010000000100000233",
            "000000010000000100000234",
        ]

    on_disk(story)


def test_flushed_bytes_survive_the_hosts_death_across_segments():
    async def story(disk, segments):
        data = bytes(range(256)) * 8192
        begin = Lsn(SIZE - 1000)
        await segments.write(begin, [data])
        await segments.flush()
        disk.crash_host(Loss.EVERYTHING)
        again = await reopen(disk)
        assert await again.read(begin, Lsn(begin + len(data))) == data
        assert await again.read(Lsn(SIZE - 1100), begin) == bytes(100)

    on_disk(story)


@pytest.mark.parametrize("seed", range(20))
def test_a_crash_never_leaves_a_segment_of_another_size(seed):
    """Data sync does not persist a size, so the size must be durable before the name is."""

    async def story(disk, segments):
        loop = disk.loop
        writing = loop.create_task(segments.write(Lsn(SIZE * 3 - 8), [bytes(8), b"x" * 64]))
        timer = loop.create_future()
        loop.call_later(loop.seeds.child("when").uniform(0, 0.02), timer.set_result, None)
        await timer
        writing.cancel()
        disk.crash_host(Loss.RANDOM)
        again = await reopen(disk)
        await again.write(Lsn(SIZE * 3 - 8), [bytes(8), b"y" * 64])
        await again.flush()
        disk.crash_host(Loss.RANDOM)
        assert await (await reopen(disk)).read(Lsn(SIZE * 3), Lsn(SIZE * 3 + 64)) == b"y" * 64

    on_disk(story, seed=seed)


def test_no_space_for_a_segment_leaves_none_and_later_there_is_one():
    async def story(disk, segments):
        disk.limit(SIZE + SIZE // 2)
        await segments.write(Lsn(SIZE), [b"a" * 10])
        with pytest.raises(DiskFull):
            await segments.write(Lsn(2 * SIZE), [b"b"])
        assert await segments.read_segment(2, 0, 10) == b""
        disk.limit(None)
        await segments.write(Lsn(2 * SIZE), [b"c" * 10])
        await segments.flush()
        disk.crash_host(Loss.RANDOM)
        again = await reopen(disk)
        assert await again.read(Lsn(2 * SIZE), Lsn(2 * SIZE + 20)) == b"c" * 10 + bytes(10)
        names = await disk.view().listdir("t")
        assert all(len(name) == 24 for name in names), names

    on_disk(story)


@pytest.mark.parametrize("end", [SIZE, SIZE + 1, 2 * SIZE - 1, 2 * SIZE, 2 * SIZE + 8192])
def test_a_cut_leaves_nothing_beyond_it_durably(end):
    async def story(disk, segments):
        data = b"\xff" * (3 * SIZE)
        await segments.write(Lsn(SIZE), [data])
        await segments.flush()
        await segments.truncate(Lsn(end))
        disk.crash_host(Loss.RANDOM)
        again = await reopen(disk)
        for lsn in range(SIZE, 4 * SIZE, 4096):
            found = await again.read_segment(lsn // SIZE, lsn % SIZE, 4096)
            kept = max(0, min(4096, end - lsn))
            assert found in (b"\xff" * kept + bytes(4096 - kept), b"") or kept == 4096
            assert found[:kept] == b"\xff" * kept
        await again.write(Lsn(end), [b"new"])
        assert await again.read(Lsn(end), Lsn(end + 4)) == b"new\0"

    on_disk(story)


def test_a_segment_of_a_wrong_size_or_a_missing_one_is_corruption():
    async def story(disk, segments):
        await segments.write(Lsn(0), [b"x" * (2 * SIZE + 1)])
        await segments.close()
        segments.check_complete(Lsn(0), Lsn(3 * SIZE))
        with pytest.raises(CorruptData, match="000000010000000000000003 is missing"):
            segments.check_complete(Lsn(0), Lsn(3 * SIZE + 1))
        file = await disk.view().open("t/000000010000000000000001")
        await file.truncate(SIZE - 1)
        with pytest.raises(CorruptData, match="has 1048575 bytes"):
            await reopen(disk)

    on_disk(story)


def test_a_failed_sync_reaches_the_caller():
    async def story(disk, segments):
        await segments.write(Lsn(0), [b"x"])
        disk.arm(DiskFault.EIO, DiskOperation.FDATASYNC)
        with pytest.raises(DiskError):
            await segments.flush()
        await segments.write(Lsn(0), [b"x"])
        await segments.flush()

    on_disk(story)
