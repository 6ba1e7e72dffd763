"""A client that takes base backups from a pageserver, by the simple or the extended protocol.

It speaks message by message, so that an error in the middle of a copy is seen as it arrives.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from harness.endpoint import Refused
from harness.nodes import PAGESERVER_LIBPQ_PORT
from storage.wire import messages as m
from storage.wire.channel import Channel
from storage.wire.states import Sender

CLOSE_WITHIN_S = 1.0


class BackupClient:
    """One connection; ``received`` counts the bytes of the last backup, whole or not."""

    def __init__(self, channel: Channel, *, extended: bool) -> None:
        self.received = 0
        self._channel = channel
        self._extended = extended

    async def backup(self, command: str) -> bytes:
        """The tar that a command sends. Raises ``Refused`` with the server's words and SQLSTATE,
        also when that comes in the middle; the connection may be used again."""
        data = bytearray()
        try:
            for message in await self._ask(command):
                if isinstance(message, m.CopyData):
                    data += message.data
                if isinstance(message, m.ErrorResponse):
                    raise Refused(message.message, sqlstate=message.sqlstate)
        finally:
            self.received = len(data)
        return bytes(data)

    async def rows(self, command: str) -> int:
        """How many rows a command answers with."""
        return sum(isinstance(answer, m.DataRow) for answer in await self._ask(command))

    async def _ask(self, command: str) -> list[m.Message]:
        """Every message up to the next ReadyForQuery."""
        series: tuple[m.Message, ...] = (m.Query(command),)
        if self._extended:
            series = (m.Parse("", command), m.Bind("", ""), m.Execute(""), m.Sync())
        return await self._exchange(*series)

    async def start(self) -> None:
        """Open the session."""
        await self._exchange(m.Startup({"user": "seawall"}))

    async def _exchange(self, *series: m.Message) -> list[m.Message]:
        for message in series:
            self._channel.send(message)
        self._channel.flush()
        answers: list[m.Message] = []
        while not answers or not isinstance(answers[-1], m.ReadyForQuery):
            answers.append(await self._channel.receive())
        return answers


@asynccontextmanager
async def backup_client(pageserver: str, *, extended: bool) -> AsyncIterator[BackupClient]:
    """A session of a backup client with a pageserver."""
    loop = asyncio.get_running_loop()
    _, channel = await loop.create_connection(
        lambda: Channel(Sender.CLIENT), pageserver, PAGESERVER_LIBPQ_PORT
    )
    client = BackupClient(channel, extended=extended)
    try:
        await client.start()
        yield client
        channel.send(m.Terminate())
        channel.flush()
    finally:
        await channel.close(within_s=CLOSE_WITHIN_S)
