"""A TCP proxy before a real server, to take the server away from one client."""

from __future__ import annotations

import asyncio
import contextlib

_CHUNK = 65536


class TcpProxy:
    """Forwards one loopback port to a target; ``down``, ``silent`` and ``deaf`` are its faults."""

    def __init__(self, target: tuple[str, int]) -> None:
        self._target = target
        self._server: asyncio.Server | None = None
        self._connections: dict[asyncio.Task[None], None] = {}
        self._passes = {"forward": asyncio.Event(), "back": asyncio.Event()}
        self.port = 0
        self.swallow_replies = False
        self.heal()

    async def open(self) -> None:
        """Accept connections, on the same port as before if there was one."""
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", self.port)
        self.port = self._server.sockets[0].getsockname()[1]

    async def down(self) -> None:
        """Refuse connections and reset those that are open."""
        if self._server is not None:
            self._server.close()
            self._server = None
        connections = list(self._connections)
        for connection in connections:
            connection.cancel()
        await asyncio.gather(*connections, return_exceptions=True)

    def cut(self) -> None:
        """Let nothing pass, either way, and tell nobody."""
        for passes in self._passes.values():
            passes.clear()

    def heal(self) -> None:
        """Let everything pass again, what waited first."""
        self.swallow_replies = False
        for passes in self._passes.values():
            passes.set()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._connections[task] = None
        far_writer: asyncio.StreamWriter | None = None
        try:
            far_reader, far_writer = await asyncio.open_connection(*self._target)
            async with asyncio.TaskGroup() as directions:
                directions.create_task(self._copy("forward", reader, far_writer))
                directions.create_task(self._copy("back", far_reader, writer))
        except* (OSError, asyncio.CancelledError):
            pass  # Either side went away, or the proxy goes down: both ends hear of it below.
        finally:
            self._connections.pop(task)
            for each in (writer, far_writer):
                if each is not None:
                    with contextlib.suppress(OSError):
                        each.transport.abort()

    async def _copy(
        self, direction: str, source: asyncio.StreamReader, target: asyncio.StreamWriter
    ) -> None:
        while data := await source.read(_CHUNK):
            await self._passes[direction].wait()
            if direction == "back" and self.swallow_replies:
                continue
            target.write(data)
            await target.drain()
        if target.can_write_eof():
            target.write_eof()
