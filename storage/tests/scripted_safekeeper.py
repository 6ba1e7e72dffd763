"""A safekeeper that sends WAL as a test tells it, and remembers what it was told."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from storage.lsn import Lsn
from storage.pageserver.feedback import FEEDBACK_TYPE, PageserverFeedback
from storage.tasks import ShutdownRequested, TaskKind, TaskRegistry
from storage.wire.copying import CopyStream
from storage.wire.replication import complete_streaming, keepalive, xlog_data_header
from storage.wire.server import WireServer, serve
from storage.wire.session import Session

PORT = 5454


class ScriptedSafekeeper:
    """Serves ``wal`` (which begins at ``start``) up to ``commit_lsn``."""

    def __init__(self, name: str, start: Lsn, wal: Callable[[], bytes]) -> None:
        self.name = name
        self.start = start
        self.commit_lsn = start
        self.feedback: list[PageserverFeedback] = []
        self.streams = 0
        self.live = 0
        self.piece = 1000
        self.is_silent = False
        self.rotten_at: Lsn | None = None
        self._wal = wal
        self._progress = asyncio.Event()
        self._ending = False
        self._server: WireServer | None = None
        self.registry = TaskRegistry(name)

    @property
    def address(self) -> str:
        return f"{self.name}:{PORT}"

    async def listen(self) -> None:
        self._server = await serve(self.name, PORT, self._query, self.registry)

    async def close(self) -> None:
        assert self._server is not None
        await self._server.close(within_s=0.1)
        await self.registry.shutdown(within_s=0.1)

    def commit(self, lsn: Lsn) -> None:
        self.commit_lsn = lsn
        self._progress.set()

    def end_streams(self) -> None:
        """End the present stream in order; later ones go on."""
        self._ending = True
        self._progress.set()

    async def _query(self, session: Session, text: str) -> None:
        if text == "SHOW wal_segment_size":
            await session.rows(("wal_segment_size",), [("1MB",)], "SHOW")
            return
        words = text.split()
        assert words[:2] == ["START_REPLICATION", "PHYSICAL"], text
        assert session.settings["tenant_id"] == "a" * 32
        assert session.replication
        self.streams += 1
        self.live += 1
        stream = await session.copy_both()
        listener = self.registry.spawn(TaskKind.WAL_SENDER, "listen", self._listen(stream))
        try:
            await self._send(stream, Lsn.parse(words[2]))
        finally:
            self.live -= 1
            listener.cancel()
            await asyncio.gather(listener, return_exceptions=True)
        await stream.done()
        await complete_streaming(session)

    async def _send(self, stream: CopyStream, position: Lsn) -> None:
        self._ending = False
        while not self._ending:
            self._progress.clear()
            while position < self.commit_lsn and not self.is_silent:
                end = min(self.commit_lsn, position + self.piece)
                data = self._rot(self._wal())[position - self.start : end - self.start]
                await stream.send(xlog_data_header(position, self.commit_lsn, 0), data)
                position = Lsn(end)
            try:
                async with asyncio.timeout(1):
                    await self._progress.wait()
            except TimeoutError:
                if not self.is_silent:
                    await stream.send(keepalive(self.commit_lsn, 0, reply_requested=True))

    def _rot(self, wal: bytes) -> bytes:
        if self.rotten_at is None:
            return wal
        at = self.rotten_at - self.start
        return wal[:at] + bytes([wal[at] ^ 0xFF]) + wal[at + 1 :]

    async def _listen(self, stream: CopyStream) -> None:
        try:
            while (message := await stream.receive()) is not None:
                if message[:1] == FEEDBACK_TYPE:
                    self.feedback.append(PageserverFeedback.decode(message))
        except (ConnectionError, ShutdownRequested):
            self.end_streams()
