"""The three-way handshake of a connection, with every way it can fail to happen."""

from __future__ import annotations

import asyncio
import errno
from contextvars import copy_context
from typing import TYPE_CHECKING

from sim.handles import Parcel
from sim.node import Incarnation
from sim.pipe import Signal
from sim.server import Listener, ProtocolFactory
from sim.transport import Address, StreamTransport

if TYPE_CHECKING:
    from sim.loop import SimLoop

CONNECT_TIMEOUT_S = 127.0
"""How long an unanswered connection attempt lasts: Linux's default ``tcp_syn_retries``."""
_PACKET = 40


class Dial:
    """One attempt to connect ``source`` to ``target``; lives until it is answered or given up."""

    def __init__(self, loop: SimLoop, source: Address, target: Address) -> None:
        self._loop = loop
        self._caller: Incarnation = loop.nodes.owner()
        self._source = source
        self._target = target
        self._answer: asyncio.Future[Listener] = loop.create_future()

    async def connect(
        self, factory: ProtocolFactory
    ) -> tuple[StreamTransport, asyncio.BaseProtocol]:
        """Shake hands, build the protocol and tell it.

        Raises ``ConnectionRefusedError`` or ``TimeoutError``.
        """
        environment = self._loop.environment
        limit = Parcel(environment, self._time_out)
        environment.ring_at(environment.now + CONNECT_TIMEOUT_S, limit)
        self._loop.network.link(self._source[0], self._target[0]).post(_PACKET, self._arrive)
        try:
            listener = await self._answer
        finally:
            limit.cancel()
        protocol = factory()
        transport = self._establish(listener)
        transport.set_protocol(protocol)
        transport.outgoing.signal(Signal.OPEN)
        protocol.connection_made(transport)
        return transport, protocol

    def _arrive(self) -> None:
        """The request reached the target's host."""
        host = self._loop.network.host(self._target[0])
        if not host.up:
            return
        listener = host.listeners.get(self._target[1])
        back = self._loop.network.link(self._target[0], self._source[0])
        if listener is None:
            back.post(_PACKET, self._refuse)
        else:
            back.post(_PACKET, lambda: self._accept(listener))

    def _accept(self, listener: Listener) -> None:
        if self._caller.alive and not self._answer.done():
            self._answer.set_result(listener)

    def _refuse(self) -> None:
        where = f"{self._target[0]}:{self._target[1]}"
        self._fail(ConnectionRefusedError(errno.ECONNREFUSED, f"nobody listens on {where}"))

    def _time_out(self) -> None:
        where = f"{self._target[0]}:{self._target[1]}"
        self._fail(TimeoutError(errno.ETIMEDOUT, f"no answer from {where}"))

    def _fail(self, error: OSError) -> None:
        if not self._answer.done():
            self._answer.set_exception(error)

    def _establish(self, listener: Listener) -> StreamTransport:
        loop, network = self._loop, self._loop.network
        names = (self._source, self._target)
        near = StreamTransport(loop, self._caller, copy_context(), names)
        far = StreamTransport(loop, listener.owner, listener.context.copy(), (names[1], names[0]))
        forth, back = network.pipes(*names)
        near.join(forth, back)
        far.join(back, forth)
        forth.connect(near, far)
        back.connect(far, near)
        far.listener = listener
        network.established(near, far)
        if not listener.owner.alive:
            far.gone = far.died = True
        return near
