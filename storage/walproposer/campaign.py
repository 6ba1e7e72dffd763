"""What a campaign is made of: its phases, what it knows of each acceptor, and its effects."""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum

from storage.consensus.messages import (
    AcceptorGreeting,
    AcceptorMessage,
    AppendResponse,
    ProposerMessage,
    VoteResponse,
)
from storage.ids import TenantId, TimelineId
from storage.lsn import INVALID_LSN, Lsn


class Phase(Enum):
    """Where the campaign stands; ``LOST`` and ``DEPOSED`` are final."""

    GATHERING = "gathering"
    VOTING = "voting"
    RECOVERING = "recovering"
    LEADING = "leading"
    LOST = "lost"
    DEPOSED = "deposed"


class PeerPhase(Enum):
    """Where the conversation with one acceptor stands."""

    OFFLINE = "offline"
    GREETING = "greeting"
    GREETED = "greeted"
    VOTING = "voting"
    VOTED = "voted"
    STREAMING = "streaming"


ANSWERS: Mapping[type[AcceptorMessage], PeerPhase] = {
    AcceptorGreeting: PeerPhase.GREETING,
    VoteResponse: PeerPhase.VOTING,
    AppendResponse: PeerPhase.STREAMING,
}
"""The only phase in which each message may arrive."""


@dataclass(frozen=True)
class CampaignOptions:
    """Who campaigns, for which timeline, among whom; sizes in bytes.

    ``wal_retained_bytes_max`` bounds the committed WAL kept in memory for acceptors that lag.
    ``term_floor`` is the highest term earlier campaigns have heard of.
    """

    members: tuple[str, ...]
    tenant_id: TenantId
    timeline_id: TimelineId
    proposer_id: int
    system_id: int
    pg_version: int
    wal_segment_size: int
    term_floor: int = 0
    append_bytes_max: int = 128 * 1024
    appends_in_flight_max: int = 4
    wal_retained_bytes_max: int = 16 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class Send:
    """Send ``message`` to ``peer``."""

    peer: str
    message: ProposerMessage


@dataclass(frozen=True, slots=True)
class Recover:
    """Fetch WAL ``[begin_lsn, end_lsn)`` from ``donor``, then call :meth:`Campaign.recovered`."""

    donor: str
    begin_lsn: Lsn
    end_lsn: Lsn


@dataclass(frozen=True, slots=True)
class Lost:
    """This campaign cannot win; start another, above ``term``, after a pause."""

    term: int
    reason: str


@dataclass(frozen=True, slots=True)
class Won:
    """The term is ours; new WAL begins at ``start_lsn``."""

    term: int
    start_lsn: Lsn


@dataclass(frozen=True, slots=True)
class Superseded:
    """After the victory somebody else got the higher ``term``: nothing commits here any more."""

    term: int


@dataclass(frozen=True, slots=True)
class Committed:
    """Everything before ``lsn`` is durable on a quorum, in our own term."""

    lsn: Lsn


@dataclass(frozen=True, slots=True)
class Established:
    """A quorum has our history and, in our own term, every byte before the epoch start."""


Effect = Send | Recover | Lost | Won | Superseded | Committed | Established


@dataclass(slots=True)
class Peer:
    """What is known of one acceptor. ``flush_lsn`` is durable there and part of our log."""

    name: str
    phase: PeerPhase = PeerPhase.OFFLINE
    term: int = 0
    vote: VoteResponse | None = None
    next_lsn: Lsn = INVALID_LSN
    flush_lsn: Lsn = INVALID_LSN
    announced_lsn: Lsn = INVALID_LSN
    in_flight: deque[Lsn] = field(default_factory=deque)
