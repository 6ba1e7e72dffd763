"""What can go wrong with a simulated disk, what it costs, and what the faults did."""

from __future__ import annotations

import enum
from dataclasses import dataclass, field

from harness.fault_ports import DiskFault as DiskFault
from sim.latency import Latency, LogNormal
from storage.errors import DiskError, DiskFull


class DiskOperation(enum.Enum):
    """The calls of ``storage.ports.Disk`` and ``File`` that a fault can wait for."""

    OPEN = "open"
    PREAD = "pread"
    PWRITE = "pwrite"
    SIZE = "size"
    TRUNCATE = "truncate"
    FSYNC = "fsync"
    FDATASYNC = "fdatasync"
    RENAME = "rename"
    UNLINK = "unlink"
    MKDIR = "mkdir"
    RMTREE = "rmtree"
    LISTDIR = "listdir"
    EXISTS = "exists"
    SYNC_DIR = "sync_dir"


@dataclass(slots=True)
class ArmedFault:
    """A fault in waiting: strikes ``times`` calls that match, then is gone."""

    fault: DiskFault
    operations: frozenset[DiskOperation]
    path_prefix: str
    times: int


WRITES = frozenset({DiskOperation.PWRITE})
READS = frozenset({DiskOperation.PREAD})
SYNCS = frozenset({DiskOperation.FSYNC, DiskOperation.FDATASYNC, DiskOperation.SYNC_DIR})
STRIKES = {
    DiskFault.EIO: frozenset(DiskOperation),
    DiskFault.ENOSPC: frozenset(
        {DiskOperation.OPEN, DiskOperation.PWRITE, DiskOperation.TRUNCATE, DiskOperation.MKDIR}
    ),
    DiskFault.DROPPED_SYNC: SYNCS,
    DiskFault.MISDIRECTED_WRITE: WRITES,
    DiskFault.SHORT_READ: READS,
}
"""The operations that each fault can strike."""


@dataclass(frozen=True, slots=True)
class DiskOptions:
    """Costs and size of a disk.

    ``sync`` and ``bytes_per_s`` price what reaches the device; calls served by the page cache take
    ``cached_s`` (0: no virtual time) and let other tasks run with ``yield_probability``, because
    on a real disk every call is a place where tasks interleave.
    """

    sync: Latency = field(default=LogNormal(0.0004, 0.6, 0.05))
    bytes_per_s: float = 500e6
    cached_s: float = 0.0
    yield_probability: float = 0.02
    queue_servers: int = 1
    capacity_bytes: int | None = None

    def __post_init__(self) -> None:
        if self.bytes_per_s <= 0 or self.cached_s < 0:
            raise ValueError(f"{self}: a rate must be positive and a latency not negative")
        if not 0.0 <= self.yield_probability <= 1.0:
            raise ValueError(f"yield_probability {self.yield_probability} is outside 0 … 1")


def io_error(what: str, path: str) -> DiskError:
    """The error of a call that the device failed; part of it may have happened."""
    return DiskError(f"{what} of {path!r} failed: input/output error", may_have_happened=True)


def no_space(what: str, path: str) -> DiskFull:
    """The error of a call that found no space; a write may have left a prefix."""
    return DiskFull(f"{what} of {path!r} failed: no space left on the disk", may_have_happened=True)


def no_effects() -> dict[str, int]:
    """A disk's effect counters, all at zero."""
    return {
        "bits_flipped": 0,
        "bytes_lost": 0,
        "calls_failed": 0,
        "calls_slowed": 0,
        "calls_stalled": 0,
        "host_crashes": 0,
        "names_lost": 0,
        "reads_shortened": 0,
        "sizes_lost": 0,
        "syncs_dropped": 0,
        "writes_misdirected": 0,
        "writes_refused": 0,
        "writes_torn": 0,
    }
