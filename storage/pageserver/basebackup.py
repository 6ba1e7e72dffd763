"""Base backups: what a compute needs to start at an LSN, as a tar stream.

For a timeline of the deterministic compute that is one small text file; for a PostgreSQL timeline
(one that has a control file) the data directory, built by ``storage.pageserver.postgres``.
"""

from __future__ import annotations

import tarfile
from collections.abc import AsyncGenerator

from storage.errors import BadRequest
from storage.lsn import INVALID_LSN, Lsn
from storage.pageserver.creation import check_in_scope
from storage.pageserver.hooks import DirectoryRequest
from storage.pageserver.read_view import ReadPoint, read_view
from storage.pageserver.timeline import Timeline

SIGNAL_FILE = "seawall.signal"


async def base_backup(
    timeline: Timeline, lsn: Lsn | None, *, full: bool
) -> AsyncGenerator[bytes, None]:
    """The tar at an LSN (``None``: the last record), waiting for it if need be.

    Raises ``LsnOutOfScope`` before what the timeline still has, ``NotReady`` when the LSN does not
    arrive in time, ``BadRequest`` for a full backup of a timeline that has no data directory.
    """
    if lsn is None:
        lsn = timeline.last_record_lsn
    with timeline.gc_cutoff.hold():
        check_in_scope(timeline, lsn)
        async with read_view(timeline, ReadPoint.at(lsn)) as view:
            prev_lsn = prev_record_lsn(timeline, lsn)
            postgres = timeline.environment.postgres
            if postgres is not None and await view.directory.control_file() is not None:
                request = DirectoryRequest(lsn, prev_lsn, timeline.pg_version, full)
                async for chunk in postgres.build_directory(view.directory, request):
                    yield chunk
            elif full:
                raise BadRequest(f"timeline {timeline.ident} holds no PostgreSQL data directory")
            else:
                yield signal_tar(lsn, prev_lsn)


def prev_record_lsn(timeline: Timeline, lsn: Lsn) -> Lsn:
    """Start of the record that ends at ``lsn``; 0 when it is not known (only the last one is)."""
    return timeline.prev_record_lsn if lsn == timeline.last_record_lsn else INVALID_LSN


def signal_tar(lsn: Lsn, prev_lsn: Lsn) -> bytes:
    """The archive with :data:`SIGNAL_FILE`, which says where the next record goes."""
    text = f"PREV LSN: {prev_lsn}\nLSN: {lsn}\n".encode()
    entry = tarfile.TarInfo(SIGNAL_FILE)
    entry.size = len(text)
    entry.mode = 0o600
    padding = bytes(-len(text) % tarfile.BLOCKSIZE)
    end = bytes(2 * tarfile.BLOCKSIZE)
    return entry.tobuf(tarfile.USTAR_FORMAT) + text + padding + end
