"""What a cluster is made of: how many of which node, and the options they start with."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

KIB = 1024
MIB = 1024 * KIB

Discovery = Literal["broker", "callmemaybe"]
"""How a pageserver finds WAL: it follows the broker, or a safekeeper calls it."""


@dataclass(frozen=True)
class Topology:
    """A cluster to start. Options are merged over the defaults of ``Cluster``; unknown option
    names are refused by the node that reads them.

    ``compute_options`` are of primaries and replicas, ``proposer_options`` of walgen primaries.
    ``wal_room`` bytes are left in the first segment where a walgen timeline begins, ``None``: all
    of it. With little room even a short run writes into several segments.
    """

    safekeepers: int = 3
    pageservers: int = 1
    discovery: Discovery = "broker"
    pg_version: int = 15
    wal_segment_size: int = MIB
    safekeeper_options: Mapping[str, Any] = field(default_factory=dict)
    pageserver_options: Mapping[str, Any] = field(default_factory=dict)
    compute_options: Mapping[str, Any] = field(default_factory=dict)
    proposer_options: Mapping[str, Any] = field(default_factory=dict)
    wal_room: int | None = None

    def __post_init__(self) -> None:
        if self.safekeepers not in (1, 3, 5):
            raise ValueError(f"{self.safekeepers} safekeepers: a quorum needs 1, 3 or 5")
        if self.pageservers < 1:
            raise ValueError(f"{self.pageservers} pageservers: at least 1 is needed")
        room = self.wal_segment_size if self.wal_room is None else self.wal_room
        if room % 8 or not 0 < room <= self.wal_segment_size:
            raise ValueError(
                f"wal_room {room}: a multiple of 8 up to {self.wal_segment_size} is needed"
            )


THREE_SAFEKEEPERS = Topology()
TWO_PAGESERVERS = Topology(pageservers=2)
