"""The contract of ``storage.ports.Disk`` and ``File``, on every implementation."""

from __future__ import annotations

import asyncio

import pytest

from scenarios.ports.lab import Lab
from storage.errors import DiskError, DiskFull, FileAlreadyExists, FileMissing
from storage.ports import Disk, File

ILLEGAL_PATHS = ["/absolute", "..", "a/../b", ".", "a/./b", "a//b", "a/", "nul\0"]


async def _written(disk: Disk, path: str, data: bytes) -> File:
    file = await disk.open(path, create=True)
    await file.pwrite(0, data)
    return file


async def _content(disk: Disk, path: str) -> bytes:
    file = await disk.open(path)
    try:
        return await file.pread(0, await file.size())
    finally:
        await file.close()


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
    await (await _written(disk, "f", b"old")).close()

    await (await disk.open("f", create=True)).close()

    assert await _content(disk, "f") == b"old"


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
    file = await _written(lab.disk(), "f", b"0123456789")

    assert await file.pread(0, 10) == b"0123456789"
    assert await file.pread(8, 10) == b"89"
    assert await file.pread(10, 1) == b""
    assert await file.pread(1000, 1) == b""
    assert await file.pread(3, 0) == b""
    await file.close()


async def test_a_gap_reads_as_zeros(lab: Lab) -> None:
    """A write beyond the end leaves zeros before it."""
    file = await _written(lab.disk(), "f", b"ab")

    await file.pwrite(5, b"z")

    assert await file.pread(0, 100) == b"ab\0\0\0z"
    assert await file.size() == 6
    await file.close()


async def test_an_empty_write_changes_nothing(lab: Lab) -> None:
    """Writing no bytes beyond the end does not grow the file."""
    file = await _written(lab.disk(), "f", b"ab")

    await file.pwrite(100, b"")

    assert await file.size() == 2
    await file.close()


async def test_overwriting_changes_only_what_is_written(lab: Lab) -> None:
    """The bytes around a write stay."""
    file = await _written(lab.disk(), "f", b"abcdef")

    await file.pwrite(2, b"XY")

    assert await file.pread(0, 10) == b"abXYef"
    await file.close()


async def test_a_written_buffer_may_be_reused(lab: Lab) -> None:
    """The disk owns what it was given once the call returns."""
    buffer = bytearray(b"first")
    file = await lab.disk().open("f", create=True)
    await file.pwrite(0, buffer)

    buffer[:] = b"other"

    assert await file.pread(0, 10) == b"first"
    await file.close()


async def test_truncate_cuts_and_extends_with_zeros(lab: Lab) -> None:
    """What was cut off does not come back when the file grows."""
    file = await _written(lab.disk(), "f", b"abcdef")

    await file.truncate(2)
    assert await file.size() == 2
    await file.truncate(4)
    assert await file.pread(0, 10) == b"ab\0\0"
    await file.truncate(4)
    assert await file.size() == 4
    await file.close()


async def test_syncs_keep_the_content(lab: Lab) -> None:
    """Every sync succeeds on a healthy disk and changes nothing visible."""
    disk = lab.disk()
    file = await _written(disk, "f", b"abc")

    await file.fdatasync()
    await file.fsync()
    await disk.sync_dir("")

    assert await file.pread(0, 3) == b"abc"
    await file.close()


async def test_negative_numbers_are_refused(lab: Lab) -> None:
    """An offset or size below zero is an error and has no effect."""
    file = await _written(lab.disk(), "f", b"abc")

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
    file = await _written(lab.disk(), "f", b"abc")
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


async def test_rename_replaces_a_file(lab: Lab) -> None:
    """The replaced file lives on for whoever has it open."""
    disk = lab.disk()
    old = await _written(disk, "target", b"old")
    await (await _written(disk, "source", b"new")).close()

    await disk.rename("source", "target")

    assert await _content(disk, "target") == b"new"
    assert not await disk.exists("source")
    assert await old.pread(0, 10) == b"old"
    await old.close()


async def test_rename_moves_a_directory_with_all_below(lab: Lab) -> None:
    """A directory may move into another one."""
    disk = lab.disk()
    await disk.mkdir("a/b")
    await disk.mkdir("c")
    await (await _written(disk, "a/b/f", b"x")).close()

    await disk.rename("a", "c/d")

    assert await _content(disk, "c/d/b/f") == b"x"
    assert await disk.listdir("") == ["c"]


async def test_rename_refuses_what_is_no_file_in_its_way(lab: Lab) -> None:
    """Only a file is replaced, only by a file; a refusal changes nothing."""
    disk = lab.disk()
    await disk.mkdir("empty")
    await disk.mkdir("other")
    await (await _written(disk, "f", b"x")).close()

    for source, target in (
        ("f", "empty"),
        ("empty", "other"),
        ("empty", "f"),
        ("empty", "empty/x"),
    ):
        with pytest.raises(DiskError):
            await disk.rename(source, target)
    with pytest.raises(FileMissing):
        await disk.rename("nothing", "somewhere")
    with pytest.raises(FileMissing):
        await disk.rename("f", "no/directory")
    assert await disk.listdir("") == ["empty", "f", "other"]


async def test_rename_to_itself_is_harmless(lab: Lab) -> None:
    """Source and target may be the same name."""
    disk = lab.disk()
    await (await _written(disk, "f", b"x")).close()

    await disk.rename("f", "f")

    assert await _content(disk, "f") == b"x"


async def test_an_unlinked_file_lives_while_it_is_open(lab: Lab) -> None:
    """Removing a name does not remove the content from its users."""
    disk = lab.disk()
    file = await _written(disk, "f", b"abc")

    await disk.unlink("f")
    await file.pwrite(3, b"d")

    assert await file.pread(0, 10) == b"abcd"
    assert not await disk.exists("f")
    await file.close()


async def test_unlink_takes_files_only(lab: Lab) -> None:
    """A missing name and a directory are refused."""
    disk = lab.disk()
    await disk.mkdir("d")

    with pytest.raises(FileMissing):
        await disk.unlink("nothing")
    with pytest.raises(DiskError):
        await disk.unlink("d")
    assert await disk.exists("d")


async def test_mkdir_makes_parents_and_may_be_repeated(lab: Lab) -> None:
    """A directory that exists is no error."""
    disk = lab.disk()

    await disk.mkdir("a/b/c")
    await disk.mkdir("a/b/c")
    await disk.mkdir("")

    assert await disk.listdir("a/b") == ["c"]


async def test_mkdir_does_not_replace_a_file(lab: Lab) -> None:
    """A file in the way, or as a parent, is an error."""
    disk = lab.disk()
    await (await _written(disk, "f", b"x")).close()

    with pytest.raises(FileAlreadyExists):
        await disk.mkdir("f")
    with pytest.raises(FileAlreadyExists):
        await disk.mkdir("f/below")


async def test_rmtree_removes_all_below(lab: Lab) -> None:
    """The tree goes whole, its neighbours stay; a missing one is no error."""
    disk = lab.disk()
    await disk.mkdir("a/b/c")
    await (await _written(disk, "a/f", b"x")).close()
    await (await _written(disk, "a/b/g", b"x")).close()

    await disk.rmtree("a/b")
    await disk.rmtree("a/b")

    assert await disk.listdir("a") == ["f"]
    await disk.rmtree("a")
    assert await disk.listdir("") == []


async def test_rmtree_refuses_a_file_and_the_root(lab: Lab) -> None:
    """A mistyped path must not cost a file or the disk."""
    disk = lab.disk()
    await (await _written(disk, "f", b"x")).close()

    with pytest.raises(DiskError):
        await disk.rmtree("f")
    with pytest.raises(DiskError):
        await disk.rmtree("")
    assert await disk.exists("f")


async def test_listdir_is_sorted(lab: Lab) -> None:
    """Names come in code point order, whatever order they were made in."""
    disk = lab.disk()
    for name in ("b", "a", "c10", "c9"):
        await (await _written(disk, name, b"")).close()
    await disk.mkdir("bb")

    assert await disk.listdir("") == ["a", "b", "bb", "c10", "c9"]


async def test_listdir_and_sync_dir_need_a_directory(lab: Lab) -> None:
    """A missing directory and a file in its place are the same error."""
    disk = lab.disk()
    await (await _written(disk, "f", b"x")).close()

    for path in ("nothing", "f", "f/below"):
        with pytest.raises(FileMissing):
            await disk.listdir(path)
        with pytest.raises(FileMissing):
            await disk.sync_dir(path)


async def test_exists(lab: Lab) -> None:
    """Files, directories and the root exist; what is below a file does not."""
    disk = lab.disk()
    await disk.mkdir("d")
    await (await _written(disk, "d/f", b"")).close()

    assert await disk.exists("d")
    assert await disk.exists("d/f")
    assert await disk.exists("")
    assert not await disk.exists("d/g")
    assert not await disk.exists("d/f/below")


@pytest.mark.parametrize("path", ILLEGAL_PATHS)
async def test_no_path_leads_out_of_the_disk(lab: Lab, path: str) -> None:
    """Every call refuses a path that is not plainly below the root."""
    disk = lab.disk()
    await disk.mkdir("a")

    for call in (
        lambda: disk.open(path, create=True),
        lambda: disk.rename(path, "b"),
        lambda: disk.rename("a", path),
        lambda: disk.unlink(path),
        lambda: disk.mkdir(path),
        lambda: disk.rmtree(path),
        lambda: disk.listdir(path),
        lambda: disk.exists(path),
        lambda: disk.sync_dir(path),
    ):
        with pytest.raises(DiskError, match="not a path on this disk"):
            await call()
    assert await disk.listdir("") == ["a"]


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


async def test_a_process_crash_loses_nothing_written(lab: Lab) -> None:
    """The page cache belongs to the host: the next incarnation sees it all."""
    disk = lab.disk("a")
    await disk.mkdir("d")
    file = await _written(disk, "d/f", b"not synced")
    await file.truncate(3)

    survivor = lab.disk("a")

    assert await _content(survivor, "d/f") == b"not"


async def test_nodes_have_disks_of_their_own(lab: Lab) -> None:
    """What one node writes is not on another's disk."""
    await (await _written(lab.disk("a"), "f", b"x")).close()

    assert await lab.disk("b").listdir("") == []


async def test_a_full_disk_keeps_what_was_there(lab: Lab) -> None:
    """A prefix of the failed write at most; room to overwrite; and all is well after."""
    disk = lab.disk()
    file = await _written(disk, "f", b"old" * 100)

    with lab.full_disk(4096):
        with pytest.raises(DiskFull) as raised:
            await file.pwrite(300, b"n" * 8192)
        with pytest.raises(DiskFull):
            await file.truncate(10_000)
        await file.pwrite(0, b"NEW")

    assert raised.value.may_have_happened
    assert await file.size() <= 4096
    content = await file.pread(0, 10_000)
    assert content[:300] == b"NEW" + b"old" * 99
    assert content[300:] == b"n" * (len(content) - 300)
    await file.pwrite(300, b"n" * 8192)
    assert await file.size() == 300 + 8192
    await file.close()
