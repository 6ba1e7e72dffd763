"""Toy roles: nodes that need nothing of the storage system."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import random
import subprocess
import sys
from collections.abc import AsyncIterator, Mapping
from typing import Any, cast

from real.node_main import NodePlan
from storage.events import emit
from storage.node import NodeContext, NodeMain
from storage.ports import Ports

PORT = 7000
logger = logging.getLogger("toy")


@contextlib.asynccontextmanager
async def no_ports(plan: NodePlan, entropy: random.Random) -> AsyncIterator[Ports]:
    nothing = cast(Any, None)
    yield Ports(nothing, nothing, nothing, nothing, entropy)


async def echo(context: NodeContext) -> None:
    """Echoes lines; `peer` dials another node; `fail`, `stderr`, `exit` misbehave."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(ConnectionError):
            while line := await reader.readline():
                emit("echo", bytes=len(line))
                writer.write(context.name.encode() + b" " + line)
                await writer.drain()
        writer.close()

    server = await asyncio.start_server(serve, context.name, PORT)
    logger.info("serving")
    context.ready.set()
    await context.stopping.wait()
    server.close()


async def bulk(context: NodeContext) -> None:
    """Swallows bytes, and answers each whole MiB with one byte."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        got = 0
        while data := await reader.read(1 << 18):
            got += len(data)
            while got >= 1 << 20:
                got -= 1 << 20
                writer.write(b".")
        writer.close()

    server = await asyncio.start_server(serve, context.name, PORT)
    context.ready.set()
    await context.stopping.wait()
    server.close()


async def crash(context: NodeContext) -> None:
    raise ValueError(f"no such luck, {context.options['who']}")


async def crash_later(context: NodeContext) -> None:
    context.ready.set()
    logger.warning("it will not last\nlong")
    await asyncio.sleep(0.01)
    raise RuntimeError("lost its footing")


async def leave(context: NodeContext) -> None:
    context.ready.set()


async def never_ready(context: NodeContext) -> None:
    await context.stopping.wait()


async def stubborn(context: NodeContext) -> None:
    context.ready.set()
    await asyncio.Event().wait()


async def parent(context: NodeContext) -> None:
    """Has a child process that would outlive it."""
    code = "import time; time.sleep(600)"
    subprocess.Popen([sys.executable, "-c", code])  # noqa: ASYNC220 - never waited for
    context.ready.set()
    await asyncio.Event().wait()


async def leaker(context: NodeContext) -> None:
    context.ready.set()
    _ = asyncio.get_running_loop().create_task(asyncio.Event().wait(), name="forgotten")
    await context.stopping.wait()


ROLES: Mapping[str, NodeMain] = {
    "echo": echo,
    "bulk": bulk,
    "crash": crash,
    "crash_later": crash_later,
    "leave": leave,
    "never_ready": never_ready,
    "stubborn": stubborn,
    "parent": parent,
    "leaker": leaker,
}
