"""What a machine loses with its power, done to the directory of a process that was killed.

The operating system below a killed process goes on and loses nothing. So a copy of the disk is
taken when its syncs begin to hang: from then on nothing more is promised to be durable, and what
the process wrote may be lost in every way in which a disk loses it. Twin of ``sim/inode.py``.
"""

from __future__ import annotations

import os
import random
import shutil
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from harness.fault_ports import Loss

SECTOR_BYTES = 512
_OLD_NAMES = frozenset({Loss.NAMES, Loss.EVERYTHING})
_PER_FILE = (Loss.NOTHING, Loss.EVERYTHING, Loss.SUBSET)


@dataclass(frozen=True, slots=True)
class DurableCopy:
    """A disk at the moment from which no sync returns: ``inodes`` tells files from their names."""

    directory: Path
    inodes: Mapping[str, int]

    @classmethod
    def take(cls, disk: Path, directory: Path) -> DurableCopy:
        """Copy a disk that nobody writes to now into ``directory``, which must not exist."""
        inodes = _inodes(disk)
        if disk.exists():
            shutil.copytree(disk, directory)
        else:
            directory.mkdir()
        assert _inodes(directory).keys() == inodes.keys(), "somebody wrote while it was copied"
        return cls(directory, inodes)


def lose(disk: Path, durable: DurableCopy, loss: Loss, generator: random.Random) -> Counter[str]:
    """Leave on ``disk`` what survives; returns counters named as in ``sim/disk_faults.py``."""
    present = _inodes(disk)
    now = {inode: (disk / path).read_bytes() for path, inode in present.items()}
    before = {
        inode: (durable.directory / path).read_bytes() for path, inode in durable.inodes.items()
    }
    old_names = loss in _OLD_NAMES
    names = durable.inodes if old_names else present
    effects: Counter[str] = Counter()
    if old_names:
        effects["names_lost"] = sum(durable.inodes.get(path) != present[path] for path in present)
    surviving: dict[str, bytes] = {}
    for path, inode in names.items():
        base = before.get(inode, b"")
        content = now.get(inode, base)
        kept = surviving[path] = _survivor(base, content, loss, generator)
        effects["bytes_lost"] += _difference(kept, content)
        effects["sizes_lost"] += loss is Loss.SIZES and len(kept) != len(content)
        effects["writes_torn"] += loss is Loss.TORN and kept != content
    left = frozenset(names.values())
    effects["bytes_lost"] += sum(len(now[each]) for each in present.values() if each not in left)
    _replace(disk, durable.directory if old_names else disk, surviving)
    return +effects


def _inodes(disk: Path) -> dict[str, int]:
    return {
        str(path.relative_to(disk)): path.stat().st_ino
        for path in sorted(disk.rglob("*"))
        if path.is_file()
    }


def _difference(one: bytes, other: bytes) -> int:
    """How many bytes of ``other`` are not what they were."""
    changed = sum(a != b for a, b in zip(one, other, strict=False)) if one != other else 0
    return changed + max(0, len(other) - len(one))


def _survivor(base: bytes, now: bytes, loss: Loss, generator: random.Random) -> bytes:
    """What is left of one file that was ``base`` when it was durable and is ``now`` since."""
    if loss is Loss.RANDOM:
        loss = generator.choice(_PER_FILE)
    match loss:
        case Loss.NOTHING | Loss.NAMES:
            return now
        case Loss.EVERYTHING:
            return base
        case Loss.SIZES:
            return now[: len(base)].ljust(len(base), b"\0")
    changed = [
        start
        for start in range(0, max(len(base), len(now)), SECTOR_BYTES)
        if base[start : start + SECTOR_BYTES] != now[start : start + SECTOR_BYTES]
    ]
    if loss is Loss.TORN:
        changed = _last_run(changed)
    else:
        assert loss in (Loss.SUBSET, Loss.PREFIX), f"{loss} is no loss of sectors"
    kept = bytearray(now)
    for start in changed:
        if generator.random() < 0.5:
            end = min(start + SECTOR_BYTES, len(now))
            kept[start:end] = base[start:end].ljust(max(0, end - start), b"\0")
    return bytes(kept)


def _last_run(starts: list[int]) -> list[int]:
    """The last of the sectors that follow each other without a gap: those of the last write."""
    for number in range(len(starts) - 1, 0, -1):
        if starts[number] - starts[number - 1] != SECTOR_BYTES:
            return starts[number:]
    return starts


def _replace(disk: Path, directories: Path, files: Mapping[str, bytes]) -> None:
    """Put files in place of all there are, below the directories of one of the trees."""
    kept = [path.relative_to(directories) for path in directories.rglob("*") if path.is_dir()]
    fresh = disk.with_name(f"{disk.name}.after-power-loss")
    fresh.mkdir()
    for path in kept:
        (fresh / path).mkdir(parents=True, exist_ok=True)
    for name, content in files.items():
        (fresh / name).write_bytes(content)
    shutil.rmtree(disk, ignore_errors=True)
    os.rename(fresh, disk)
