"""The contract of names in ``storage.ports.Disk``, on every implementation."""

from __future__ import annotations

import pytest

from scenarios.ports.files import content, written
from scenarios.ports.lab import Lab
from storage.errors import DiskError, FileAlreadyExists, FileMissing

ILLEGAL_PATHS = ["/absolute", "..", "a/../b", ".", "a/./b", "a//b", "a/", "nul\0"]


async def test_rename_replaces_a_file(lab: Lab) -> None:
    """The replaced file lives on for whoever has it open."""
    disk = lab.disk()
    old = await written(disk, "target", b"old")
    await (await written(disk, "source", b"new")).close()

    await disk.rename("source", "target")

    assert await content(disk, "target") == b"new"
    assert not await disk.exists("source")
    assert await old.pread(0, 10) == b"old"
    await old.close()


async def test_rename_moves_a_directory_with_all_below(lab: Lab) -> None:
    """A directory may move into another one."""
    disk = lab.disk()
    await disk.mkdir("a/b")
    await disk.mkdir("c")
    await (await written(disk, "a/b/f", b"x")).close()

    await disk.rename("a", "c/d")

    assert await content(disk, "c/d/b/f") == b"x"
    assert await disk.listdir("") == ["c"]


async def test_rename_refuses_what_is_no_file_in_its_way(lab: Lab) -> None:
    """Only a file is replaced, only by a file; a refusal changes nothing."""
    disk = lab.disk()
    await disk.mkdir("empty")
    await disk.mkdir("other")
    await (await written(disk, "f", b"x")).close()

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
    await (await written(disk, "f", b"x")).close()

    await disk.rename("f", "f")

    assert await content(disk, "f") == b"x"


async def test_an_unlinked_file_lives_while_it_is_open(lab: Lab) -> None:
    """Removing a name does not remove the content from its users."""
    disk = lab.disk()
    file = await written(disk, "f", b"abc")

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
    await (await written(disk, "f", b"x")).close()

    with pytest.raises(FileAlreadyExists):
        await disk.mkdir("f")
    with pytest.raises(FileAlreadyExists):
        await disk.mkdir("f/below")


async def test_rmtree_removes_all_below(lab: Lab) -> None:
    """The tree goes whole, its neighbours stay; a missing one is no error."""
    disk = lab.disk()
    await disk.mkdir("a/b/c")
    await (await written(disk, "a/f", b"x")).close()
    await (await written(disk, "a/b/g", b"x")).close()

    await disk.rmtree("a/b")
    await disk.rmtree("a/b")

    assert await disk.listdir("a") == ["f"]
    await disk.rmtree("a")
    assert await disk.listdir("") == []


async def test_rmtree_refuses_a_file_and_the_root(lab: Lab) -> None:
    """A mistyped path must not cost a file or the disk."""
    disk = lab.disk()
    await (await written(disk, "f", b"x")).close()

    with pytest.raises(DiskError):
        await disk.rmtree("f")
    with pytest.raises(DiskError):
        await disk.rmtree("")
    assert await disk.exists("f")


async def test_listdir_is_sorted(lab: Lab) -> None:
    """Names come in code point order, whatever order they were made in."""
    disk = lab.disk()
    for name in ("b", "a", "c10", "c9"):
        await (await written(disk, name, b"")).close()
    await disk.mkdir("bb")

    assert await disk.listdir("") == ["a", "b", "bb", "c10", "c9"]


async def test_listdir_and_sync_dir_need_a_directory(lab: Lab) -> None:
    """A missing directory and a file in its place are the same error."""
    disk = lab.disk()
    await (await written(disk, "f", b"x")).close()

    for path in ("nothing", "f", "f/below"):
        with pytest.raises(FileMissing):
            await disk.listdir(path)
        with pytest.raises(FileMissing):
            await disk.sync_dir(path)


async def test_exists(lab: Lab) -> None:
    """Files, directories and the root exist; what is below a file does not."""
    disk = lab.disk()
    await disk.mkdir("d")
    await (await written(disk, "d/f", b"")).close()

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
