"""START_SNAPSHOT: a whole timeline leaves for a new member, or nothing of it counts.

Sent are a header (control file, range of WAL), the WAL, and a trailer. What is sent stays pinned
on the disk until the end; if the term or the log's last term changed meanwhile the log may have
been cut and rewritten under the reader, so the trailer is not sent and the copy fails.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from typing import Self

from storage.errors import NotReady, ProtocolError
from storage.failpoints import Failpoint, failpoint
from storage.lsn import Lsn
from storage.marks import Mark, reach
from storage.safekeeper.control import decode_control, encode_control
from storage.safekeeper.control_state import ControlState
from storage.safekeeper.timeline import Timeline
from storage.wire.copying import CopyOut

TRAILER = b"the log did not change while it was copied"
_SEND_BYTES = 256 * 1024


@dataclass(frozen=True, slots=True)
class Snapshot:
    """What the header says: WAL of ``[begin_lsn, end_lsn)`` follows, all that is on this disk."""

    control: ControlState
    begin_lsn: Lsn
    end_lsn: Lsn
    last_log_term: int

    @classmethod
    def of(cls, timeline: Timeline) -> Self:
        """The timeline as it is now."""
        acceptor = timeline.acceptor
        begin_lsn = snapshot_begin_lsn(timeline)
        control = replace(
            acceptor.control(),
            term_history=acceptor.durable_history(),
            local_start_lsn=max(acceptor.local_start_lsn, begin_lsn),
        )
        return cls(control, begin_lsn, acceptor.flush_lsn, acceptor.last_log_term)

    def encode(self) -> bytes:
        """The header's bytes."""
        fields = {
            "control": encode_control(self.control).hex(),
            "begin_lsn": str(self.begin_lsn),
            "end_lsn": str(self.end_lsn),
            "last_log_term": self.last_log_term,
        }
        return json.dumps(fields).encode()

    @classmethod
    def decode(cls, data: bytes, source: str) -> Self:
        """Inverse of :meth:`encode`; ``ProtocolError`` or ``CorruptData`` names ``source``."""
        try:
            fields = json.loads(data)
            return cls(
                control=decode_control(bytes.fromhex(fields["control"]), source),
                begin_lsn=Lsn.parse(fields["begin_lsn"]),
                end_lsn=Lsn.parse(fields["end_lsn"]),
                last_log_term=int(fields["last_log_term"]),
            )
        except (KeyError, TypeError, ValueError) as error:
            raise ProtocolError(f"{source} sends no header of a snapshot: {error!r}") from error


def snapshot_begin_lsn(timeline: Timeline) -> Lsn:
    """From where on a new member gets WAL: whole segments, everything that is on this disk, so
    that it may offload what is not in S3 yet (BUGBANK ``sk-offload-by-newcomer``)."""
    oldest = timeline.segments.oldest
    size = timeline.segments.segment_size
    return timeline.reading.first_lsn if oldest is None else Lsn(oldest * size)


def is_unchanged(timeline: Timeline, snapshot: Snapshot) -> bool:
    """Whether the log can only have grown since the snapshot was begun."""
    acceptor = timeline.acceptor
    return (
        acceptor.term == snapshot.control.term
        and acceptor.last_log_term == snapshot.last_log_term
        and acceptor.flush_lsn >= snapshot.end_lsn
    )


async def send_snapshot(timeline: Timeline, out: CopyOut) -> None:
    """Send it all. ``NotReady`` when the log changed under the copy: try again."""
    snapshot = Snapshot.of(timeline)
    with timeline.pins.hold(snapshot.begin_lsn):
        await out.send(snapshot.encode())
        await failpoint(Failpoint.SK_SNAPSHOT_LISTED)
        position = snapshot.begin_lsn
        while position < snapshot.end_lsn:
            end_lsn = Lsn(min(snapshot.end_lsn, position + _SEND_BYTES))
            await out.send(await _read(timeline, position, end_lsn))
            position = end_lsn
        if not is_unchanged(timeline, snapshot):
            raise _changed(timeline)
        await out.send(TRAILER)


async def _read(timeline: Timeline, begin_lsn: Lsn, end_lsn: Lsn) -> bytes:
    if end_lsn > timeline.acceptor.flush_lsn:
        raise _changed(timeline)
    return await timeline.segments.read(begin_lsn, end_lsn)


def _changed(timeline: Timeline) -> NotReady:
    reach(Mark.COPY_SPOILT)
    return NotReady(
        f"an election in term {timeline.acceptor.term} may have changed the log of {timeline.id} "
        "while it was copied; copy again"
    )
