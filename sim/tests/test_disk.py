"""The simulated disk's processes, faults and costs; crashes are in ``test_disk_crash.py``."""

import asyncio
import random
import time

import pytest

import sim
from sim.disk_faults import DiskFault, DiskOperation
from sim.inode import Loss
from sim.latency import Constant
from sim.tests.disk_stories import Process, content, outcomes, run, write
from storage.errors import DiskError, DiskFull, FileMissing

# Processes.


def test_a_process_crash_loses_nothing():
    async def test(disk, view):
        await write(view, "f", b"unsynced")
        return content(disk, "f"), await disk.view().exists("f")

    assert run(test) == (b"unsynced", True)


def test_a_dead_incarnation_neither_acts_nor_returns():
    async def test(disk, view):
        process = Process()
        dead = disk.view(process)
        file = await dead.open("f", create=True)
        await file.pwrite(0, b"alive")
        process.alive = False
        calls = [
            file.pwrite(0, b"dead!"), file.pread(0, 1), file.truncate(0), file.fsync(),
            file.size(), file.close(), dead.unlink("f"), dead.open("g", create=True),
            dead.rename("f", "g"), dead.mkdir("d"), dead.rmtree("d"), dead.sync_dir(""),
            dead.listdir(""), dead.exists("f"),
        ]  # fmt: skip
        tasks = [asyncio.ensure_future(call) for call in calls]
        await asyncio.sleep(60)
        assert not any(task.done() for task in tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        return disk.snapshot().files

    assert run(test) == {"f": b"alive"}


def test_a_sync_under_way_when_the_process_dies_never_returns():
    async def test(disk, view):
        process = Process()
        file = await disk.view(process).open("f", create=True)
        syncing = asyncio.ensure_future(file.fsync())
        await asyncio.sleep(0)
        process.alive = False
        await asyncio.sleep(60)
        assert not syncing.done()
        syncing.cancel()
        await asyncio.gather(syncing, return_exceptions=True)

    run(test)


# Faults.


def test_eio_strikes_once_and_names_the_call():
    async def test(disk, view):
        file = await write(view, "dir-f", b"x")
        disk.arm(DiskFault.EIO, DiskOperation.PREAD, path_prefix="dir-")
        await (await write(view, "other", b"y")).pread(0, 1)
        with pytest.raises(DiskError, match="pread of 'dir-f'"):
            await file.pread(0, 1)
        assert await file.pread(0, 1) == b"x"
        return disk.effects["calls_failed"]

    assert run(test) == 1


def test_after_a_failed_fsync_the_next_one_does_not_help():
    """fsyncgate: the lost pages are clean now, and the error is not reported again."""

    async def story(disk, view):
        file = await write(view, "f", b"o" * 512, sync=True)
        await file.pwrite(0, b"n" * 512)
        disk.arm(DiskFault.EIO, DiskOperation.FSYNC)
        with pytest.raises(DiskError):
            await file.fsync()
        assert await file.pread(0, 1) == b"n"
        await file.fsync()

    assert outcomes(story, loss=Loss.EVERYTHING) == {b"o" * 512, b"n" * 512}


def test_a_rewrite_after_a_failed_fsync_heals():
    async def story(disk, view):
        file = await write(view, "f", b"o" * 512, sync=True)
        await file.pwrite(0, b"n" * 512)
        disk.arm(DiskFault.EIO, DiskOperation.FSYNC)
        with pytest.raises(DiskError):
            await file.fsync()
        await file.pwrite(0, b"n" * 512)
        await file.fsync()

    assert outcomes(story) == {b"n" * 512}


def test_a_dropped_sync_lies():
    async def story(disk, view):
        file = await write(view, "f", b"old", sync=True)
        await file.pwrite(0, b"new")
        disk.arm(DiskFault.DROPPED_SYNC)
        await file.fsync()
        assert disk.effects["syncs_dropped"] == 1

    assert outcomes(story) == {b"old", b"new"}


def test_injected_enospc_leaves_a_prefix():
    async def test(disk, view):
        file = await view.open("f", create=True)
        disk.arm(DiskFault.ENOSPC)
        with pytest.raises(DiskFull):
            await file.pwrite(0, b"x" * 1000)
        size = await file.size()
        await file.pwrite(0, b"x" * 1000)
        return size, await file.size()

    sizes = {run(test, seed)[0] for seed in range(20)}

    assert max(sizes) <= 1000
    assert len(sizes) > 5


def test_capacity_counts_every_file_and_comes_back():
    async def test(disk, view):
        a = await write(view, "a", b"x" * 600)
        b = await view.open("b", create=True)
        with pytest.raises(DiskFull):
            await b.pwrite(0, b"y" * 401)
        assert await b.size() == 400
        await b.truncate(0)
        await b.pwrite(0, b"y" * 400)
        with pytest.raises(DiskFull):
            await b.truncate(401)
        await view.unlink("a")
        with pytest.raises(DiskFull):
            await b.truncate(401)
        await a.close()
        await b.truncate(1000)

    run(test, capacity_bytes=1000)


def test_space_of_an_unlinked_file_comes_back_when_its_process_died():
    async def test(disk, view):
        process = Process()
        dead = disk.view(process)
        await write(dead, "f", b"x" * 800)
        await dead.unlink("f")
        process.alive = False
        next_view = disk.view(Process())
        await write(next_view, "g", b"x" * 1000)

    run(test, capacity_bytes=1000)


def test_a_misdirected_write_is_silent():
    async def test(disk, view):
        file = await write(view, "f", bytes(4096))
        disk.arm(DiskFault.MISDIRECTED_WRITE)
        await file.pwrite(0, b"x")
        return content(disk, "f").find(b"x"), disk.effects["writes_misdirected"]

    places = {run(test, seed) for seed in range(10)}

    assert len(places) > 5
    assert {count for _, count in places} == {1}


def test_a_short_read_is_a_strict_prefix():
    async def test(disk, view):
        file = await write(view, "f", b"0123456789")
        disk.arm(DiskFault.SHORT_READ)
        short = await file.pread(0, 10)
        assert b"0123456789".startswith(short)
        assert len(short) < 10
        assert await file.pread(0, 10) == b"0123456789"

    run(test)


def test_rot_flips_one_bit_for_good():
    async def test(disk, view):
        await write(view, "f", bytes(100), sync=True)
        at = disk.rot("f")
        disk.crash_host()
        data = content(disk, "f")
        assert data[at].bit_count() == 1
        assert sum(data) == data[at]
        with pytest.raises(ValueError, match="nothing"):
            disk.rot("nothing")

    run(test)


def test_a_stalled_disk_goes_on_when_it_is_resumed():
    async def test(disk, view):
        file = await write(view, "f", b"x")
        disk.stall()
        reading = asyncio.ensure_future(file.pread(0, 1))
        await asyncio.sleep(100)
        assert not reading.done()
        disk.resume()
        assert await reading == b"x"
        assert disk.effects["calls_stalled"] == 1

    run(test)


def test_a_slow_disk_takes_its_time_for_each_call_and_for_many_at_once():
    async def test(disk, view):
        file = await write(view, "f", b"x")
        loop = asyncio.get_running_loop()
        disk.slow(0.5)
        begun_s = loop.time()
        assert await asyncio.gather(*(file.pread(0, 1) for _ in range(3))) == [b"x"] * 3
        assert loop.time() - begun_s == pytest.approx(0.5)
        assert disk.effects["calls_slowed"] == 3
        disk.slow(0.0)
        begun_s = loop.time()
        await file.pread(0, 1)
        assert loop.time() == begun_s

    run(test)


def test_faults_that_cannot_strike_are_refused():
    async def test(disk, view):
        with pytest.raises(ValueError, match="SHORT_READ"):
            disk.arm(DiskFault.SHORT_READ, DiskOperation.PWRITE)
        with pytest.raises(ValueError, match="times"):
            disk.arm(DiskFault.EIO, times=0)
        disk.arm(DiskFault.EIO)
        disk.disarm()
        assert not disk.hindered

    run(test)


# Content as a whole, costs, determinism.


def test_an_older_copy_can_be_swapped_in():
    async def test(disk, view):
        await view.mkdir("empty")
        await write(view, "d", b"old")
        image = disk.snapshot()
        await view.unlink("d")
        await write(view, "e", b"new")
        disk.restore(image)
        disk.crash_host(Loss.EVERYTHING)
        assert disk.snapshot() == image
        disk.wipe()
        assert await view.listdir("") == []
        with pytest.raises(FileMissing):
            await view.open("d")

    run(test)


def test_only_the_device_costs_time_and_it_serves_one_at_a_time():
    async def test(disk, view):
        loop = asyncio.get_running_loop()
        files = [await write(view, f"f{number}", b"x" * 1000) for number in range(3)]
        assert loop.time() == sim.loop.START_S
        await asyncio.gather(*(file.fsync() for file in files))
        return loop.time() - sim.loop.START_S

    assert run(test, sync=Constant(0.01), bytes_per_s=1e6) == pytest.approx(3 * 0.011)


def test_same_seed_same_crash():
    async def test(disk, view):
        for number in range(20):
            file = await write(view, f"f{number}", random.Random(number).randbytes(3000))
            if number % 3:
                await file.fsync()
        disk.crash_host()
        return disk.snapshot(), dict(disk.effects)

    assert run(test, 7) == run(test, 7)
    assert run(test, 7) != run(test, 8)


def test_a_cached_write_costs_microseconds():
    """The system needs 2,000 commits a second: three writes and syncs each."""

    async def test(disk, view):
        file = await write(view, "f", bytes(1 << 20), sync=True)
        data = b"x" * 1000
        for number in range(2000):
            await file.pwrite(number * 500, data)
            await file.fdatasync()

    def seconds():
        began = time.process_time()
        run(test)
        return time.process_time() - began

    assert min(seconds() for _ in range(3)) / 2000 < 60e-6
