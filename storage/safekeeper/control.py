"""The control file: what a timeline must remember, versioned, checksummed, replaced atomically.

Layout: magic, format version, payload length, CRC-32C of the payload; then the payload as JSON
(LSNs as text), so that a person can read it. Lives beside the segments as ``safekeeper.control``.
"""

from __future__ import annotations

import json
import struct
from typing import Any

from storage.consensus.term_history import TermHistory, TermSwitch
from storage.durable import read_settled, replace_file
from storage.errors import CorruptData, ProtocolError
from storage.failpoints import Failpoint, failpoint
from storage.ids import TenantId, TimelineId
from storage.lsn import Lsn
from storage.ports import Disk
from storage.safekeeper.state import ControlState, TimelineIdentity
from storage.wal.format import crc32c

CONTROL_FILE = "safekeeper.control"
FORMAT_VERSION = 1

_MAGIC = b"SWALLCTL"
_HEADER = struct.Struct(">8sIII")


def encode_control(control: ControlState) -> bytes:
    """The control file's whole content."""
    identity = control.identity
    fields = {
        "tenant_id": identity.tenant_id,
        "timeline_id": identity.timeline_id,
        "start_lsn": str(identity.start_lsn),
        "system_id": identity.system_id,
        "pg_version": identity.pg_version,
        "wal_segment_size": identity.wal_segment_size,
        "safekeepers": list(identity.safekeepers),
        "term": control.term,
        "term_history": [[s.term, str(s.lsn)] for s in control.term_history.switches],
        "commit_lsn": str(control.commit_lsn),
        "peer_horizon_lsn": str(control.peer_horizon_lsn),
        "backup_lsn": str(control.backup_lsn),
        "remote_consistent_lsn": str(control.remote_consistent_lsn),
        "local_start_lsn": str(control.local_start_lsn),
    }
    payload = json.dumps(fields).encode()
    return _HEADER.pack(_MAGIC, FORMAT_VERSION, len(payload), crc32c(payload)) + payload


def decode_control(data: bytes, path: str) -> ControlState:
    """Read a control file; ``CorruptData`` names ``path`` and what is wrong with it."""
    if len(data) < _HEADER.size:
        raise CorruptData(f"{path}: {len(data)} bytes are too few for a control file")
    magic, version, length, crc = _HEADER.unpack_from(data)
    if magic != _MAGIC:
        raise CorruptData(f"{path}: begins with {magic!r}, not {_MAGIC!r}")
    if version != FORMAT_VERSION:
        raise CorruptData(f"{path}: format version {version}; this node reads {FORMAT_VERSION}")
    payload = data[_HEADER.size :]
    if len(payload) != length:
        raise CorruptData(f"{path}: {len(payload)} bytes of payload, {length} were written")
    if crc32c(payload) != crc:
        raise CorruptData(f"{path}: CRC is {crc32c(payload):08X}, stored {crc:08X}")
    try:
        return _parse(json.loads(payload))
    except (KeyError, TypeError, ValueError, ProtocolError) as error:
        raise CorruptData(f"{path}: content makes no sense: {error!r}") from error


def _parse(fields: dict[str, Any]) -> ControlState:
    identity = TimelineIdentity(
        tenant_id=TenantId(fields["tenant_id"]),
        timeline_id=TimelineId(fields["timeline_id"]),
        start_lsn=Lsn.parse(fields["start_lsn"]),
        system_id=fields["system_id"],
        pg_version=fields["pg_version"],
        wal_segment_size=fields["wal_segment_size"],
        safekeepers=tuple(fields["safekeepers"]),
    )
    switches = (TermSwitch(term, Lsn.parse(lsn)) for term, lsn in fields["term_history"])
    return ControlState(
        identity=identity,
        term=fields["term"],
        term_history=TermHistory(tuple(switches)),
        commit_lsn=Lsn.parse(fields["commit_lsn"]),
        peer_horizon_lsn=Lsn.parse(fields["peer_horizon_lsn"]),
        backup_lsn=Lsn.parse(fields["backup_lsn"]),
        remote_consistent_lsn=Lsn.parse(fields["remote_consistent_lsn"]),
        local_start_lsn=Lsn.parse(fields["local_start_lsn"]),
    )


class ControlFile:
    """One timeline's control file on disk; ``saved`` is the state known to be durable."""

    def __init__(self, disk: Disk, directory: str, saved: ControlState) -> None:
        self.saved = saved
        self._disk = disk
        self._path = f"{directory}/{CONTROL_FILE}"

    @classmethod
    async def load(cls, disk: Disk, directory: str) -> ControlFile:
        """Read what is there and make sure that it stays; ``CorruptData`` or ``DiskError``."""
        path = f"{directory}/{CONTROL_FILE}"
        return cls(disk, directory, decode_control(await read_settled(disk, path), path))

    async def save(self, control: ControlState) -> None:
        """Return once ``control`` is durable; after ``DiskError`` old or new may be."""
        assert control.term >= self.saved.term, "a term never goes back"
        assert control.commit_lsn >= self.saved.commit_lsn, "a commit is never undone"
        await failpoint(Failpoint.SK_BEFORE_CONTROL_SAVE)
        await replace_file(self._disk, self._path, encode_control(control))
        self.saved = control
