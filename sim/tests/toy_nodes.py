"""Node mains that behave and misbehave, and a stage for them."""

from __future__ import annotations

import asyncio
import logging

import sim
from harness.backend import NodeSpec
from sim.backend import SimBackend
from storage.events import emit

log = logging.getLogger("storage.test")


async def counter(context):
    """Counts its starts on disk, answers with the count, and says goodbye when asked to stop."""
    file = await context.ports.disk.open("starts", create=True)
    starts = await file.size() + 1
    await file.pwrite(starts - 1, b"x")
    if context.options.get("durable", True):
        await file.fsync()
        await context.ports.disk.sync_dir("")

    async def answer(reader, writer):
        writer.write(b"%d" % starts)
        writer.close()

    server = await asyncio.start_server(answer, context.name, 1)
    emit("counted", starts=starts)
    log.info("start %d", starts)
    context.ready.set()
    await context.stopping.wait()
    server.close()
    log.info("goodbye")


async def crasher(context):
    await asyncio.sleep(1)
    raise ValueError("broken on purpose")


async def quitter(context):
    context.ready.set()


async def deaf(context):
    context.ready.set()
    await asyncio.sleep(1e9)


async def careless(context):
    """Its background task fails; nobody awaits it."""

    async def fail():
        raise ValueError("in the background")

    task = asyncio.create_task(fail())
    context.ready.set()
    await context.stopping.wait()
    assert task.done()


async def cyclic(context):
    """Its background task fails, and its last reference is a cycle."""

    class Owner:
        async def fail(self):
            raise ValueError("in a cycle")

        def __init__(self):
            self.task = asyncio.create_task(self.fail())

    Owner()
    context.ready.set()
    await context.stopping.wait()


async def leaky(context):
    """Forgets one task that never ends, one that ends just in time, and a listener."""
    await asyncio.start_server(lambda reader, writer: None, context.name, 1)
    forgotten = asyncio.create_task(asyncio.Event().wait(), name="forgotten")
    closing = asyncio.create_task(asyncio.sleep(3.4), name="closing")
    context.ready.set()
    await context.stopping.wait()
    assert not forgotten.done() and not closing.done()


async def suicidal(context):
    context.ready.set()
    await asyncio.sleep(1)
    try:
        await context.options["kill"]()
    finally:
        log.error("ran after its death")


MAINS = {
    main.__name__: main
    for main in (counter, crasher, quitter, deaf, careless, cyclic, leaky, suicidal)
}


def play(story, seed=0):
    loop = sim.SimLoop(seed)
    backend = SimBackend(loop, MAINS)

    async def main():
        try:
            return await story(backend)
        finally:
            await backend.close()

    result = sim.run_on(loop, main)
    return result, backend


async def start(backend, name="n", role="counter", **options):
    await backend.spawn(NodeSpec(name, role, options))
    await backend.wait_ready(name, within_s=10)


async def ask(name="n"):
    reader, writer = await asyncio.open_connection(name, 1)
    answer = await reader.read()
    writer.close()
    return answer
