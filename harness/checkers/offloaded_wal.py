"""WAL in S3 is whole, has the bytes that safekeepers have, and is all there that they claim.

Layout: ARCHITECTURE.md, "Broker keys and S3 layout". Only whole segments may be there, without a
gap from the timeline's start up to what the manifest says, and no member may know more than it.
While a run goes on, ``offload_watch.py`` looks at the manifest alone.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from harness.checkers.safekeepers_agree import TimelineState
from harness.errors import CheckFailed
from storage.errors import ObjectMissing
from storage.ids import TenantTimelineId
from storage.lsn import Lsn
from storage.ports import ObjectStore

CHECKER = "offloaded_wal"


class OffloadState(TimelineState, Protocol):
    """What a safekeeper says of a timeline, as far as it matters here."""

    @property
    def backup_lsn(self) -> Lsn:
        """What it believes to be in S3."""
        ...


class Safekeeper(Protocol):
    """A safekeeper's API, like :class:`harness.nodes.SafekeeperHandle`."""

    @property
    def name(self) -> str:
        """The node's name."""
        ...

    async def timeline(self, timeline: TenantTimelineId) -> OffloadState:
        """LSNs of a timeline."""
        ...

    async def digest(self, timeline: TenantTimelineId, start: Lsn, end: Lsn) -> str:
        """SHA-256 of WAL bytes."""
        ...


@dataclass(frozen=True)
class OffloadedWal:
    """A timeline's WAL in S3: segments by number, each whole, and what the manifest says."""

    start_lsn: Lsn
    backup_lsn: Lsn
    segment_size: int
    segments: Mapping[int, bytes]

    def read(self, begin_lsn: Lsn, end_lsn: Lsn) -> bytes:
        """Bytes of a range. ``CheckFailed`` names a segment that is missing."""
        parts, position = [], int(begin_lsn)
        while position < end_lsn:
            segment, offset = divmod(position, self.segment_size)
            if segment not in self.segments:
                raise _failure(f"WAL at {Lsn(position)} is offloaded, but its segment is not in S3")
            part = self.segments[segment][offset : offset + end_lsn - position]
            parts.append(part)
            position += len(part)
        return b"".join(parts)


async def read_offloaded(objects: ObjectStore, timeline: TenantTimelineId) -> OffloadedWal | None:
    """Everything of a timeline; ``None`` if nothing was offloaded. ``CheckFailed``: broken."""
    prefix = f"safekeeper/{timeline.tenant_id}/{timeline.timeline_id}/"
    try:
        manifest = json.loads(await objects.get(f"{prefix}manifest.json"))
    except ObjectMissing:
        return None
    size = int(manifest["wal_segment_size"])
    segments: dict[int, bytes] = {}
    for info in await objects.list(prefix):
        name = info.key.removeprefix(prefix)
        if name == "manifest.json":
            continue
        data = await objects.get(info.key)
        if len(name) != len("000000010000000000000001") or len(data) != size:
            raise _failure(f"{info.key} of {len(data)} bytes is no whole segment of {size}")
        segments[int(name[8:16], 16) * (0x1_0000_0000 // size) + int(name[16:], 16)] = data
    return OffloadedWal(
        Lsn.parse(manifest["start_lsn"]), Lsn.parse(manifest["backup_lsn"]), size, segments
    )


async def check_offloaded_wal(
    objects: ObjectStore, safekeepers: Sequence[Safekeeper], timeline: TenantTimelineId
) -> int:
    """Compare S3 with every member; returns how many claims and kilobytes were compared.

    Call while nobody writes. ``CheckFailed`` names the member that differs.
    """
    states = [(each, await each.timeline(timeline)) for each in safekeepers]
    found = await read_offloaded(objects, timeline)
    if found is None:
        for each, state in states:
            if state.backup_lsn > state.timeline_start_lsn:
                raise _failure(f"{each.name} believes in {state.backup_lsn}, S3 has nothing")
        return len(states)
    for each, state in states:
        if state.backup_lsn > found.backup_lsn:
            raise _failure(
                f"{each.name} believes in backup_lsn {state.backup_lsn} of {timeline}, the "
                f"manifest says {found.backup_lsn}"
            )
        end_lsn = min(found.backup_lsn, state.commit_lsn)
        if end_lsn <= found.start_lsn:
            continue
        in_s3 = hashlib.sha256(found.read(found.start_lsn, end_lsn)).hexdigest()
        if await each.digest(timeline, found.start_lsn, end_lsn) != in_s3:
            raise _failure(
                f"WAL {found.start_lsn}..{end_lsn} of {timeline} differs in S3 and on {each.name}"
            )
    return len(states) + (found.backup_lsn - found.start_lsn) // 1024


def _failure(what: str) -> CheckFailed:
    return CheckFailed(what, checker=CHECKER)
