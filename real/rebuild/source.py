"""The source: PostgreSQL on a whole cluster, whose template's counters stand near borders.

``pg_resetwal`` puts transaction, multixact and member counters just below the ends of segments, in
epoch 1, so that a short life crosses and truncates what otherwise takes millions of transactions.
"""

from __future__ import annotations

import functools
import os
import shutil
import subprocess
from pathlib import Path

from real.postgres import template
from real.postgres.binaries import Binaries, as_user, locked, server_user
from real.postgres.compute import PostgresCompute
from real.postgres.template import Template

_WORN = ("-e", "1", "-x", "1048550", "-m", "65500,65400", "-O", "52330")
_SEGMENT_BYTES = 32 * 8192


class WornPostgres(PostgresCompute):
    """PostgreSQL whose timelines begin with a worn template, kept in ``cache``."""

    def __init__(self, cache: Path, major: int, *, checksums: bool) -> None:
        super().__init__(cache, major)
        self._checksums = checksums

    @functools.cache  # noqa: B019 - lives as long as the session
    def template(self, wal_segment_size: int) -> Template:
        """The worn data directory; blocks while it is made."""
        fresh = super().template(wal_segment_size)
        sums = "sums" if self._checksums else "plain"
        path = fresh.path.with_name(f"{fresh.path.name}-worn-{sums}")
        with locked(path.parent, path.name):
            if not path.exists():
                self._wear(fresh.path, path)
        return template.describe(self.binaries, path)

    def _wear(self, fresh: Path, path: Path) -> None:
        working = path.with_name(f"{path.name}.new")
        shutil.rmtree(working, ignore_errors=True)
        shutil.copytree(fresh, working)
        for name in ("pg_xact", "pg_multixact/offsets", "pg_multixact/members"):
            segment = working / name / "0000"
            content = segment.read_bytes() if segment.exists() else b""
            segment.write_bytes(content.ljust(_SEGMENT_BYTES, b"\0"))
        give_to_server(working)
        run_tool(self.binaries, "pg_resetwal", "-D", str(working), *_WORN)
        # It leaves wal_level=minimal behind, from which no server recovers; a start mends that.
        settings = ("-c", "wal_level=replica", "-c", "autovacuum=off", "postgres")
        run_tool(self.binaries, "postgres", "--single", "-D", str(working), *settings)
        if self._checksums:
            run_tool(self.binaries, "pg_checksums", "--enable", "-D", str(working))
        working.rename(path)


def give_to_server(path: Path) -> None:
    """Make the server's user own a directory and all in it, where we are somebody else."""
    user = server_user()
    if user is None:
        return
    for parent, _, names in os.walk(path):
        for name in (".", *names):
            os.chown(Path(parent, name), user.pw_uid, user.pw_gid)
    path.chmod(0o700)


def run_tool(binaries: Binaries, program: str, *arguments: str) -> str:
    """Run one of PostgreSQL's programs as the server's user; what it prints.

    Raises ``subprocess.CalledProcessError`` when it fails.
    """
    command = [binaries.program(program), *arguments]
    environment = {**os.environ, "LC_ALL": "C"}
    done = subprocess.run(
        command,
        capture_output=True,
        stdin=subprocess.DEVNULL,
        text=True,
        env=environment,
        check=True,
        **as_user(),
    )
    return str(done.stdout)
