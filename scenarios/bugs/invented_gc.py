"""Slips of our own making in garbage collection: each takes one of its rules away.

Hunted with the races of ``scenarios/test_gc_races.py`` they show which race rests on which rule.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Sequence

from harness.bug import Bug
from scenarios.bugs.slip import slip
from storage.errors import LsnOutOfScope
from storage.ids import TimelineId
from storage.lsn import Lsn
from storage.pageserver import basebackup, garbage, leasing
from storage.pageserver.branch_points import BranchPoints
from storage.pageserver.gc import Collector
from storage.pageserver.gc_cutoff import GcCutoff
from storage.pageserver.layer import Layer
from storage.pageserver.leases import Leases
from storage.pageserver.pieces import Floors, Pictures
from storage.pageserver.retention import Reason, RetentionOptions
from storage.pageserver.timeline import Timeline

_limits = Collector.limits
_newest = Pictures.newest


def _read_anything(self: GcCutoff, lsn: Lsn, cutoff: Lsn) -> None:
    return


def _wait_for_nobody(self: GcCutoff) -> asyncio.Future[None]:
    done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
    done.set_result(None)
    return done


def _stays_as_of_now(self: GcCutoff, lsn: Lsn) -> None:
    """What is planned does not count before it is applied."""
    if lsn < self.lsn:
        raise LsnOutOfScope(f"LSN {lsn} is before latest_gc_cutoff_lsn {self.lsn}")


def _no_branch_before_it_is_born(self: BranchPoints, timeline_id: TimelineId, lsn: Lsn) -> None:
    return


def _nobody_leases(self: Leases, now_s: float) -> Lsn | None:
    return None


def _all_leases_are_known(self: Leases, now_s: float) -> bool:
    return False


async def _ask_nobody(timeline: Timeline) -> None:
    return


def _memory_is_enough(self: Collector, options: RetentionOptions) -> dict[Reason, Lsn | None]:
    limits = _limits(self, options)
    del limits[Reason.REMOTE]
    return limits


async def _durable_some_time(self: Collector, cutoff: Lsn) -> None:
    """The index is scheduled, and nobody waits for it."""
    self._timeline.uploader.put_index(self._timeline.index())


async def _remove_beside_compaction(self: Collector) -> list[Layer]:
    timeline = self._timeline
    retained = list(timeline.branch_points.lsns().values())
    removed = garbage.garbage(list(timeline.layers), timeline.gc_cutoff.lsn, retained)
    await asyncio.sleep(0)
    if removed:
        timeline.replace_layers(remove=removed, add=[])
    for layer in removed:
        await timeline.files.remove(layer)
    return removed


def _image_of_the_future(self: Pictures, point: Lsn) -> Floors:
    return _newest(self, Lsn(point + 4096))


async def _base_of_anything(
    timeline: Timeline, lsn: Lsn | None, *, full: bool
) -> AsyncGenerator[bytes, None]:
    at = timeline.last_record_lsn if lsn is None else lsn
    yield basebackup.signal_tar(at, basebackup.prev_record_lsn(timeline, at))


BUGS: Sequence[Bug] = (
    slip("own-gc-reads-unchecked", "O6", "reads of what was collected",
          (GcCutoff, "check", _read_anything)),
    slip("own-gc-waits-for-nobody", "O6", "a read that takes long while garbage collection passes",
          (GcCutoff, "_old_readers_left", _wait_for_nobody)),
    slip("own-gc-plan-does-not-count", "O6 O13", "a branch or a lease while a pass is under way",
          (GcCutoff, "check_stays", _stays_as_of_now)),
    slip("own-gc-unborn-branch", "O6", "a branch is made while a pass is under way",
          (BranchPoints, "expect", _no_branch_before_it_is_born)),
    slip("own-gc-ignores-leases", "O6", "a pinned compute",
          (Leases, "oldest", _nobody_leases)),
    slip("own-gc-knows-all-leases", "O6", "a pinned compute, and its pageserver restarts",
          (Leases, "may_be_incomplete", _all_leases_are_known)),
    slip("own-gc-lease-unconfirmed", "O6", "a pinned compute starts while its tenant moves",
          (leasing, "_confirm", _ask_nobody)),
    slip("own-gc-trusts-memory", "O6 O10", "a pageserver dies after a pass",
          (Collector, "limits", _memory_is_enough)),
    slip("own-gc-cutoff-in-memory", "O7", "a pageserver dies in the middle of a pass",
          (Collector, "_make_durable", _durable_some_time)),
    slip("own-gc-beside-compaction", "O6 O12", "a compaction while a pass is under way",
          (Collector, "_remove", _remove_beside_compaction)),
    slip("own-gc-image-of-the-future", "O6", "reads in the past, after images were made",
          (Pictures, "newest", _image_of_the_future)),
    slip("own-gc-base-of-anything", "O13", "a base backup of what was collected",
          (basebackup, "base_backup", _base_of_anything)),
)  # fmt: skip
