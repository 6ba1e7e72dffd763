"""Runs an asyncio server in a thread, so that stock blocking clients can be driven by a test."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractAsyncContextManager, contextmanager
from typing import TypeVar

T = TypeVar("T")


@contextmanager
def in_thread(world: Callable[[], AbstractAsyncContextManager[T]]) -> Iterator[T]:
    """Enter the asynchronous context in a loop of its own; yields what it yields."""
    started: list[T] = []
    ready = threading.Event()
    failures: list[BaseException] = []
    stop: list[Callable[[], object]] = []

    async def main() -> None:
        stopping = asyncio.Event()
        loop = asyncio.get_running_loop()
        stop.append(lambda: loop.call_soon_threadsafe(stopping.set))
        async with world() as value:
            started.append(value)
            ready.set()
            await stopping.wait()

    def body() -> None:
        try:
            asyncio.run(main())
        except BaseException as error:
            failures.append(error)
        finally:
            ready.set()

    thread = threading.Thread(target=body, name="server")
    thread.start()
    assert ready.wait(20), "the server does not start"
    try:
        if started:
            yield started[0]
    finally:
        if stop:
            stop[0]()
        thread.join(20)
    assert not thread.is_alive(), "the server does not stop"
    if failures:
        raise failures[0]
