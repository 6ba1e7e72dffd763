"""What a proposer is told, and what it answers once elected."""

from __future__ import annotations

from dataclasses import dataclass

from storage.errors import SeawallError
from storage.ids import TenantId, TimelineId
from storage.lsn import Lsn
from storage.walproposer.campaign import CampaignOptions

PROPOSER = "walproposer"
"""Name by which a proposer introduces itself to safekeepers."""


class Deposed(SeawallError):
    """A proposer with a higher term took over; nothing more will ever be committed here."""


class ProposerClosed(SeawallError):
    """The proposer was closed while somebody waited for it."""


@dataclass(frozen=True)
class ProposerOptions:
    """Times in seconds, sizes in bytes.

    ``safekeepers`` are ``host:port``; ``pageserver`` is whom safekeepers should call
    (callmemaybe). ``standstill_max_s``: how long an election may go without a vote or a flush
    before it is given up for a higher term. ``commit_announce_delay_s``: how long a new commit
    LSN waits for WAL to travel with before it travels alone.
    """

    tenant_id: TenantId
    timeline_id: TimelineId
    safekeepers: tuple[str, ...]
    proposer_id: int
    system_id: int
    pg_version: int
    wal_segment_size: int
    pageserver: str | None = None
    heartbeat_s: float = 1.0
    peer_silence_max_s: float = 5.0
    reconnect_min_s: float = 0.05
    reconnect_max_s: float = 2.0
    standstill_max_s: float = 10.0
    commit_announce_delay_s: float = 0.002
    append_bytes_max: int = 128 * 1024
    appends_in_flight_max: int = 4
    wal_retained_bytes_max: int = 16 * 1024 * 1024

    def campaign(self, term_floor: int) -> CampaignOptions:
        """Options of one campaign, above ``term_floor``."""
        return CampaignOptions(
            members=self.safekeepers,
            tenant_id=self.tenant_id,
            timeline_id=self.timeline_id,
            proposer_id=self.proposer_id,
            system_id=self.system_id,
            pg_version=self.pg_version,
            wal_segment_size=self.wal_segment_size,
            term_floor=term_floor,
            append_bytes_max=self.append_bytes_max,
            appends_in_flight_max=self.appends_in_flight_max,
            wal_retained_bytes_max=self.wal_retained_bytes_max,
        )


@dataclass(frozen=True, slots=True)
class Elected:
    """A won election: ``start_lsn`` ends the recovered log, new WAL begins there."""

    term: int
    start_lsn: Lsn
