"""What a timeline on a safekeeper is, and what of it survives a restart."""

from __future__ import annotations

from dataclasses import dataclass

from storage.consensus.term_history import TermHistory
from storage.ids import TenantId, TimelineId
from storage.lsn import Lsn


@dataclass(frozen=True, slots=True)
class TimelineIdentity:
    """What a timeline is created with and never changes; ``wal_segment_size`` in bytes."""

    tenant_id: TenantId
    timeline_id: TimelineId
    start_lsn: Lsn
    system_id: int
    pg_version: int
    wal_segment_size: int
    safekeepers: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class ControlState:
    """What survives a restart. ``local_start_lsn``: where this member's own WAL begins."""

    identity: TimelineIdentity
    term: int
    term_history: TermHistory
    commit_lsn: Lsn
    peer_horizon_lsn: Lsn
    backup_lsn: Lsn
    remote_consistent_lsn: Lsn
    local_start_lsn: Lsn

    @classmethod
    def created(cls, identity: TimelineIdentity) -> ControlState:
        """The state of a timeline that nobody has written to."""
        start = identity.start_lsn
        history = TermHistory.born_at(start)
        return cls(identity, 0, history, start, start, start, start, start)

    def removal_horizon_lsn(self) -> Lsn:
        """WAL before it is needed here no more: a pageserver has it in remote storage, every peer
        has flushed it, and it is in S3 (SYSTEM.md H1)."""
        return min(self.remote_consistent_lsn, self.peer_horizon_lsn, self.backup_lsn)

    def oldest_lsn(self) -> Lsn:
        """Where the WAL begins that must be on this member's disk."""
        horizon = self.removal_horizon_lsn()
        whole_segments_end = Lsn(horizon - horizon % self.identity.wal_segment_size)
        return max(self.local_start_lsn, whole_segments_end)
