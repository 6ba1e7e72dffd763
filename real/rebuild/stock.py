"""Stock servers beside the cluster: one that recovers the WAL up to an LSN, one that is rebuilt."""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from real.postgres.binaries import Binaries
from real.postgres.server import Server
from real.rebuild.source import give_to_server, run_tool
from storage.lsn import Lsn

SETTINGS: Final = {
    "synchronous_standby_names": "",
    "wal_consistency_checking": "",
    "autovacuum": "off",
    "allow_in_place_tablespaces": "on",
    "checkpoint_timeout": "1h",
}
_COUNTERS: Final = (
    "Latest checkpoint's NextXID",
    "Latest checkpoint's NextOID",
    "Latest checkpoint's NextMultiXactId",
    "Latest checkpoint's NextMultiOffset",
    "Latest checkpoint's oldestMultiXid",
    "Latest checkpoint's oldestMulti's DB",
    "Data page checksum version",
)
_OLDEST_XID: Final = "Latest checkpoint's oldestXID"
_STOP_S: Final = 20.0


@dataclass(frozen=True)
class Stock:
    """A data directory and the directory of the socket of the server on it."""

    binaries: Binaries
    home: Path

    @property
    def data(self) -> Path:
        """The data directory."""
        return self.home / "data"

    def counters(self) -> dict[str, str]:
        """What ``pg_control`` says of ids, as far as replay must have it exactly."""
        found = self._control()
        return {name: found[name] for name in _COUNTERS}

    def oldest_xid(self) -> int:
        """The oldest transaction id that the commit log still has, in ``pg_control``.

        Replay learns it from the next checkpoint, the primary when it cuts the commit log off.
        """
        return int(self._control()[_OLDEST_XID])

    def _control(self) -> dict[str, str]:
        rows = run_tool(self.binaries, "pg_controldata", "-D", str(self.data)).splitlines()
        pairs = (row.split(":", 1) for row in rows if ":" in row)
        return {name: value.strip() for name, value in pairs}

    @contextlib.asynccontextmanager
    async def running(self, settings: Mapping[str, str]) -> AsyncIterator[None]:
        """The server, ready; stopped in order on exit."""
        server = Server(self.binaries, self.data, self.home)
        server.configure({**SETTINGS, **settings})
        await server.start()
        try:
            await server.wait_ready()
            yield
        finally:
            await server.stop(fast_s=_STOP_S)


@dataclass(frozen=True)
class Recovery:
    """What stock recovery starts from: a stopped server's directory and an archive of WAL."""

    base: Path
    archive: Path

    def prepare(self, stock: Stock) -> None:
        """Make ``stock`` a copy of the base that recovers when it starts."""
        shutil.copytree(self.base, stock.data)
        (stock.data / "recovery.signal").touch()
        give_to_server(stock.data)

    def settings(self, lsn: Lsn) -> dict[str, str]:
        """Recovery ends before the first record that starts at ``lsn`` or later."""
        return {
            "restore_command": f'cp "{self.archive}/%f" "%p"',
            "recovery_target_lsn": str(lsn),
            "recovery_target_inclusive": "off",
            "recovery_target_action": "promote",
            "hot_standby": "off",
        }
