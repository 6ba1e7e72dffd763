"""A safekeeper's options, as JSON brings them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any

from storage.errors import BadRequest

WIRE_PORT = 5454
HTTP_PORT = 7676


@dataclass(frozen=True)
class SafekeeperOptions:
    """Times in seconds, sizes in bytes.

    ``heartbeat_s``: how often senders show a sign of life; ``silence_max_s``: when a peer that
    shows none is hung up on; ``control_file_save_s``: how often LSNs that need no immediate
    durability are saved; ``recall_s``: how often a pageserver that does not come is called;
    ``wal_removal_s``: how often WAL that nobody needs is looked for; ``backup_lease_s``: how long
    an offloader of WAL may be silent before another is elected, 0: never offload;
    ``backup_timeout_s``: how long S3 may take to answer; ``catch_up_s``: how long a member without
    a proposer may lag behind its peers before it fetches WAL from them or from S3.
    """

    node_id: int
    heartbeat_s: float = 1.0
    silence_max_s: float = 10.0
    broker_publish_s: float = 1.0
    broker_retry_s: float = 1.0
    control_file_save_s: float = 5.0
    recall_s: float = 1.0
    recall_max_s: float = 4.0
    wal_removal_s: float = 5.0
    backup_lease_s: float = 5.0
    backup_timeout_s: float = 10.0
    backup_retry_s: float = 1.0
    catch_up_s: float = 2.0
    recent_wal_bytes: int = 1024 * 1024
    send_bytes_max: int = 128 * 1024

    @classmethod
    def parse(cls, options: Mapping[str, Any]) -> SafekeeperOptions:
        """Check a node's JSON options; ``BadRequest`` names what is unknown, missing or wrong."""
        known = {field.name: field for field in fields(cls)}
        for name, value in options.items():
            if name not in known:
                raise BadRequest(
                    f"unknown safekeeper option {name!r}; known: {', '.join(sorted(known))}"
                )
            if isinstance(value, bool) or not isinstance(value, int | float) or value < 0:
                raise BadRequest(f"safekeeper option {name} is {value!r}, not a number >= 0")
        if "node_id" not in options:
            raise BadRequest("safekeeper option node_id is missing")
        return cls(**options)
