"""What the real world can do beyond the least; the rest it declares, and scenarios skip it."""

from __future__ import annotations

from harness.backend import Ability

_ALWAYS = frozenset(
    {
        Ability.BROKER_LEASES,
        Ability.BROKER_STREAMS,
        Ability.CLOCK_FAULTS,
        Ability.DISK_COPIES,
        Ability.DISK_FAULTS,
        Ability.FRAGMENTATION,
        Ability.LOSE_UNSYNCED_DATA,
        Ability.SERVICE_LINKS,
    }
)
_WITH_S3_PROXY = frozenset({Ability.OBJECT_STORE_FAULTS, Ability.CREDENTIALS})


def abilities(*, has_postgres: bool, has_s3_proxy: bool) -> frozenset[Ability]:
    """Of a run: PostgreSQL must be installed, and an S3 behind TLS cannot have a proxy."""
    postgres = {Ability.POSTGRES} if has_postgres else frozenset()
    return _ALWAYS | postgres | (_WITH_S3_PROXY if has_s3_proxy else frozenset())
