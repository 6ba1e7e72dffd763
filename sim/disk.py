"""A simulated disk: one per host, outliving every process on it.

:class:`SimDisk` is the device with its page cache, queue and faults; :class:`DiskView` is what one
incarnation of a node holds (``storage.ports.Disk``). A process crash loses nothing; ``crash_host``
loses what was not synced (``sim/inode.py`` and ``sim/names.py`` hold the rules of loss).
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Mapping
from dataclasses import dataclass

from harness.fault_ports import Note
from sim.disk_faults import (
    STRIKES,
    SYNCS,
    WRITES,
    ArmedFault,
    DiskFault,
    DiskOperation,
    DiskOptions,
    io_error,
    no_effects,
    no_space,
)
from sim.disk_view import DiskView
from sim.inode import Inode, Loss
from sim.loop import SimLoop
from sim.names import Names
from sim.station import IMMORTAL, Holder, Station, after, never, settle


@dataclass(frozen=True)
class DiskImage:
    """A disk's whole content at one moment: file contents by path, and every directory's path."""

    files: Mapping[str, bytes]
    directories: tuple[str, ...]


class SimDisk:
    """The disk of one host. Fault verbs act on it; nodes see it through :meth:`view`."""

    def __init__(
        self,
        loop: SimLoop,
        generator: random.Random,
        options: DiskOptions = DiskOptions(),  # noqa: B008 (frozen)
        note: Note = lambda **_: None,
    ) -> None:
        self.loop = loop
        self._note = note
        self.generator = generator
        self.options = options
        self.names = Names()
        self.effects = no_effects()
        self.hindered = options.cached_s > 0
        """Whether a call must take the slow path: something is armed, stalled or has a cost."""
        self._capacity_bytes = options.capacity_bytes
        self._used_bytes = 0
        self._sync_latency = options.sync.sampler(generator)
        self._station = Station(loop.environment, options.queue_servers)
        self._orphans: list[Inode] = []
        self._armed: list[ArmedFault] = []
        self._stall: asyncio.Future[None] | None = None
        self._stalled: frozenset[DiskOperation] = frozenset()
        self._slow_s = 0.0

    def view(self, holder: Holder = IMMORTAL) -> DiskView:
        """The disk as one incarnation sees it, for as long as that lives.

        A disk serves one incarnation at a time: what an earlier one had open is closed.
        """
        if holder is not IMMORTAL:
            for inode in list(self._orphans):
                inode.handles = 0
                self.release(inode)
        return DiskView(self, holder)

    # Faults

    def crash_host(self, loss: Loss = Loss.RANDOM) -> None:
        """The host lost power: what was not synced survives only as ``loss`` decides."""
        self._note(verb="power_loss", loss=loss.name)
        self.effects["host_crashes"] += 1
        self.effects["names_lost"] += self.names.crash(loss, self.generator)
        for _, inode in self.names.files():
            lost = inode.crash(loss, self.generator)
            self.effects["bytes_lost"] += lost
            if lost and loss in _LOSS_COUNTERS:
                self.effects[_LOSS_COUNTERS[loss]] += 1
            inode.handles = 0
        self._recount()

    def arm(
        self,
        fault: DiskFault,
        *operations: DiskOperation,
        path_prefix: str = "",
        times: int = 1,
    ) -> None:
        """Let the next ``times`` matching calls suffer a fault; all it can strike by default."""
        strikes = frozenset(operations) or STRIKES[fault]
        if not strikes <= STRIKES[fault]:
            raise ValueError(f"{fault.name} cannot strike {[one.value for one in operations]}")
        if times < 1:
            raise ValueError(f"times is {times}; arm a fault for one call or more")
        self._armed.append(ArmedFault(fault, strikes, path_prefix, times))
        self.hindered = True
        self._note(verb="arm", what=fault.name, times=times)

    def disarm(self) -> None:
        """Forget every armed fault that has not struck."""
        self._armed.clear()
        self._weigh()
        self._note(verb="end", fault="arm")

    def stall(self, *, syncs_only: bool = False) -> None:
        """Let no call return until :meth:`resume`, the device hangs; the page cache may not."""
        assert self._stall is None, "the disk is stalled already"
        self._stalled = SYNCS if syncs_only else frozenset(DiskOperation)
        self._stall = self.loop.create_future()
        self.hindered = True
        self._note(verb="stall", what="syncs" if syncs_only else "every call")

    def resume(self) -> None:
        """End a stall; the calls that hung go on."""
        assert self._stall is not None, "the disk is not stalled"
        settle(self._stall, None)
        self._stall = None
        self._weigh()
        self._note(verb="end", fault="stall")

    def slow(self, by_s: float) -> None:
        """Let every call take longer, however many there are at once; 0 ends it."""
        assert by_s >= 0, f"a disk cannot be slowed by {by_s} s"
        self._slow_s = by_s
        self._weigh()
        if by_s:
            self._note(verb="slow", by_s=str(by_s))
        else:
            self._note(verb="end", fault="slow")

    def limit(self, capacity_bytes: int | None) -> None:
        """Change the capacity; below what is used, only growth fails. ``None``: no limit."""
        assert capacity_bytes is None or capacity_bytes >= 0, f"capacity {capacity_bytes}"
        self._capacity_bytes = capacity_bytes

    def rot(self, path: str, offset: int | None = None) -> int:
        """Flip one bit of a file, at ``offset`` or anywhere; returns the byte's offset."""
        inode = self.names.file(path)
        if inode is None or not inode.cache:
            raise ValueError(f"{path!r} is no file with content; there is no bit to flip")
        offset = self.generator.randrange(len(inode.cache)) if offset is None else offset
        inode.rot(offset, self.generator.randrange(8))
        self.effects["bits_flipped"] += 1
        self._note(verb="rot", path=path)
        return offset

    def fill(self, free_bytes: int | None) -> None:
        """Leave so many bytes free, whatever the capacity was; ``None`` gives that back."""
        filled = None if free_bytes is None else self._used_bytes + free_bytes
        self.limit(self.options.capacity_bytes if filled is None else filled)
        if free_bytes is None:
            self._note(verb="end", fault="fill")
        else:
            self._note(verb="fill", free_bytes=free_bytes)

    def rot_some(self, part: str) -> str | None:
        """Flip one bit of some file whose path contains ``part``; its path, ``None`` if none."""
        found = [path for path, inode in self.names.files() if part in path and inode.cache]
        if not found:
            return None
        path = self.generator.choice(found)
        self.rot(path)
        return path

    # Looking at the content, and replacing it

    def contents(self, part: str) -> dict[str, bytes]:
        """What the files hold now whose path contains ``part``, by path."""
        found = self.names.files()
        return {path: bytes(inode.cache) for path, inode in found if part in path}

    def wipe(self) -> None:
        """Erase everything, as a new disk in the same host."""
        self._become(DiskImage({}, ()))

    def snapshot(self) -> DiskImage:
        """A copy of everything the host can see now."""
        files = {path: bytes(inode.cache) for path, inode in self.names.files()}
        return DiskImage(files, tuple(self.names.directories()))

    def restore(self, image: DiskImage) -> None:
        """Swap in a copy taken earlier; all of it is durable."""
        self._become(image)
        self._note(verb="restore_copy")

    def _become(self, image: DiskImage) -> None:
        self.names = Names()
        for path in image.directories:
            self.names.make_directory(path)
        for path, content in image.files.items():
            self.names.create(path).write(0, content)
        self.names.crash(Loss.NOTHING, self.generator)
        for _, inode in self.names.files():
            inode.persist(inode.mark, sizes=True)
        self._recount()

    # For views

    async def enter(self, holder: Holder, operation: DiskOperation, path: str) -> DiskFault | None:
        """The slow way into a call: waits as it must and returns the fault that struck, if any."""
        if not holder.alive:
            await never(self.loop)
        if self.options.cached_s:
            await self.work(holder, self.options.cached_s)
        if self._slow_s:
            await self._dawdle(holder)
        while self._stall is not None and operation in self._stalled:
            self.effects["calls_stalled"] += 1
            await asyncio.shield(self._stall)
            if not holder.alive:
                await never(self.loop)
        fault = self._strike(operation, path)
        if fault is DiskFault.EIO and operation not in _FAIL_LATE:
            raise io_error(operation.value, path)
        if fault is DiskFault.ENOSPC and operation is not DiskOperation.PWRITE:
            raise no_space(operation.value, path)
        return fault

    async def _dawdle(self, holder: Holder) -> None:
        """Take the time of a slow call, which keeps no other call waiting."""
        self.effects["calls_slowed"] += 1
        done: asyncio.Future[None] = self.loop.create_future()
        after(self.loop.environment, self._slow_s, lambda: settle(done, None))
        await done
        if not holder.alive:
            await never(self.loop)

    async def work(self, holder: Holder, seconds: float) -> None:
        """Queue for the device and occupy it; a dead incarnation never comes back from it."""
        done: asyncio.Future[None] = self.loop.create_future()
        self._station.serve(seconds, lambda: settle(done, None))
        await done
        if not holder.alive:
            await never(self.loop)

    def sync_seconds(self, dirty_bytes: int) -> float:
        """What a sync of so many bytes costs this time."""
        return self._sync_latency() + dirty_bytes / self.options.bytes_per_s

    def grow(self, wanted_bytes: int) -> int:
        """Reserve space for a growing file; returns how much of it the disk can give."""
        if self._capacity_bytes is not None:
            free = max(0, self._capacity_bytes - self._used_bytes)
            if wanted_bytes > free:
                self.effects["writes_refused"] += 1
                wanted_bytes = free
        self._used_bytes += wanted_bytes
        return wanted_bytes

    def shrink(self, freed_bytes: int) -> None:
        """Give space back."""
        self._used_bytes -= freed_bytes
        assert self._used_bytes >= 0, f"{self._used_bytes} bytes used"

    def release(self, inode: Inode) -> None:
        """Free a file's space once it has neither a name nor an open handle."""
        if inode.linked or inode.freed:
            return
        if inode.handles:
            self._orphans.append(inode)
            return
        inode.freed = True
        self._orphans = [each for each in self._orphans if each is not inode]
        self.shrink(len(inode.cache))

    def _strike(self, operation: DiskOperation, path: str) -> DiskFault | None:
        for number, armed in enumerate(self._armed):
            if operation in armed.operations and path.startswith(armed.path_prefix):
                armed.times -= 1
                if not armed.times:
                    del self._armed[number]
                    self._weigh()
                self.effects[_COUNTERS[armed.fault]] += 1
                return armed.fault
        return None

    def _weigh(self) -> None:
        held = self._armed or self._stall is not None or self._slow_s
        self.hindered = bool(held or self.options.cached_s > 0)

    def _recount(self) -> None:
        for inode in self._orphans:
            inode.freed = True
        self._orphans.clear()
        self._used_bytes = sum(len(inode.cache) for _, inode in self.names.files())


_LOSS_COUNTERS = {Loss.SIZES: "sizes_lost", Loss.TORN: "writes_torn"}

_FAIL_LATE = SYNCS | WRITES
"""Operations whose view decides what an error leaves behind."""

_COUNTERS = {
    DiskFault.EIO: "calls_failed",
    DiskFault.ENOSPC: "calls_failed",
    DiskFault.DROPPED_SYNC: "syncs_dropped",
    DiskFault.MISDIRECTED_WRITE: "writes_misdirected",
    DiskFault.SHORT_READ: "reads_shortened",
}
