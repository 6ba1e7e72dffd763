"""Options of a pageserver node, parsed strictly from plain JSON data."""

from __future__ import annotations

import enum
from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any, Self

from storage.errors import BadRequest
from storage.pageserver.retention import RetentionOptions

MEBIBYTE = 1024 * 1024


class Discovery(enum.StrEnum):
    """How a pageserver learns which safekeeper has WAL for it."""

    BROKER = "broker"
    CALLMEMAYBE = "callmemaybe"


@dataclass(frozen=True, slots=True)
class PageserverOptions:
    """Sizes in bytes, times in seconds. Defaults suit a small real cluster.

    ``checkpoint_distance`` and ``checkpoint_timeout_s``: size and age at which the open in-memory
    layer is written out. ``frozen_layers_max``: more than this many unwritten layers stop ingest.
    ``compaction_threshold``: level-0 layers that start a merge; ``image_creation_threshold``:
    merged layers over a key range that start a new image. ``remote_timeout_s`` bounds one request
    to the object store; the ``…_flush_timeout_s`` bound the last upload at detach and at stop.
    ``callmemaybe_memory_s``: how long a safekeeper's call counts as an offer of WAL.
    ``gc_period_s``: pause between passes of the garbage collection (0: only on request), which
    keeps ``gc_horizon`` bytes of WAL and ``pitr_interval_s`` of time. ``lease_length_s``: how long
    a lease holds, or the word of a standby's safekeeper, and how long after loading nothing is
    collected, so that they are renewed first.
    ``disk_budget``: layer files on disk beyond so many bytes go when the object store has them
    (0: no limit). ``scrub_period_s``: how often leftovers of earlier attachments are looked for.
    """

    node_id: int
    discovery: Discovery = Discovery.BROKER
    checkpoint_distance: int = 64 * MEBIBYTE
    checkpoint_timeout_s: float = 60.0
    frozen_layers_max: int = 3
    compaction_period_s: float = 20.0
    compaction_threshold: int = 8
    compaction_target_size: int = 64 * MEBIBYTE
    image_creation_threshold: int = 3
    page_cache_size: int = 64 * MEBIBYTE
    index_cache_size: int = 16 * MEBIBYTE
    wait_lsn_timeout_s: float = 60.0
    remote_timeout_s: float = 10.0
    retry_delay_s_max: float = 5.0
    attach_answer_timeout_s: float = 5.0
    detach_flush_timeout_s: float = 5.0
    stop_flush_timeout_s: float = 5.0
    checkpoint_wait_s: float = 60.0
    callmemaybe_memory_s: float = 10.0
    gc_period_s: float = 60.0
    gc_horizon: int = 64 * MEBIBYTE
    pitr_interval_s: float = 86_400.0
    lease_length_s: float = 60.0
    scrub_period_s: float = 20.0
    disk_budget: int = 0
    walreceiver_connect_timeout_s: float = 5.0
    walreceiver_silence_timeout_s: float = 10.0
    walreceiver_lag_max: int = 1 * MEBIBYTE
    walreceiver_lag_timeout_s: float = 3.0
    walreceiver_status_s: float = 1.0

    def __post_init__(self) -> None:
        for option in fields(self):
            value = getattr(self, option.name)
            if isinstance(value, (int, float)) and (value < 0 or isinstance(value, bool)):
                raise BadRequest(f"option {option.name}: {value!r} must not be negative")

    @property
    def retention(self) -> RetentionOptions:
        """How much history garbage collection keeps by itself."""
        return RetentionOptions(self.gc_horizon, self.pitr_interval_s)

    @classmethod
    def parse(cls, data: Mapping[str, Any]) -> Self:
        """Read JSON data; ``BadRequest`` names an unknown, missing or mistyped option."""
        known = {option.name: option for option in fields(cls)}
        unknown = sorted(set(data) - set(known))
        if unknown:
            raise BadRequest(
                f"unknown pageserver option {unknown[0]!r}; known are {', '.join(sorted(known))}"
            )
        if "node_id" not in data:
            raise BadRequest("pageserver option 'node_id' (an integer) is missing")
        return cls(**{name: _parse(name, str(known[name].type), data[name]) for name in data})


def _parse(name: str, kind: str, value: Any) -> Any:
    if kind == "Discovery":
        try:
            return Discovery(str(value))
        except ValueError:
            choices = ", ".join(Discovery)
            raise BadRequest(f"option {name}: {value!r} is none of {choices}") from None
    accepted = (int,) if kind == "int" else (int, float)
    if not isinstance(value, accepted) or isinstance(value, bool):
        raise BadRequest(f"option {name}: {value!r} is not of type {kind}")
    return value
