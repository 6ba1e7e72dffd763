"""The data directory every new timeline begins with: ``initdb`` once per kind, then copied.

A template is cached below a directory the caller names; several processes may build it at once
(a lock file, then a rename). Its WAL ends with the shutdown checkpoint; the timeline goes on there.
"""

from __future__ import annotations

import io
import os
import shutil
import subprocess
import tarfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from harness.errors import HarnessError
from real.postgres.binaries import Binaries, as_user, locked, server_user
from storage.lsn import Lsn
from storage.wal.format import record_end

SUPERUSER = "postgres"
MIB = 1024 * 1024
CHECKPOINT_RECORD_BYTES = 24 + 2 + 88
"""Record header, short data header, ``CheckPoint`` (versions 15, 16 and 18)."""
_LEFT_OUT = ("postmaster.opts", "postmaster.pid")
_PIECE_BYTES = 256 * 1024


@dataclass(frozen=True)
class Template:
    """An initialised data directory; ``start_lsn`` is the end of its WAL."""

    path: Path
    start_lsn: Lsn
    system_id: int
    pg_version: int
    wal_segment_size: int


def template(binaries: Binaries, wal_segment_size: int, cache: Path) -> Template:
    """The template for a version and segment size (bytes), built if ``cache`` has none.

    Blocks for a third of a second when it has to run ``initdb``; ``HarnessError`` if that fails.
    """
    if wal_segment_size % MIB or not MIB <= wal_segment_size <= 1024 * MIB:
        raise HarnessError(
            f"PostgreSQL cannot have WAL segments of {wal_segment_size} bytes; use a power of two "
            f"from {MIB} to {1024 * MIB}"
        )
    binaries = binaries.for_server_user(cache)
    name = f"initdb-{binaries.version}-{wal_segment_size // MIB}MiB"
    path = cache / name
    with locked(cache, name):
        if not path.exists():
            _build(binaries, wal_segment_size, path)
    return describe(binaries, path)


def _build(binaries: Binaries, wal_segment_size: int, path: Path) -> None:
    working = path.with_name(f"{path.name}.new")
    shutil.rmtree(working, ignore_errors=True)
    working.mkdir(mode=0o700)
    user = server_user()
    if user is not None:
        os.chown(working, user.pw_uid, user.pw_gid)
    command = [binaries.program("initdb"), "--pgdata", str(working), "--username", SUPERUSER]
    command += ["--auth", "trust", "--encoding", "UTF8", "--no-locale", "--no-sync"]
    command += ["--no-instructions", "--wal-segsize", str(wal_segment_size // MIB)]
    if binaries.major >= 18:
        command.append("--no-data-checksums")
    done = subprocess.run(command, capture_output=True, text=True, **as_user())
    if done.returncode != 0:
        raise HarnessError(f"{' '.join(command)} failed: {done.stderr.strip()}")
    working.rename(path)


def describe(binaries: Binaries, path: Path) -> Template:
    """What ``pg_controldata`` says of a data directory that was shut down."""
    command = [binaries.program("pg_controldata"), str(path)]
    environment = {**os.environ, "LC_ALL": "C"}
    done = subprocess.run(command, capture_output=True, text=True, env=environment, **as_user())
    rows = dict(line.split(":", 1) for line in done.stdout.splitlines() if ":" in line)
    try:
        checkpoint = Lsn.parse(rows["Latest checkpoint location"].strip())
        wal_segment_size = int(rows["Bytes per WAL segment"])
        return Template(
            path=path,
            start_lsn=Lsn(record_end(checkpoint, CHECKPOINT_RECORD_BYTES, wal_segment_size)),
            system_id=int(rows["Database system identifier"]),
            pg_version=binaries.major,
            wal_segment_size=wal_segment_size,
        )
    except (KeyError, ValueError) as error:
        raise HarnessError(f"{' '.join(command)} says {done.stdout[:200]!r}: {error}") from error


def tar(source: Template) -> Iterator[bytes]:
    """The template as a tar stream, in pieces: what ``import basebackup`` takes."""
    future = _recycled_segments(source)
    buffer = _Pieces()
    with tarfile.open(fileobj=buffer, mode="w|", format=tarfile.USTAR_FORMAT) as archive:
        for path in sorted(source.path.rglob("*")):
            name = path.relative_to(source.path).as_posix()
            if name in _LEFT_OUT or name in future:
                continue
            archive.add(path, arcname=name, recursive=False)
            yield from buffer.full()
    yield from buffer.rest()


def _recycled_segments(source: Template) -> set[str]:
    """WAL segments that ``initdb`` made ahead of its end; they hold garbage."""
    per_log = (1 << 32) // source.wal_segment_size
    log, segment = divmod(source.start_lsn.segment(source.wal_segment_size), per_log)
    current = f"pg_wal/00000001{log:08X}{segment:08X}"
    names = (f"pg_wal/{path.name}" for path in (source.path / "pg_wal").glob("0*"))
    return {name for name in names if name > current}


class _Pieces(io.RawIOBase):
    """A file object that hands on what was written to it."""

    def __init__(self) -> None:
        self._data = bytearray()

    def writable(self) -> bool:
        """Only that."""
        return True

    def write(self, data: Any) -> int:
        """Take bytes."""
        self._data += data
        return len(data)

    def full(self) -> Iterator[bytes]:
        """Whole pieces so far."""
        while len(self._data) >= _PIECE_BYTES:
            yield bytes(self._data[:_PIECE_BYTES])
            del self._data[:_PIECE_BYTES]

    def rest(self) -> Iterator[bytes]:
        """What is left."""
        yield from self.full()
        if self._data:
            yield bytes(self._data)
            self._data.clear()
