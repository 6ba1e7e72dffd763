"""The role ``postgres``: an unmodified server built anew at every start from what the quorum has.

1. The sidecar, an ordinary node, wins the election and says where new WAL begins: the end of what
   a quorum of safekeepers has. 2. The pageserver sends a data directory at that LSN. 3. PostgreSQL
starts on it, with a physical slot, so that no WAL is recycled before the sidecar has it. 4. The
sidecar streams from there as the synchronous standby: from now on a commit returns when a quorum
has it. PostgreSQL is never restarted on a directory it has written to.
"""

from __future__ import annotations

import asyncio
import logging
import os
import shutil
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, TypeVar

from harness.errors import HarnessError
from harness.nodes import COMPUTE_LIBPQ_PORT
from real.postgres import binaries
from real.postgres.server import STANDBY, Server
from real.postgres.sidecar_client import SidecarClient
from real.postgres.template import SUPERUSER
from real.postgres.untar import Untar
from real.postgres.wal_prefix import PrefixRequest, write_prefix
from storage.errors import SeawallError
from storage.lsn import Lsn
from storage.node import NodeContext, NodeMain
from storage.wire.client import Client, ConnectOptions, connect

POLL_S = 0.02
DATA_SILENCE_S_MAX = 15.0
"""How long a pageserver that sends a data directory may say nothing."""
FAST_STOP_S = 2.0
STOPPING_TOO_S = 1.0
KV_TABLE = "create table if not exists kv (key bigint primary key, value text not null)"

T = TypeVar("T")
logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class PostgresOptions:
    """Options of the role. ``directory`` is for this node alone and removed at the end: data and
    socket, so its path must be short; ``pageserver`` and ``safekeepers`` are ``host:port``;
    ``settings`` win over ours.
    """

    tenant_id: str
    timeline_id: str
    pageserver: str
    safekeepers: tuple[str, ...]
    sidecar: str
    wal_segment_size: int
    bin_directory: str
    directory: str
    settings: Mapping[str, str]

    @classmethod
    def parse(cls, options: Mapping[str, Any]) -> PostgresOptions:
        """From JSON; ``HarnessError`` names an unknown or missing option."""
        known = {field.name for field in fields(cls)}
        wrong = sorted(known ^ set(options))
        if wrong:
            raise HarnessError(f"options of role postgres, unknown or missing: {', '.join(wrong)}")
        return cls(**options)

    @property
    def data(self) -> Path:
        """The data directory."""
        return Path(self.directory) / "data"


async def main(context: NodeContext) -> None:
    """Run one incarnation; see the module's text."""
    options = PostgresOptions.parse(context.options)
    found = binaries.inspect(Path(options.bin_directory))
    if isinstance(found, str):
        raise HarnessError(found)
    clock = _Stopwatch()
    sidecar = SidecarClient(options.sidecar)
    start_lsn = await _until("the sidecar to be elected", sidecar.elected)
    clock.note("elected")
    _fresh_directory(Path(options.directory))
    try:
        await _build_directory(options, start_lsn)
        clock.note("data directory")
        server = Server(found, options.data, Path(options.directory))
        server.configure(options.settings)
        await server.start()
        try:
            await server.wait_ready()
            clock.note("PostgreSQL up")
            await _replicate(context.name, sidecar)
            clock.note("synchronous standby")
            logger.info("ready at %s: %s", start_lsn, clock)
            context.ready.set()
            await _serve(context, server, sidecar)
        finally:
            await server.stop(fast_s=FAST_STOP_S)
    finally:
        shutil.rmtree(options.directory, ignore_errors=True)


class _Stopwatch:
    """Where the time of a start goes."""

    def __init__(self) -> None:
        self._last_s = time.monotonic()
        self._laps: list[str] = []

    def note(self, what: str) -> None:
        now_s = time.monotonic()
        self._laps.append(f"{what} {now_s - self._last_s:.3f} s")
        self._last_s = now_s

    def __str__(self) -> str:
        return ", ".join(self._laps)


def _fresh_directory(path: Path) -> None:
    shutil.rmtree(path, ignore_errors=True)
    path.mkdir(mode=0o755)
    user = binaries.server_user()
    if user is not None:
        os.chown(path, user.pw_uid, user.pw_gid)


async def _until(what: str, check: Callable[[], Awaitable[T | None]]) -> T:
    """Repeat ``check`` until it returns something; what is not reachable yet is not there yet."""
    last = ""
    while True:
        try:
            found = await check()
            if found is not None:
                return found
            why = "not yet"
        except (OSError, TimeoutError, EOFError, SeawallError) as error:
            why = str(error) or type(error).__name__
        if why != last:
            logger.info("waiting for %s: %s", what, why)
            last = why
        await asyncio.sleep(POLL_S)


async def _build_directory(options: PostgresOptions, lsn: Lsn) -> None:
    """Unpack the pageserver's ``fullbackup`` at ``lsn``, which it may have to wait for."""
    user = binaries.server_user()
    owner = None if user is None else (user.pw_uid, user.pw_gid)
    prefix = PrefixRequest(
        tenant_id=options.tenant_id,
        timeline_id=options.timeline_id,
        safekeepers=options.safekeepers,
        wal_segment_size=options.wal_segment_size,
    )

    async def build() -> bool:
        shutil.rmtree(options.data, ignore_errors=True)
        host, _, port = options.pageserver.rpartition(":")
        patience = ConnectOptions(timeout_s=DATA_SILENCE_S_MAX)
        client = await connect(host, int(port), options=patience)
        archive = Untar(options.data, owner)
        try:
            command = f"fullbackup {options.tenant_id} {options.timeline_id} {lsn}"
            async for data in _until_silence(client.copy_out(command)):
                archive.feed(data)
            archive.finish()
        finally:
            archive.close()
            await client.close()
        await write_prefix(prefix, lsn, options.data / "pg_wal")
        return True

    await _until(f"a data directory at {lsn} from {options.pageserver}", build)


async def _until_silence(pieces: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    """Hand pieces on; ``TimeoutError`` when the next one is late. A pageserver whose machine dies
    in the middle never says so."""
    while True:
        async with asyncio.timeout(DATA_SILENCE_S_MAX):
            piece = await anext(pieces, None)
        if piece is None:
            return
        yield piece


async def _replicate(name: str, sidecar: SidecarClient) -> None:
    """Create the slot, start the sidecar's stream, wait for synchronous replication."""
    client = await connect(
        name,
        COMPUTE_LIBPQ_PORT,
        options=ConnectOptions(user=SUPERUSER, database=SUPERUSER, timeout_s=60.0),
    )
    try:
        await client.query(f"select pg_create_physical_replication_slot('{STANDBY}', true)")
        await sidecar.stream(name, COMPUTE_LIBPQ_PORT, SUPERUSER, STANDBY)
        await _until("synchronous replication", lambda: _is_synchronous(client))
        await client.query(KV_TABLE)
    finally:
        await client.close()


async def _is_synchronous(client: Client) -> bool | None:
    answer = await client.query(
        f"select 1 from pg_stat_replication where application_name = '{STANDBY}' "
        "and sync_state = 'sync' and state = 'streaming'"
    )
    return True if answer.rows else None


async def _serve(context: NodeContext, server: Server, sidecar: SidecarClient) -> None:
    """Return when asked to stop; raise when the server ended or can never commit again.

    Without its sidecar a server would still answer reads, from a past that others go on from.
    """
    stopping = asyncio.create_task(context.stopping.wait(), name="stopping")
    ended = asyncio.create_task(server.ended.wait(), name="end of the server")
    lost = asyncio.create_task(sidecar.lost(), name="watch of the sidecar")
    try:
        await asyncio.wait((stopping, ended, lost), return_when=asyncio.FIRST_COMPLETED)
        if not stopping.done():  # Who stops everything at once reaches some nodes later.
            await asyncio.wait((stopping,), timeout=STOPPING_TOO_S)
        if stopping.done():
            return
        why = "by itself; its last words are in this node's log" if ended.done() else lost.result()
        raise HarnessError(f"PostgreSQL ended: {why}")
    finally:
        for task in (stopping, ended, lost):
            task.cancel()


ROLES: Mapping[str, NodeMain] = {"postgres": main}
