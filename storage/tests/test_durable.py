"""Replacing a file: at every crash point the old or the new content, and after it only the new."""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections.abc import Callable
from typing import Any, cast

import pytest

import sim
from sim.disk import SimDisk
from sim.disk_faults import DiskFault, DiskOperation
from sim.inode import Loss
from sim.loop import SimLoop
from storage.durable import TEMPORARY_SUFFIX, read_file, read_settled, replace_file
from storage.errors import DiskError, FileMissing
from storage.ports import Disk

OLD, NEW = b"old" * 3000, b"a longer new content" * 1000


class PowerCut(Exception):
    """Raised instead of the operation at which the host dies."""


class CountedDisk:
    """Passes calls on and cuts the power at the ``cut_at``-th one; ``calls`` names those made."""

    def __init__(
        self, inner: Any, cut_at: int | None = None, calls: list[str] | None = None
    ) -> None:
        self._inner = inner
        self._cut_at = cut_at
        self.calls: list[str] = [] if calls is None else calls

    def __getattr__(self, name: str) -> Callable[..., Any]:
        async def call(*args: Any, **options: Any) -> Any:
            if self._cut_at is not None and len(self.calls) >= self._cut_at:
                raise PowerCut
            self.calls.append(name)
            result = await getattr(self._inner, name)(*args, **options)
            return CountedDisk(result, self._cut_at, self.calls) if name == "open" else result

        return call


def new_disk(seed: int) -> SimDisk:
    loop = asyncio.get_running_loop()
    assert isinstance(loop, SimLoop)
    return SimDisk(loop, random.Random(seed))


async def _with_old_content(seed: int) -> SimDisk:
    disk = new_disk(seed)
    await disk.view().mkdir("tenants")
    await disk.view().sync_dir("")
    await replace_file(disk.view(), "tenants/index", OLD)
    return disk


async def _calls_of_one_replacement() -> list[str]:
    disk = await _with_old_content(0)
    counted = CountedDisk(disk.view())
    await replace_file(cast(Disk, counted), "tenants/index", NEW)
    return counted.calls


def test_replacement_writes_syncs_renames_and_syncs_the_directory_in_this_order() -> None:
    calls = sim.run(_calls_of_one_replacement)
    assert calls == ["open", "truncate", "pwrite", "fsync", "close", "rename", "sync_dir"]


@pytest.mark.parametrize("cut_at", range(8))
def test_a_crash_leaves_the_old_or_the_new_content(cut_at: int) -> None:
    async def main() -> set[bytes]:
        found = set()
        for seed in range(40):
            disk = await _with_old_content(seed)
            counted = CountedDisk(disk.view(), cut_at)
            finished = False
            try:
                await replace_file(cast(Disk, counted), "tenants/index", NEW)
                finished = True
            except PowerCut:
                pass
            disk.crash_host(Loss.RANDOM)
            content = await read_file(disk.view(), "tenants/index")
            assert content == NEW if finished else content in (OLD, NEW)
            found.add(content)
        return found

    found = sim.run(main)
    if cut_at == 7:
        assert found == {NEW}
    elif cut_at == 6:
        assert found == {OLD, NEW}
    else:
        assert found == {OLD}


@pytest.mark.parametrize("cut_at", range(8))
def test_what_is_believed_after_a_crash_of_the_process_outlives_one_of_the_machine(
    cut_at: int,
) -> None:
    """The process dies in mid-replacement, its successor reads, then the power fails."""

    async def main() -> None:
        for seed in range(20):
            disk = await _with_old_content(seed)
            with contextlib.suppress(PowerCut):
                await replace_file(
                    cast(Disk, CountedDisk(disk.view(), cut_at)), "tenants/index", NEW
                )
            believed = await read_settled(disk.view(), "tenants/index")
            disk.crash_host(Loss.RANDOM)
            assert await read_file(disk.view(), "tenants/index") == believed

    sim.run(main)


def test_a_longer_leftover_of_a_crashed_replacement_does_not_show() -> None:
    async def main() -> bytes:
        disk = (await _with_old_content(1)).view()
        leftover = await disk.open("tenants/index" + TEMPORARY_SUFFIX, create=True)
        await leftover.pwrite(0, b"x" * 100_000)
        await leftover.close()
        await replace_file(disk, "tenants/index", NEW)
        return await read_file(disk, "tenants/index")

    assert sim.run(main) == NEW


@pytest.mark.parametrize("operation", [DiskOperation.PWRITE, DiskOperation.FSYNC])
def test_an_error_before_the_rename_leaves_the_old_content(operation: DiskOperation) -> None:
    async def main() -> bytes:
        disk = await _with_old_content(2)
        disk.arm(DiskFault.EIO, operation)
        with pytest.raises(DiskError):
            await replace_file(disk.view(), "tenants/index", NEW)
        return await read_file(disk.view(), "tenants/index")

    assert sim.run(main) == OLD


def test_reading_names_what_is_missing_and_never_returns_part_of_a_file() -> None:
    async def main() -> None:
        disk = await _with_old_content(3)
        with pytest.raises(FileMissing):
            await read_file(disk.view(), "tenants/other")
        disk.arm(DiskFault.SHORT_READ)
        with pytest.raises(DiskError, match=r"tenants/index: the disk returned \d+ of 9000 bytes"):
            await read_file(disk.view(), "tenants/index")
        assert await read_file(disk.view(), "tenants/index") == OLD

    sim.run(main)


def test_an_empty_file_is_a_content_like_any_other() -> None:
    async def main() -> bytes:
        disk = new_disk(4).view()
        await replace_file(disk, "empty", b"")
        return await read_file(disk, "empty")

    assert sim.run(main) == b""
