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
    names are refused by the node that reads them."""

    safekeepers: int = 3
    pageservers: int = 1
    discovery: Discovery = "broker"
    pg_version: int = 15
    wal_segment_size: int = MIB
    safekeeper_options: Mapping[str, Any] = field(default_factory=dict)
    pageserver_options: Mapping[str, Any] = field(default_factory=dict)
    compute_options: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.safekeepers not in (1, 3, 5):
            raise ValueError(f"{self.safekeepers} safekeepers: a quorum needs 1, 3 or 5")
        if self.pageservers < 1:
            raise ValueError(f"{self.pageservers} pageservers: at least 1 is needed")


THREE_SAFEKEEPERS = Topology()
TWO_PAGESERVERS = Topology(pageservers=2)
