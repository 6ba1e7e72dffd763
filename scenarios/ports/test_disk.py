"""The contract of ``storage.ports.File`` and of opening one, on every implementation."""

from __future__ import annotations

import asyncio

import pytest

from scenarios.ports.files import content, written
from scenarios.ports.lab import Lab
from storage.errors import DiskError, DiskFull, FileAlreadyExists, FileMissing


async def test_open_of_a_missing_file(lab: Lab) -> None:
    """Nothing is created unless that is asked for, and never a directory."""
    disk = lab.disk()

    with pytest.raises(FileMissing, match="nothing"):
        await disk.open("nothing")
    with pytest.raises(FileMissing):
        await disk.open("no/directory", create=True)


async def test_create_keeps_a_file_that_exists(lab: Lab) -> None:
    """``create`` opens what is there; it does not empty it."""
    disk = lab.disk()
    await (await written(disk, "f", b"old")).close()

    await (await disk.open("f", create=True)).close()

    assert await content(disk, "f") == b"old"


async def test_exclusive_create_refuses_a_name_that_is_taken(lab: Lab) -> None:
    """``exclusive`` creates even without ``create``, and only once."""
    disk = lab.disk()

    await (await disk.open("f", exclusive=True)).close()

    with pytest.raises(FileAlreadyExists):
        await disk.open("f", exclusive=True)
    with pytest.raises(FileAlreadyExists):
        await disk.open("f", create=True, exclusive=True)


async def test_open_of_a_directory_is_refused(lab: Lab) -> None:
    """A directory is no file, the root included."""
    disk = lab.disk()
    await disk.mkdir("d")

    with pytest.raises(DiskError):
        await disk.open("d")
    with pytest.raises(DiskError):
        await disk.open("", create=True)


async def test_reads_end_where_the_file_ends(lab: Lab) -> None:
    """A short read means the end of the file, on both sides of it."""
    file = await written(lab.disk(), "f", b"0123456789")

    assert await file.pread(0, 10) == b"0123456789"
    assert await file.pread(8, 10) == b"89"
    assert await file.pread(10, 1) == b""
    assert await file.pread(1000, 1) == b""
    assert await file.pread(3, 0) == b""
    await file.close()


async def test_a_gap_reads_as_zeros(lab: Lab) -> None:
    """A write beyond the end leaves zeros before it."""
    file = await written(lab.disk(), "f", b"ab")

    await file.pwrite(5, b"z")

    assert await file.pread(0, 100) == b"ab\0\0\0z"
    assert await file.size() == 6
    await file.close()


async def test_an_empty_write_changes_nothing(lab: Lab) -> None:
    """Writing no bytes beyond the end does not grow the file."""
    file = await written(lab.disk(), "f", b"ab")

    await file.pwrite(100, b"")

    assert await file.size() == 2
    await file.close()


async def test_overwriting_changes_only_what_iswritten(lab: Lab) -> None:
    """The bytes around a write stay."""
    file = await written(lab.disk(), "f", b"abcdef")

    await file.pwrite(2, b"XY")

    assert await file.pread(0, 10) == b"abXYef"
    await file.close()


async def test_a_written_buffer_may_be_reused(lab: Lab) -> None:
    """The disk owns what it was given once the call returns."""
    buffer = bytearray(b"first")
    file = await lab.disk().open("f", create=True)
    await file.pwrite(0, buffer)  # type: ignore[arg-type]

    buffer[:] = b"other"

    assert await file.pread(0, 10) == b"first"
    await file.close()


async def test_truncate_cuts_and_extends_with_zeros(lab: Lab) -> None:
    """What was cut off does not come back when the file grows."""
    file = await written(lab.disk(), "f", b"abcdef")

    await file.truncate(2)
    assert await file.size() == 2
    await file.truncate(4)
    assert await file.pread(0, 10) == b"ab\0\0"
    await file.truncate(4)
    assert await file.size() == 4
    await file.close()


async def test_syncs_keep_thecontent(lab: Lab) -> None:
    """Every sync succeeds on a healthy disk and changes nothing visible."""
    disk = lab.disk()
    file = await written(disk, "f", b"abc")

    await file.fdatasync()
    await file.fsync()
    await disk.sync_dir("")

    assert await file.pread(0, 3) == b"abc"
    await file.close()


async def test_negative_numbers_are_refused(lab: Lab) -> None:
    """An offset or size below zero is an error and has no effect."""
    file = await written(lab.disk(), "f", b"abc")

    with pytest.raises(DiskError):
        await file.pread(-1, 1)
    with pytest.raises(DiskError):
        await file.pwrite(-1, b"x")
    with pytest.raises(DiskError):
        await file.truncate(-1)
    assert await file.pread(0, 10) == b"abc"
    await file.close()


async def test_a_closed_file_is_of_no_use(lab: Lab) -> None:
    """Every call on a closed file says so; closing again is harmless."""
    file = await written(lab.disk(), "f", b"abc")
    await file.close()
    await file.close()

    with pytest.raises(DiskError, match="closed"):
        await file.pread(0, 1)
    with pytest.raises(DiskError, match="closed"):
        await file.pwrite(0, b"x")
    with pytest.raises(DiskError, match="closed"):
        await file.fsync()
    with pytest.raises(DiskError, match="closed"):
        await file.size()


async def test_writes_under_way_together_all_land(lab: Lab) -> None:
    """Concurrent writes to different places do not disturb each other."""
    file = await lab.disk().open("f", create=True)

    await asyncio.gather(*(file.pwrite(i * 1000, bytes([i]) * 1000) for i in range(50)))

    expected = b"".join(bytes([i]) * 1000 for i in range(50))
    assert await file.pread(0, 50_000) == expected
    await file.close()


async def test_a_cancelled_write_touches_no_other_file(lab: Lab) -> None:
    """A descriptor closed too early is another file's descriptor when the write reaches it."""
    disk = lab.disk()
    for _ in range(20):
        file = await disk.open("cancelled", create=True)
        writes = [asyncio.ensure_future(file.pwrite(0, b"x" * 4096)) for _ in range(10)]
        await asyncio.sleep(0)
        for write in writes:
            write.cancel()
        await file.close()
        other = await disk.open("other", create=True)
        await asyncio.gather(*writes, return_exceptions=True)
        assert await other.size() == 0
        await other.close()


async def test_a_process_crash_loses_nothingwritten(lab: Lab) -> None:
    """The page cache belongs to the host: the next incarnation sees it all."""
    disk = lab.disk("a")
    await disk.mkdir("d")
    file = await written(disk, "d/f", b"not synced")
    await file.truncate(3)

    survivor = lab.disk("a")

    assert await content(survivor, "d/f") == b"not"


async def test_nodes_have_disks_of_their_own(lab: Lab) -> None:
    """What one node writes is not on another's disk."""
    await (await written(lab.disk("a"), "f", b"x")).close()

    assert await lab.disk("b").listdir("") == []


async def test_a_full_disk_keeps_what_was_there(lab: Lab) -> None:
    """A prefix of the failed write at most; room to overwrite; and all is well after."""
    disk = lab.disk()
    file = await written(disk, "f", b"old" * 100)

    with lab.full_disk(4096):
        with pytest.raises(DiskFull) as raised:
            await file.pwrite(300, b"n" * 8192)
        with pytest.raises(DiskFull):
            await file.truncate(10_000)
        await file.pwrite(0, b"NEW")

    assert raised.value.may_have_happened
    assert await file.size() <= 4096
    left = await file.pread(0, 10_000)
    assert left[:300] == b"NEW" + b"old" * 99
    assert left[300:] == b"n" * (len(left) - 300)
    await file.pwrite(300, b"n" * 8192)
    assert await file.size() == 300 + 8192
    await file.close()
