"""A wire server with the commands that the tests of server and client use, on any loop."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

from storage.errors import BadRequest, NotFound, PortError, ProtocolError
from storage.tasks import TaskRegistry
from storage.wire.client import Client, ConnectOptions, connect
from storage.wire.messages import Column, TypeOid
from storage.wire.server import ServerOptions, WireServer, serve
from storage.wire.session import Session
from storage.wire.sql import split_words


@dataclass
class Commands:
    """The handler: every way to answer, and every way to fail."""

    uploads: list[bytes] = field(default_factory=list)
    running: asyncio.Event = field(default_factory=asyncio.Event)
    done: int = 0

    async def __call__(self, session: Session, sql: str) -> None:
        name, *words = split_words(sql)
        command = getattr(self, f"do_{name.lower()}", None)
        if command is None:
            raise BadRequest(f"unknown command {name!r}")
        await command(session, *words)

    async def do_words(self, session: Session, *words: str) -> None:
        """One row per word."""
        await session.rows(["word"], [(word,) for word in words], f"SELECT {len(words)}")

    async def do_typed(self, session: Session) -> None:
        """One row of every type."""
        kinds = (TypeOid.INT4, TypeOid.INT8, TypeOid.BOOL, TypeOid.BYTEA)
        columns = [*(Column(kind.name.lower(), kind) for kind in kinds), "text", "null"]
        await session.rows(columns, [(-1, 1 << 40, True, b"\0\xff", "ä", None)], "SELECT 1")

    async def do_settings(self, session: Session) -> None:
        """What the start-up packet said."""
        rows = [*session.settings.items(), ("user", session.parameters["user"])]
        await session.rows(["name", "value"], rows, "SELECT")

    async def do_slowly(self, session: Session) -> None:
        """A little work."""
        self.running.set()
        self.done += 1
        await asyncio.sleep(0.1)
        await session.complete("SLOWLY")

    async def do_quiet(self, session: Session) -> None:
        """No rows."""
        self.running.set()
        self.done += 1
        await session.complete("QUIET 7")

    async def do_refuse(self, session: Session) -> None:
        """An expected refusal."""
        raise NotFound("timeline 42 does not exist")

    async def do_storage(self, session: Session) -> None:
        """A failing environment."""
        raise PortError("the bucket is away")

    async def do_bug(self, session: Session) -> None:
        """A defect with a cause."""
        try:
            raise KeyError("inner")
        except KeyError as error:
            raise ValueError("outer") from error

    async def do_forget(self, session: Session) -> None:
        """A handler that answers nothing."""

    async def do_notice(self, session: Session) -> None:
        """Something in passing."""
        await session.notice("by the way")
        await session.complete("NOTICE")

    async def do_copyout(self, session: Session, pieces: str, failing_at: str = "-1") -> None:
        """So many pieces of 1,000 bytes; an error before the one named."""
        out = await session.copy_out()
        for number in range(int(pieces)):
            if number == int(failing_at):
                raise ValueError("page 7 is corrupt")
            await out.send(b"%03d" % number, b"x" * 997)
        await out.done(f"COPY {pieces}")

    async def do_copyin(self, session: Session, refuse_at: str = "-1") -> None:
        """Keep what is uploaded; refuse at the piece named."""
        received = []
        async for data in session.copy_in():
            if len(received) == int(refuse_at):
                raise BadRequest("that is no tar")
            received.append(data)
        self.uploads.append(b"".join(received))
        await session.complete(f"COPY {len(received)}")

    async def do_echo(self, session: Session, failing_at: str = "-1") -> None:
        """Send back what comes; an error instead of the message named."""
        stream = await session.copy_both()
        self.running.set()
        number = 0
        while (data := await stream.receive()) is not None:
            if number == int(failing_at):
                raise BadRequest("message refused")
            await stream.send(data)
            number += 1
        await stream.done()

    async def do_count(self, session: Session, total: str) -> None:
        """Stream so many numbers, then end the copy."""
        stream = await session.copy_both()
        for number in range(int(total)):
            await stream.send(str(number).encode())
        await stream.done()

    async def do_flood(self, session: Session) -> None:
        """Stream until the end of the world."""
        out = await session.copy_out()
        self.running.set()
        while True:
            await out.send(b"x" * 8192)

    async def do_stall(self, session: Session) -> None:
        """Open a stream and read nothing of it."""
        await session.copy_both()
        await self.do_wait(session)

    async def do_violate(self, session: Session) -> None:
        """Find the protocol broken."""
        raise ProtocolError("that was no consensus message")

    async def do_wait(self, session: Session) -> None:
        """Wait for something that never comes."""
        self.running.set()
        await asyncio.get_running_loop().create_future()


@dataclass
class World:
    """A server and how to reach it."""

    host: str
    port: int
    server: WireServer
    registry: TaskRegistry
    commands: Commands
    loop: asyncio.AbstractEventLoop

    async def connect(self, **options: object) -> Client:
        chosen = ConnectOptions(**options)  # type: ignore[arg-type]
        return await connect(self.host, self.port, options=chosen)

    async def raw(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        """A bare connection, nothing sent."""
        return await asyncio.open_connection(self.host, self.port)


@asynccontextmanager
async def wire_world(
    options: ServerOptions | None = None,
    *,
    host: str = "sk0",
    port: int = 5454,
    commands: Commands | None = None,
) -> AsyncIterator[World]:
    """Serve :class:`Commands`; nothing may be left in the registry afterwards."""
    registry = TaskRegistry("sk0")
    commands = commands or Commands()
    server = await serve(host, port, commands, registry, options=options)
    actual = port or server.port
    loop = asyncio.get_running_loop()
    yield World(host, actual, server, registry, commands, loop)
    await server.close()
    assert registry.snapshot() == []
