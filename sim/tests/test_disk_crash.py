"""What a host crash may and must not take from a simulated disk."""

import asyncio
import random

from sim.inode import SECTOR_SIZE, Inode, Loss
from sim.tests.disk_stories import names_after, outcomes, write

# Content.


def test_synced_content_survives_every_crash():
    async def story(disk, view):
        await write(view, "f", b"durable", sync=True)

    assert outcomes(story) == {b"durable"}


def test_unsynced_overwrite_may_survive_vanish_or_be_torn_at_sectors():
    old, new = b"o" * 4096, b"n" * 4096

    async def story(disk, view):
        file = await write(view, "f", old, sync=True)
        await file.pwrite(0, new)

    seen = outcomes(story)

    assert {old, new} <= seen
    torn = seen - {old, new}
    assert torn
    for each in torn:
        sectors = [each[at : at + SECTOR_SIZE] for at in range(0, 4096, SECTOR_SIZE)]
        assert all(sector in (b"o" * SECTOR_SIZE, b"n" * SECTOR_SIZE) for sector in sectors)


def test_a_write_within_one_sector_is_never_torn():
    async def story(disk, view):
        file = await write(view, "f", b"o" * 1024, sync=True)
        await file.pwrite(512, b"n" * 512)

    assert outcomes(story) == {b"o" * 1024, b"o" * 512 + b"n" * 512}


def test_writes_to_one_file_are_lost_independently():
    async def story(disk, view):
        file = await write(view, "f", bytes(2048), sync=True)
        await file.pwrite(0, b"1" * 512)
        await file.pwrite(1024, b"2" * 512)

    seen = {(each[0:1], each[1024:1025]) for each in outcomes(story, seeds=range(150))}

    assert seen == {(a, b) for a in (b"\0", b"1") for b in (b"\0", b"2")}


def test_fdatasync_keeps_content_but_not_a_grown_size():
    async def story(disk, view):
        file = await write(view, "f", b"o" * 1024, sync=True)
        await file.pwrite(512, b"n" * 1024)
        await file.fdatasync()

    seen = outcomes(story)

    grown = b"o" * 512 + b"n" * 1024
    assert all(1024 <= len(each) <= 1536 and grown.startswith(each) for each in seen)
    assert grown[:1024] in seen
    assert grown in seen


def test_fdatasync_is_enough_where_the_size_is_durable():
    async def story(disk, view):
        file = await write(view, "f", bytes(8192), sync=True)
        await file.pwrite(1000, b"x" * 3000)
        await file.fdatasync()

    assert outcomes(story) == {bytes(1000) + b"x" * 3000 + bytes(4192)}


def test_a_size_may_survive_without_its_content():
    async def story(disk, view):
        file = await write(view, "f", b"o" * 512, sync=True)
        await file.pwrite(512, b"n" * 512)

    assert outcomes(story) == {b"o" * 512, b"o" * 512 + b"n" * 512, b"o" * 512 + bytes(512)}


def test_an_unsynced_truncate_may_come_back():
    async def story(disk, view):
        file = await write(view, "f", b"abcdef", sync=True)
        await file.truncate(2)

    assert outcomes(story) == {b"abcdef", b"ab"}


def test_fdatasync_does_not_keep_a_truncate_but_keeps_what_was_written_after_it():
    async def story(disk, view):
        file = await write(view, "f", b"a" * 1024, sync=True)
        await file.truncate(0)
        await file.pwrite(0, b"b" * 512)
        await file.fdatasync()

    seen = outcomes(story)

    assert b"b" * 512 + b"a" * 512 in seen
    assert b"b" * 512 in seen
    assert all(each[:512] == b"b" * min(512, len(each)) for each in seen)


def test_a_sync_covers_what_was_written_before_it_began():
    async def story(disk, view):
        file = await write(view, "f", bytes(1024), sync=True)
        await file.pwrite(0, b"before")
        syncing = asyncio.ensure_future(file.fsync())
        await asyncio.sleep(0)
        await file.pwrite(512, b"during")
        await syncing

    seen = outcomes(story)

    assert all(each.startswith(b"before") for each in seen)
    assert {each[512:518] for each in seen} == {b"during", bytes(6)}


def test_a_long_journal_is_written_back_without_losing_its_order():
    async def story(disk, view):
        file = await view.open("f", create=True)
        await view.sync_dir("")
        for number in range(5000):
            await file.pwrite(number * 4, number.to_bytes(4, "little"))

    for each in outcomes(story, seeds=range(5), loss=Loss.EVERYTHING):
        assert 4 * 1024 <= len(each) < 20_000
        assert each == b"".join(n.to_bytes(4, "little") for n in range(len(each) // 4))


def test_every_crash_is_explained_by_a_reference_model():
    """Random programs: durable bytes never change, others are old, new or (beyond the end) zero."""
    for seed in range(150):
        generator = random.Random(seed)
        inode = Inode()
        durable = b""
        history = [b""]
        for _ in range(generator.randrange(1, 25)):
            action = generator.random()
            if action < 0.6:
                at = generator.randrange(2000)
                inode.write(at, generator.randbytes(generator.randrange(1, 1500)))
            elif action < 0.75:
                inode.truncate(generator.randrange(2500))
            elif action < 0.9:
                inode.persist(inode.mark, sizes=True)
                durable, history = bytes(inode.cache), []
            else:
                inode.persist(inode.mark, sizes=False)
            history.append(bytes(inode.cache))
        present = bytes(inode.cache)
        loss = generator.choice(list(Loss))
        inode.crash(loss, generator)
        after = bytes(inode.cache)
        versions = [durable, *history]
        for at, byte in enumerate(after):
            possible = {version[at] for version in versions if at < len(version)} | {0}
            assert byte in possible, f"seed {seed}, {loss}, byte {at}"
        if loss is Loss.NOTHING:
            assert after == present, f"seed {seed}"
        if loss is Loss.EVERYTHING:
            assert len(after) == len(durable), f"seed {seed}"
        assert inode.crash(Loss.EVERYTHING, generator) == 0
        assert bytes(inode.cache) == after, "a second crash loses nothing more"


# Names.


def test_a_created_file_without_sync_dir_may_be_gone_although_it_was_fsynced():
    async def story(disk, view):
        file = await view.open("f", create=True)
        await file.pwrite(0, b"x")
        await file.fsync()

    assert names_after(story) == {(), ("f",)}
    assert outcomes(story) == {None, b"x"}


def test_creations_are_lost_independently():
    async def story(disk, view):
        await view.open("a", create=True)
        await view.open("b", create=True)

    assert names_after(story, range(150)) == {(), ("a",), ("b",), ("a", "b")}


def test_a_rename_happens_whole_or_not():
    async def story(disk, view):
        await write(view, "old", b"x", sync=True)
        await view.rename("old", "new")

    assert names_after(story) == {("old",), ("new",)}


def test_rename_before_fsync_may_leave_an_empty_file():
    """The classic: the name is there, the content is not."""

    async def story(disk, view):
        await write(view, "f", b"old", sync=True)
        await write(view, "f.tmp", b"new")
        await view.rename("f.tmp", "f")
        await view.sync_dir("")

    assert {b"", b"new"} <= outcomes(story)


def test_atomic_replacement_leaves_the_old_or_the_new_content():
    async def story(disk, view):
        await write(view, "f", b"old", sync=True)
        file = await write(view, "f.tmp", b"new!")
        await file.fsync()
        await view.rename("f.tmp", "f")

    assert outcomes(story) == {b"old", b"new!"}


def test_an_unlink_without_sync_dir_may_come_back():
    async def story(disk, view):
        await write(view, "f", b"x", sync=True)
        await view.unlink("f")

    assert names_after(story) == {(), ("f",)}


def test_syncing_another_directory_does_not_help():
    async def story(disk, view):
        await view.mkdir("a")
        await view.mkdir("b")
        await view.sync_dir("")
        await view.open("a/f", create=True)
        await view.sync_dir("b")

    assert names_after(story) == {(), ("a/f",)}


def test_a_file_needs_its_directory_to_be_durable_too():
    async def story(disk, view):
        await view.mkdir("d")
        await write(view, "d/f", b"x", sync=True)

    assert names_after(story) == {(), ("d/f",)}


def test_rmtree_may_come_back_in_part():
    async def story(disk, view):
        await view.mkdir("d")
        await view.sync_dir("")
        for name in ("d/a", "d/b"):
            await view.open(name, create=True)
        await view.sync_dir("d")
        await view.rmtree("d")

    seen = names_after(story, range(200))

    assert {(), ("d/a", "d/b"), ("d/a",), ("d/b",)} == seen


def test_sync_dir_settles_what_its_names_were_built_upon():
    async def story(disk, view):
        await view.mkdir("a")
        await view.mkdir("b")
        await view.sync_dir("")
        await write(view, "a/f", b"x", sync=True)
        await view.rename("a/f", "b/g")
        await view.rename("b/g", "a/h")
        await view.sync_dir("a")

    assert names_after(story, loss=Loss.EVERYTHING) == {("a/h",)}
    assert names_after(story) == {("a/h",)}


def test_sync_dir_settles_a_move_between_two_other_directories_that_its_own_was_built_upon():
    async def story(disk, view):
        for name in "abc":
            await view.mkdir(name)
        await view.sync_dir("")
        await write(view, "a/f", b"x", sync=True)
        await view.rename("a/f", "b/g")
        await view.rename("b/g", "c/h")
        await view.sync_dir("c")

    assert names_after(story, loss=Loss.EVERYTHING) == {("c/h",)}
    assert names_after(story) == {("c/h",)}


def test_a_file_never_gets_two_names():
    async def story(disk, view):
        await write(view, "a", b"x", sync=True)
        await view.rename("a", "b")
        await view.rename("b", "c")

    assert names_after(story, range(100)) == {("a",), ("b",), ("c",)}


def test_what_a_crash_left_is_durable():
    async def story(disk, view):
        await view.mkdir("d")
        await write(view, "d/f", b"x" * 5000)
        await write(view, "g", b"y")
        disk.crash_host()
        disk.left = disk.snapshot()
        disk.crash_host(Loss.EVERYTHING)
        assert disk.snapshot() == disk.left

    for seed in range(20):
        names_after(story, [seed])
