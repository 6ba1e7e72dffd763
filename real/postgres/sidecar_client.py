"""Talking to a walproposer sidecar: its election, its stream, and whether it still leads."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any

from harness.errors import HarnessError
from harness.nodes import COMPUTE_HTTP_PORT
from storage.errors import SeawallError
from storage.http.client import HttpError, call
from storage.lsn import Lsn

CALL_S_MAX = 5.0
WATCH_S = 0.25
_ELECTED_PHASES = ("elected", "streaming")


class SidecarClient:
    """Asks one sidecar; errors of the network pass through where not said otherwise."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._term: int | None = None

    async def elected(self) -> Lsn | None:
        """Where new WAL begins once the sidecar is elected, else ``None``."""
        status = await self._status()
        if status["phase"] not in _ELECTED_PHASES:
            return None
        self._term = int(status["term"])
        return Lsn.parse(status["start_lsn"])

    async def stream(self, host: str, port: int, user: str, slot: str) -> None:
        """Have it stream a server's WAL; ``HarnessError`` when it refuses that server."""
        where = {"host": host, "port": port, "user": user, "slot": slot}
        try:
            await self._call("POST", "/v1/stream", where)
        except HttpError as error:
            raise HarnessError(f"the sidecar {self._name!r} refuses to stream: {error}") from error

    async def lost(self) -> str:
        """Return, with the reason, once no commit can ever be acknowledged through it again.

        A silent sidecar is not lost: it may be frozen, or cut off for a while.
        """
        assert self._term is not None, "only an elected sidecar can be lost"
        while True:
            await asyncio.sleep(WATCH_S)
            try:
                status = await self._status()
            except ConnectionRefusedError:
                return f"its sidecar {self._name!r} is gone"
            except (OSError, TimeoutError, EOFError, SeawallError):
                continue
            if status["phase"] == "deposed":
                return f"its sidecar {self._name!r} was deposed: a newer compute rules"
            if int(status["term"]) != self._term:
                return f"its sidecar {self._name!r} was restarted, in term {status['term']}"

    async def _status(self) -> Mapping[str, Any]:
        status: Mapping[str, Any] = await self._call("GET", "/v1/status")
        return status

    async def _call(self, method: str, path: str, body: Mapping[str, Any] | None = None) -> Any:
        return await call(method, self._name, COMPUTE_HTTP_PORT, path, body, timeout_s=CALL_S_MAX)
