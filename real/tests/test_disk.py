"""What only the real disk has: threads with names, descriptors, a loop that never waits for it."""

import asyncio
import os
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from real.disk import ThreadPoolDisk
from real.disk_pool import DiskPool
from storage.errors import DiskError


def run(test, tmp_path):
    async def main():
        disk = ThreadPoolDisk(tmp_path / "disk", "sk0-disk", threads=2)
        try:
            return await test(disk)
        finally:
            disk.close()

    return asyncio.run(main())


async def all_threads_idle(disk):
    """Return when every call made so far, and what it left to do, has been done."""
    for _ in range(2):
        together = threading.Barrier(2)
        await asyncio.gather(*(disk.pool.submit(together.wait, 5.0) for _ in range(2)))


def thread_names():
    tasks = Path("/proc/self/task").iterdir()
    return sorted((task / "comm").read_text().strip() for task in tasks)


def open_files(directory):
    links = [Path("/proc/self/fd") / name for name in os.listdir("/proc/self/fd")]
    targets = [os.readlink(link) for link in links if link.is_symlink()]
    return [target for target in targets if target.startswith(str(directory))]


def test_threads_have_names_in_the_kernel_too_and_end(tmp_path):
    async def test(disk):
        await all_threads_idle(disk)
        return thread_names()

    assert [name for name in run(test, tmp_path) if name.startswith("sk0-disk")] == [
        "sk0-disk-0",
        "sk0-disk-1",
    ]
    assert not any(thread.name.startswith("sk0-disk") for thread in threading.enumerate())


def test_a_stuck_call_does_not_stop_the_loop_or_other_calls(tmp_path):
    release = threading.Event()

    async def test(disk):
        stuck = disk.pool.submit(release.wait)
        file = await disk.open("f", create=True)
        for turn in range(50):
            await file.pwrite(turn, b"x")
        assert not stuck.done()
        release.set()
        assert await stuck
        await file.close()

    run(test, tmp_path)


def test_close_leaves_no_descriptor(tmp_path):
    async def test(disk):
        kept = await disk.open("kept", create=True)
        await (await disk.open("closed", create=True)).close()
        assert open_files(tmp_path) == [str(tmp_path / "disk" / "kept")]
        await kept.pwrite(0, b"x")

    run(test, tmp_path)
    assert open_files(tmp_path) == []


def test_an_open_that_was_cancelled_leaves_no_descriptor(tmp_path):
    async def test(disk):
        for turns in range(8):
            opening = asyncio.ensure_future(disk.open("f", create=True))
            for _ in range(turns):
                await asyncio.sleep(0)
            opening.cancel()
            outcome = (await asyncio.gather(opening, return_exceptions=True))[0]
            if not isinstance(outcome, BaseException):
                await outcome.close()
        await all_threads_idle(disk)
        return open_files(tmp_path)

    assert run(test, tmp_path) == []


def test_a_descriptor_is_closed_only_after_the_last_call_that_uses_it(tmp_path):
    release = threading.Event()

    async def test(disk):
        file = await disk.open("f", create=True)
        blockers = [disk.pool.submit(release.wait) for _ in range(2)]
        writing = asyncio.ensure_future(file.pwrite(0, b"queued"))
        await asyncio.sleep(0)
        writing.cancel()
        await file.close()
        assert open_files(tmp_path) != []
        release.set()
        await asyncio.gather(*blockers)
        await all_threads_idle(disk)
        assert open_files(tmp_path) == []

    run(test, tmp_path)
    assert (tmp_path / "disk" / "f").read_bytes() == b"queued"


def test_a_link_does_not_lead_out(tmp_path):
    (tmp_path / "secret").write_bytes(b"secret")

    async def test(disk):
        (tmp_path / "disk" / "link").symlink_to(tmp_path / "secret")
        with pytest.raises(DiskError, match="link"):
            await disk.open("link")

    run(test, tmp_path)


def test_a_data_directory_that_cannot_be_made_is_named(tmp_path):
    (tmp_path / "file").write_bytes(b"")

    with pytest.raises(DiskError, match="file/disk"):
        ThreadPoolDisk(tmp_path / "file" / "disk", "x")


def test_completions_of_a_burst_are_delivered_together(tmp_path):
    """One wake-up of the loop for many calls is what makes the pool cheap."""

    async def main():
        pool = DiskPool("burst", threads=1)
        delivered = []
        results = await asyncio.gather(
            *(
                pool.submit(lambda value=n: value, after=lambda r, e: delivered.append(r))
                for n in range(100)
            )
        )
        assert pool.close()
        return results, delivered

    results, delivered = asyncio.run(main())
    assert results == delivered == list(range(100))


def test_a_pool_tells_each_loop_of_its_own_calls():
    """Runtimes share the pool; an outcome delivered on a strange loop would be a race."""
    pool = DiskPool("shared", threads=2)
    wrong: list[str] = []

    async def use(name: str) -> list[int]:
        loop = asyncio.get_running_loop()

        def after(_result: object, _error: BaseException | None) -> None:
            if asyncio.get_running_loop() is not loop:
                wrong.append(name)

        return await asyncio.gather(
            *(pool.submit(int, number, after=after) for number in range(500))
        )

    with ThreadPoolExecutor(3) as threads:
        users = [threads.submit(asyncio.run, use(name)) for name in ("a", "b", "c")]
        assert [user.result(20) for user in users] == [list(range(500))] * 3
    assert wrong == []
    pool.close()
