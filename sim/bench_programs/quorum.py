"""A proposer commits numbers on a majority of three acceptors over lossy datagrams.

Written against a mailbox (``send``, ``recv``); :class:`Mailbox` makes one of a datagram endpoint.
"""

from __future__ import annotations

import asyncio
from collections import deque
from typing import Any, Protocol

ACCEPTORS = ("a0", "a1", "a2")
QUORUM = 2
COMMITS = 50
LATENCY_S = (0.001, 0.020)
LOSS = 0.05
DUPLICATION = 0.05
RETRY_S = 0.06
PORT = 7000


class Box(Protocol):
    """Where messages of one node come in and go out."""

    async def send(self, target: Any, message: bytes) -> None:
        """Send; it may be lost, doubled or overtaken."""
        ...

    async def recv(self) -> tuple[Any, bytes]:
        """The next message and its sender."""
        ...


class Mailbox(asyncio.DatagramProtocol):
    """A box over a datagram endpoint."""

    def __init__(self) -> None:
        self._queue: deque[tuple[Any, bytes]] = deque()
        self._waiter: asyncio.Future[None] | None = None
        self._transport: Any = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """The endpoint is bound."""
        self._transport = transport

    def datagram_received(self, data: bytes, addr: Any) -> None:
        """Queue a message and wake the receiver."""
        self._queue.append((addr, data))
        waiter = self._waiter
        if waiter is not None and not waiter.done():
            waiter.set_result(None)

    async def send(self, target: Any, message: bytes) -> None:
        """Send a datagram."""
        self._transport.sendto(message, target)

    async def recv(self) -> tuple[Any, bytes]:
        """The next message and its sender."""
        while not self._queue:
            self._waiter = asyncio.get_running_loop().create_future()
            try:
                await self._waiter
            finally:
                self._waiter = None
        return self._queue.popleft()


async def bind(name: str) -> Mailbox:
    """A mailbox of the host of this task."""
    loop = asyncio.get_running_loop()
    _, mailbox = await loop.create_datagram_endpoint(Mailbox, local_addr=(name, PORT))
    return mailbox


async def accept(box: Box) -> None:
    """Remember every number and acknowledge it, again if asked again."""
    accepted: dict[int, None] = {}
    while True:
        proposer, message = await box.recv()
        accepted[int(message)] = None
        await box.send(proposer, message)


async def propose(box: Box, acceptors: tuple[Any, ...]) -> int:
    """Commit the numbers in order, each on a majority; returns how many were committed."""
    for number in range(COMMITS):
        message = b"%d" % number
        acknowledged: dict[Any, None] = {}
        while len(acknowledged) < QUORUM:
            for acceptor in acceptors:
                if acceptor not in acknowledged:
                    await box.send(acceptor, message)
            try:
                async with asyncio.timeout(RETRY_S):
                    while len(acknowledged) < QUORUM:
                        sender, answer = await box.recv()
                        if answer == message:
                            acknowledged[sender] = None
            except TimeoutError:
                continue
    return COMMITS
