"""What a walreceiver tells its safekeeper: a standby status and the pageserver's positions.

The status fields mean: write = received, flush = durable here, apply = durable in the object
store. The same positions follow as JSON in a message of type ``z``, which stock servers never see.
"""

from __future__ import annotations

import json
from dataclasses import dataclass

from storage.errors import ProtocolError
from storage.lsn import Lsn
from storage.wire.replication import StandbyStatus, standby_status

FEEDBACK_TYPE = b"z"


@dataclass(frozen=True, slots=True)
class PageserverFeedback:
    """A pageserver's positions in a timeline; WAL before ``remote_consistent_lsn`` may go."""

    last_received_lsn: Lsn
    disk_consistent_lsn: Lsn
    remote_consistent_lsn: Lsn

    def encode(self) -> bytes:
        """The message."""
        body = {
            "last_received_lsn": str(self.last_received_lsn),
            "disk_consistent_lsn": str(self.disk_consistent_lsn),
            "remote_consistent_lsn": str(self.remote_consistent_lsn),
        }
        return FEEDBACK_TYPE + json.dumps(body, separators=(",", ":")).encode()

    @classmethod
    def decode(cls, message: bytes) -> PageserverFeedback:
        """Inverse of :meth:`encode`; ``ProtocolError`` for anything else."""
        try:
            if message[:1] != FEEDBACK_TYPE:
                raise ValueError(f"type {message[:1]!r}")
            body = json.loads(message[1:])
            return cls(
                Lsn.parse(body["last_received_lsn"]),
                Lsn.parse(body["disk_consistent_lsn"]),
                Lsn.parse(body["remote_consistent_lsn"]),
            )
        except (ValueError, KeyError, TypeError) as error:
            raise ProtocolError(f"not a pageserver's feedback: {message[:80]!r}") from error

    def status(self, sent_at_us: int) -> bytes:
        """The standby status message with the same positions; time as in the protocol."""
        return standby_status(
            StandbyStatus(
                self.last_received_lsn,
                self.disk_consistent_lsn,
                self.remote_consistent_lsn,
                sent_at_us,
            )
        )
