"""Stories on a simulated disk, and what a host crash after them may leave."""

import asyncio

import sim
from sim.disk import SimDisk
from sim.disk_faults import DiskOptions
from sim.inode import Loss

SEEDS = range(60)


class Process:
    def __init__(self):
        self.alive = True


def run(test, seed=0, **options):
    async def main():
        loop = asyncio.get_running_loop()
        disk = SimDisk(loop, loop.seeds.child("disk"), DiskOptions(**options))
        return await test(disk, disk.view())

    return sim.run(main, seed=seed)


async def write(view, path, data, *, sync=False):
    file = await view.open(path, create=True)
    await file.pwrite(0, data)
    if sync:
        await file.fsync()
        await view.sync_dir(path.rpartition("/")[0])
    return file


def content(disk, path):
    inode = disk.names.file(path)
    return None if inode is None else bytes(inode.cache)


def outcomes(story, path="f", seeds=SEEDS, loss=Loss.RANDOM):
    """What a host crash after ``story`` may leave of a file, over many seeds."""

    async def test(disk, view):
        await story(disk, view)
        disk.crash_host(loss)
        return content(disk, path)

    return {run(test, seed) for seed in seeds}


def names_after(story, seeds=SEEDS, loss=Loss.RANDOM):
    """Which files a host crash after ``story`` may leave, over many seeds."""

    async def test(disk, view):
        await story(disk, view)
        disk.crash_host(loss)
        return tuple(path for path, _ in disk.names.files())

    return {run(test, seed) for seed in seeds}
