"""A proxy between the nodes of one run and an S3 server, which makes single requests go wrong.

Every node has a port of its own here, so that one node alone can lose its credentials. Requests
are taken apart only as far as HTTP goes and handed on as they came: the signature stays valid. It
lives in the harness's loop, for it serves one run. Twin of ``sim/service.py``.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
import socket
from collections import Counter
from collections.abc import Coroutine
from dataclasses import dataclass, replace
from typing import Any

import h11

from harness.fault_ports import NO_FAULTS, Fate

LOOPBACK = "127.0.0.1"
READ_BYTES = 65536
SILENCE_S_MAX = 3.0
"""After so long the proxy hangs up on a client whose answer is lost, as load balancers do."""
LATE_AFTER_S = SILENCE_S_MAX

Headers = tuple[tuple[bytes, bytes], ...]


@dataclass(frozen=True, slots=True)
class Request:
    """One HTTP request, whole."""

    method: bytes
    target: bytes
    headers: Headers
    body: bytes

    @property
    def lists(self) -> bool:
        """Whether it asks for a listing."""
        return self.method == b"GET" and b"list-type=2" in self.target.partition(b"?")[2]

    def forged(self) -> Request:
        """The same with a signature that is wrong."""
        headers = tuple(
            (name, value[:-1] + (b"1" if value.endswith(b"0") else b"0"))
            if name.lower() == b"authorization"
            else (name, value)
            for name, value in self.headers
        )
        return replace(self, headers=headers)


@dataclass(frozen=True, slots=True)
class Answer:
    """One HTTP answer, whole."""

    status: int
    headers: Headers
    body: bytes


def _error(status: int, code: str) -> Answer:
    body = f'<?xml version="1.0"?><Error><Code>{code}</Code><Message>{code}</Message></Error>'
    return Answer(status, ((b"Content-Type", b"application/xml"),), body.encode())


class S3Proxy:
    """Serves every node of a run; ``faults`` and the other attributes hold for requests to come."""

    def __init__(self, server: tuple[str, int], generator: random.Random) -> None:
        self.faults = NO_FAULTS
        self.delete_delay_s = 0.0
        self.denied: dict[str, None] = {}
        self.listings: dict[bytes, Answer] | None = None
        """Answers that listings are frozen to, by what was asked; ``None``: they are not."""
        self.effects: Counter[str] = Counter()
        self._server = server
        self._generator = generator
        self._sockets: list[socket.socket] = []
        self._tasks: dict[asyncio.Task[None], None] = {}

    def listen(self, node: str) -> tuple[str, int]:
        """Open a port for one node; the address."""
        listener = socket.create_server((LOOPBACK, 0), backlog=128)
        listener.setblocking(False)
        self._sockets.append(listener)
        self._spawn(self._accept(node, listener))
        return LOOPBACK, int(listener.getsockname()[1])

    async def close(self) -> None:
        """Stop serving; requests under way are cut off."""
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        for listener in self._sockets:
            listener.close()

    def _spawn(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks[task] = None
        task.add_done_callback(self._tasks.pop)

    async def _accept(self, node: str, listener: socket.socket) -> None:
        loop = asyncio.get_running_loop()
        while True:
            connection, _ = await loop.sock_accept(listener)
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            self._spawn(self._serve(node, connection))

    async def _serve(self, node: str, connection: socket.socket) -> None:
        """Answer one request after the other on one connection."""
        reader, writer = await asyncio.open_connection(sock=connection)
        protocol = h11.Connection(h11.SERVER)
        try:
            while (request := await _read_request(protocol, reader)) is not None:
                answer = await self._answer(node, request)
                if answer is None:
                    await _hear_nothing(reader)
                    return
                writer.write(_encode(protocol, request, answer))
                await writer.drain()
                if protocol.our_state is not h11.DONE or protocol.their_state is not h11.DONE:
                    return
                protocol.start_next_cycle()
        except (OSError, EOFError, h11.RemoteProtocolError):
            return  # Either side hung up; the client sees it as such.
        finally:
            writer.transport.abort()

    async def _answer(self, node: str, request: Request) -> Answer | None:
        """What a node is told; ``None``: nothing ever."""
        drawn = self.faults.draw(self._generator)
        await self._dawdle(request, drawn.slow_s)
        if node in self.denied:
            self.effects["calls_denied"] += 1
            return await self._forward(request.forged())
        match drawn.fate:
            case Fate.REFUSED:
                self.effects["calls_failed"] += 1
                return _error(503, "SlowDown")
            case Fate.FAILED:
                self.effects["errors_answered"] += 1
                if self._generator.random() < 0.5:
                    await self._forward(request)
                return _error(500, "InternalError")
            case Fate.LOST_REQUEST:
                self.effects["requests_lost"] += 1
                return None
            case Fate.LOST_REPLY:
                self.effects["replies_lost"] += 1
                await self._forward(request)
                return None
            case Fate.LATE:
                self.effects["calls_postponed"] += 1
                self._spawn(self._forward_late(request, drawn.late_s))
                return None
        return await self._list(request) if request.lists else await self._forward(request)

    async def _dawdle(self, request: Request, slow_s: float) -> None:
        if slow_s:
            self.effects["calls_slowed"] += 1
        if request.method == b"DELETE" and self.delete_delay_s:
            self.effects["deletes_slowed"] += 1
            slow_s += self.delete_delay_s
        if slow_s:
            await asyncio.sleep(slow_s)

    async def _list(self, request: Request) -> Answer:
        chance = self.faults.failing_list
        if chance and self._generator.random() < chance:
            self.effects["listings_failed"] += 1
            return _error(500, "InternalError")
        answer = await self._forward(request)
        if self.listings is None or answer.status != 200:
            return answer
        told = self.listings.setdefault(request.target, answer)
        self.effects["listings_stale"] += told.body != answer.body
        return told

    async def _forward_late(self, request: Request, late_s: float) -> None:
        await asyncio.sleep(LATE_AFTER_S + late_s)
        with contextlib.suppress(OSError, EOFError, h11.RemoteProtocolError):
            await self._forward(request)
            self.effects["late_effects"] += 1

    async def _forward(self, request: Request) -> Answer:
        """Ask the server."""
        reader, writer = await asyncio.open_connection(*self._server)
        try:
            protocol = h11.Connection(h11.CLIENT)
            head = h11.Request(
                method=request.method, target=request.target, headers=list(request.headers)
            )
            writer.write(protocol.send(head) or b"")
            if request.body:
                writer.write(protocol.send(h11.Data(request.body)) or b"")
            writer.write(protocol.send(h11.EndOfMessage()) or b"")
            await writer.drain()
            return await _read_answer(protocol, reader)
        finally:
            writer.close()


async def _next_event(protocol: h11.Connection, reader: asyncio.StreamReader) -> h11.Event:
    while True:
        event = protocol.next_event()
        if event is h11.NEED_DATA:
            protocol.receive_data(await reader.read(READ_BYTES))
        elif event is h11.PAUSED or isinstance(event, h11.ConnectionClosed):
            raise EOFError("the connection ended")
        else:
            assert isinstance(event, h11.Event), f"h11 returned {event!r}"
            return event


async def _read_body(protocol: h11.Connection, reader: asyncio.StreamReader) -> bytes:
    pieces: list[bytes] = []
    while isinstance(event := await _next_event(protocol, reader), h11.Data):
        pieces.append(bytes(event.data))
    return b"".join(pieces)


async def _read_request(protocol: h11.Connection, reader: asyncio.StreamReader) -> Request | None:
    try:
        head = await _next_event(protocol, reader)
    except EOFError:
        return None
    assert isinstance(head, h11.Request), f"a server reads requests, not {head!r}"
    headers = tuple(head.headers.raw_items())
    return Request(head.method, head.target, headers, await _read_body(protocol, reader))


async def _read_answer(protocol: h11.Connection, reader: asyncio.StreamReader) -> Answer:
    head = await _next_event(protocol, reader)
    while isinstance(head, h11.InformationalResponse):
        head = await _next_event(protocol, reader)
    assert isinstance(head, h11.Response), f"a client reads answers, not {head!r}"
    headers = tuple(
        (name, value)
        for name, value in head.headers.raw_items()
        if name.lower() not in (b"connection", b"transfer-encoding")
    )
    return Answer(head.status_code, headers, await _read_body(protocol, reader))


def _encode(protocol: h11.Connection, request: Request, answer: Answer) -> bytes:
    headers = list(answer.headers)
    if not any(name.lower() == b"content-length" for name, _ in headers):
        headers.append((b"Content-Length", str(len(answer.body)).encode()))
    pieces = [protocol.send(h11.Response(status_code=answer.status, headers=headers))]
    if answer.body and request.method != b"HEAD":
        pieces.append(protocol.send(h11.Data(answer.body)))
    pieces.append(protocol.send(h11.EndOfMessage()))
    return b"".join(piece for piece in pieces if piece)


async def _hear_nothing(reader: asyncio.StreamReader) -> None:
    """Wait until the client gives up, or for so long as a client may be kept waiting."""
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(SILENCE_S_MAX):
            while await reader.read(READ_BYTES):
                pass
