"""How far garbage collection may go: the lowest of everything that asks for history. Pure.

Each reason names an LSN up to which it needs nothing; ``None`` means that it is not known, and then
nothing may go (BUGBANK ``gc-horizon-pitr-not-min``, ``standby-horizon-forgotten``).
"""

from __future__ import annotations

import enum
from collections.abc import Mapping
from dataclasses import dataclass

from storage.lsn import INVALID_LSN, Lsn


class Reason(enum.StrEnum):
    """What holds garbage collection back. The names are part of the HTTP API."""

    HORIZON = "horizon"
    PITR = "pitr"
    LEASE = "lease"
    STANDBY = "standby"
    REMOTE = "remote_consistent_lsn"


@dataclass(frozen=True, slots=True)
class RetentionOptions:
    """How much history is kept at least: WAL bytes below the head, and seconds of wall time."""

    horizon_bytes: int
    pitr_interval_s: float


@dataclass(frozen=True, slots=True)
class Plan:
    """A cutoff, and which reason keeps it from going further."""

    cutoff: Lsn
    held_by: Reason


def horizon_of(last_record_lsn: Lsn, options: RetentionOptions) -> Lsn:
    """The LSN that lies the horizon's bytes below the head."""
    return Lsn(max(0, last_record_lsn - options.horizon_bytes))


def plan_of(limits: Mapping[Reason, Lsn | None]) -> Plan:
    """The lowest limit; an unknown one keeps everything."""
    known = [(INVALID_LSN if lsn is None else lsn, reason) for reason, lsn in limits.items()]
    lowest, reason = min(known)
    return Plan(lowest, reason)
