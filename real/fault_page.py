"""Faults of one real node's disk and clock: a page of memory that the node and its owner share.

The owner (:class:`NodeFaults`) writes what is to go wrong, the node (:mod:`real.faulty_disk`)
counts down and counts what struck; neither waits for the other, and the page outlives crashes.
The file is ``<node>/faults``: 64-bit numbers, one per :class:`Slot`.
"""

from __future__ import annotations

import enum
import mmap
import random
import shutil
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path

from harness.errors import HarnessError, UnsupportedFault
from harness.fault_ports import DiskFault, Loss, Note
from real import power_loss

PAGE_BYTES = 4096
NANO_PER_MICRO = 1000
MICRO_PER_S = 1_000_000


class Slot(enum.IntEnum):
    """Where each number lies. ``ARMED`` … are one per :class:`DiskFault`, in its order."""

    HINDERED = 0
    STALLED = 1
    FULL = 2
    FREE_BYTES = 3
    SLOW_US = 4
    ARMED = 8
    OFFSET_US = 16
    DRIFT_PPB = 17
    DRIFT_SINCE_NS = 18
    CALLS_FAILED = 32
    CALLS_STALLED = 33
    READS_SHORTENED = 34
    SYNCS_DROPPED = 35
    WRITES_MISDIRECTED = 36
    WRITES_REFUSED = 37
    TIMES_TOLD_WRONG = 38
    CALLS_SLOWED = 39


HINDRANCES = (Slot.STALLED, Slot.FULL, Slot.SLOW_US)
FAULT_ORDER = tuple(DiskFault)
COUNTERS = {slot.name.lower(): slot for slot in Slot if slot >= Slot.CALLS_FAILED}


class FaultPage:
    """The page, mapped; ``page[slot]`` reads and writes one number."""

    def __init__(self, path: Path) -> None:
        with path.open("ab") as file:
            if file.tell() < PAGE_BYTES:
                file.truncate(PAGE_BYTES)
        with path.open("r+b") as file:
            self._map = mmap.mmap(file.fileno(), PAGE_BYTES)
        self._numbers = memoryview(self._map).cast("q")

    def __getitem__(self, slot: int) -> int:
        return self._numbers[slot]

    def __setitem__(self, slot: int, value: int) -> None:
        self._numbers[slot] = value

    def count(self, slot: Slot) -> None:
        """Note one more effect."""
        self._numbers[slot] += 1

    def take(self, fault: DiskFault) -> bool:
        """Whether an armed fault strikes this call; if so it is armed once less."""
        slot = Slot.ARMED + FAULT_ORDER.index(fault)
        if self._numbers[slot] <= 0:
            return False
        self._numbers[slot] -= 1
        return True

    def wall_error_us(self, now_ns: int) -> int:
        """How wrong the clock is at a monotonic time."""
        elapsed_us = (now_ns - self[Slot.DRIFT_SINCE_NS]) // NANO_PER_MICRO
        return self[Slot.OFFSET_US] + elapsed_us * self[Slot.DRIFT_PPB] // 10**9

    def close(self) -> None:
        """Unmap it."""
        self._numbers.release()
        self._map.close()


class NodeFaults:
    """``harness.fault_ports.NodeDisk`` and ``NodeClock`` of one real node.

    ``hold_still`` freezes the node's process while its disk is copied.
    """

    def __init__(
        self,
        directory: Path,
        generator: random.Random,
        note: Note = lambda **_: None,
        hold_still: Callable[[], AbstractContextManager[None]] = nullcontext,
    ) -> None:
        self._directory = directory
        self._page = FaultPage(directory / "faults")
        self._generator = generator
        self._note = note
        self._hold_still = hold_still
        self._durable: power_loss.DurableCopy | None = None
        self._own: Counter[str] = Counter()

    @property
    def effects(self) -> Mapping[str, int]:
        """Counters of what the faults did."""
        return {**{name: self._page[slot] for name, slot in COUNTERS.items()}, **self._own}

    @property
    def disk(self) -> Path:
        """The node's data."""
        return self._directory / "disk"

    def arm(self, fault: DiskFault, *, times: int = 1) -> None:
        """Let the next ``times`` calls that the fault can strike suffer it."""
        assert times > 0, f"a fault armed {times} times"
        self._page[Slot.ARMED + FAULT_ORDER.index(fault)] += times
        self._weigh()
        self._note(verb="arm", what=fault.name, times=times)

    def disarm(self) -> None:
        """Forget every armed fault that has not struck."""
        for number in range(len(FAULT_ORDER)):
            self._page[Slot.ARMED + number] = 0
        self._weigh()
        self._note(verb="end", fault="arm")

    def stall(self, *, syncs_only: bool = False) -> None:
        """Let no call return until :meth:`resume`, or no sync: writes then pile up in memory."""
        self._page[Slot.STALLED] = 2 if syncs_only else 1
        self._weigh()
        self._note(verb="stall", what="syncs" if syncs_only else "every call")
        if syncs_only:
            with self._hold_still():
                target = Path(tempfile.mkdtemp(prefix="durable-", dir=self._directory)) / "disk"
                self._durable = power_loss.DurableCopy.take(self.disk, target)

    def resume(self) -> None:
        """End a stall."""
        self._page[Slot.STALLED] = 0
        self._weigh()
        durable, self._durable = self._durable, None
        if durable is not None:
            shutil.rmtree(durable.directory.parent, ignore_errors=True)
        self._note(verb="end", fault="stall")

    def slow(self, by_s: float) -> None:
        """Let every call take longer; 0 ends it."""
        self._page[Slot.SLOW_US] = round(by_s * MICRO_PER_S)
        self._weigh()
        if by_s:
            self._note(verb="slow", by_s=str(by_s))
        else:
            self._note(verb="end", fault="slow")

    def lose_power(self, loss: Loss) -> None:
        """The machine of a killed process died: what was written since syncs hang is lost."""
        self._note(verb="power_loss", loss=loss.name)
        if self._durable is not None:
            self._own += power_loss.lose(self.disk, self._durable, loss, self._generator)

    def fill(self, free_bytes: int | None) -> None:
        """Leave so many bytes for writes; ``None`` frees the disk again."""
        self._page[Slot.FULL] = int(free_bytes is not None)
        self._page[Slot.FREE_BYTES] = free_bytes or 0
        self._weigh()
        if free_bytes is None:
            self._note(verb="end", fault="fill")
        else:
            self._note(verb="fill", free_bytes=free_bytes)

    def _weigh(self) -> None:
        armed = any(self._page[Slot.ARMED + number] for number in range(len(FAULT_ORDER)))
        hindered = armed or any(self._page[slot] for slot in HINDRANCES)
        self._page[Slot.HINDERED] = int(hindered)

    def rot_some(self, part: str) -> str | None:
        """Flip one bit of some file whose path contains ``part``; its path, ``None`` if none."""
        found = [
            path
            for path in sorted(self.disk.rglob("*"))
            if part in str(path) and path.is_file() and path.stat().st_size
        ]
        if not found:
            return None
        path = self._generator.choice(found)
        with path.open("r+b") as file:
            file.seek(self._generator.randrange(path.stat().st_size))
            byte = file.read(1)[0] ^ 1 << self._generator.randrange(8)
            file.seek(-1, 1)
            file.write(bytes([byte]))
        self._own["bits_flipped"] += 1
        self._note(verb="rot", path=str(path.relative_to(self.disk)))
        return str(path.relative_to(self.disk))

    def contents(self, part: str) -> Mapping[str, bytes]:
        """A running node writes on while its files are read."""
        raise UnsupportedFault("world 'real' cannot read a disk at one moment")

    def snapshot(self) -> Path:
        """A copy of everything on it, below the run's directory; the node should not run."""
        copy = Path(tempfile.mkdtemp(prefix="copy-", dir=self._directory))
        if self.disk.exists():
            shutil.copytree(self.disk, copy / "disk")
        return copy

    def restore(self, image: Path) -> None:
        """Swap in a copy taken earlier."""
        if not image.is_relative_to(self._directory):
            raise HarnessError(f"{image} is no copy of the disk below {self._directory}")
        shutil.rmtree(self.disk, ignore_errors=True)
        if (image / "disk").exists():
            shutil.copytree(image / "disk", self.disk)
        self._own["copies_restored"] += 1
        self._note(verb="restore_copy")

    def jump(self, by_us: int) -> None:
        """Set the clock forward or, with a negative number, back."""
        self._rebase()
        self._page[Slot.OFFSET_US] += by_us
        self._own["clock_jumps"] += 1
        self._note(verb="clock_jump", by_us=by_us)

    def drift(self, ppm: float) -> None:
        """Make the clock run fast (positive) or slow from now on; 0 makes it right."""
        self._rebase()
        self._page[Slot.DRIFT_PPB] = round(ppm * 1000)
        self._own["drift_changes"] += 1
        if ppm:
            self._note(verb="clock_drift", ppm=str(ppm))
        else:
            self._note(verb="end", fault="clock_drift")

    def _rebase(self) -> None:
        now_ns = time.monotonic_ns()
        self._page[Slot.OFFSET_US] = self._page.wall_error_us(now_ns)
        self._page[Slot.DRIFT_SINCE_NS] = now_ns
