"""The conversation with one safekeeper: connect, talk, send, and come back when it breaks."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncGenerator, Coroutine
from contextlib import aclosing
from typing import TYPE_CHECKING, Any, Protocol

from storage.consensus.fetch import Donor, connect_options, fetch_wal, host_and_port
from storage.consensus.messages import (
    AcceptorMessage,
    ProposerMessage,
    decode_acceptor,
    encode,
    encode_append_header,
)
from storage.errors import ProtocolError, SeawallError
from storage.log import one_line
from storage.marks import Mark, reach
from storage.tasks import ShutdownRequested, TaskKind, TaskRegistry
from storage.walproposer.options import PROPOSER, ProposerOptions
from storage.walproposer.state import Campaign
from storage.wire.client import connect
from storage.wire.copying import CopyStream

if TYPE_CHECKING:
    import random

logger = logging.getLogger(__name__)

EXPECTED_FAILURES = (OSError, TimeoutError, EOFError, SeawallError)
"""What the network, the peer and its disk do to a conversation as a matter of course."""


class Owner(Protocol):
    """What a link needs of the proposer that owns it."""

    options: ProposerOptions
    registry: TaskRegistry
    entropy: random.Random
    campaign: Campaign

    def link_opened(self, name: str) -> None:
        """A fresh connection stands."""
        ...

    def link_heard(self, name: str, message: AcceptorMessage) -> None:
        """A message arrived."""
        ...

    def donor(self, name: str) -> Donor:
        """How to read WAL back from another safekeeper."""
        ...


class SafekeeperLink:
    """One safekeeper as seen by one campaign; dies with the campaign."""

    def __init__(self, owner: Owner, name: str) -> None:
        self._owner = owner
        self._campaign = owner.campaign
        self._name = name
        self._host, self._port = host_and_port(name)
        self._wake = asyncio.Event()
        self._stream: CopyStream | None = None
        self._sending = False
        self._heard_at = 0.0
        self._deadline: asyncio.Timeout | None = None
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Begin to connect."""
        self._task = self._spawn("link", self._run())

    def stop(self) -> None:
        """Hang up for good."""
        assert self._task is not None, "a link is started before it is stopped"
        self._task.cancel()

    async def wait_stopped(self) -> None:
        """Return when the connection is closed after :meth:`stop`."""
        assert self._task is not None
        await asyncio.wait([self._task])

    def post(self, message: ProposerMessage) -> None:
        """Send a message of the election at once; a lost connection is the receiver's to report."""
        assert self._stream is not None, "elections happen over open connections"
        self._post(encode(message))

    def pump(self) -> None:
        """Send what WAL may be sent now; the sending task takes over where that means waiting."""
        stream = self._stream
        if stream is None or self._sending:
            return
        if stream.is_congested or self._campaign.is_behind(self._name):
            self._wake.set()
            return
        while (request := self._campaign.next_append(self._name)) is not None:
            self._post(encode_append_header(request), request.data)
            if stream.is_congested:
                self._wake.set()
                return

    def announce(self, *, reply_requested: bool = False) -> None:
        """Tell the commit LSN even if there is no WAL to send."""
        if self._stream is None or self._sending:
            return
        request = self._campaign.announcement(self._name, reply_requested=reply_requested)
        if request is not None:
            self._post(encode(request))

    def _post(self, *parts: bytes) -> None:
        assert self._stream is not None
        try:
            self._stream.post(*parts)
        except ConnectionError as error:
            logger.debug("safekeeper %s: %s", self._name, error)

    def tick(self) -> None:
        """Ask for a sign of life; a peer that has given none for too long is hung up on."""
        if self._deadline is None or self._deadline.expired():
            return
        now = asyncio.get_running_loop().time()
        if now - self._heard_at > self._owner.options.peer_silence_max_s:
            reach(Mark.SAFEKEEPER_SILENT)
            self._deadline.reschedule(now)
            return
        self.announce(reply_requested=True)

    def _spawn(self, what: str, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        options = self._owner.options
        return self._owner.registry.spawn(
            TaskKind.PROPOSER,
            f"{what} {self._name}",
            work,
            tenant_id=options.tenant_id,
            timeline_id=options.timeline_id,
        )

    async def _run(self) -> None:
        options = self._owner.options
        delay_s = options.reconnect_min_s
        while not self._campaign.ended:
            self._heard_at = 0.0
            try:
                await self._converse()
            except ShutdownRequested:
                return
            except EXPECTED_FAILURES as error:
                logger.info("safekeeper %s: %s", self._name, one_line(error))
            if self._heard_at:
                delay_s = options.reconnect_min_s
            await asyncio.sleep(delay_s * self._owner.entropy.uniform(0.5, 1.5))
            delay_s = min(delay_s * 2, options.reconnect_max_s)

    async def _converse(self) -> None:
        options = self._owner.options
        connect_as = connect_options(
            options.tenant_id, options.timeline_id, options.peer_silence_max_s, reader=PROPOSER
        )
        client = await connect(self._host, self._port, options=connect_as)
        sender: asyncio.Task[None] | None = None
        try:
            stream = await client.copy_both(_push_command(options.pageserver))
            self._stream = stream
            self._heard_at = asyncio.get_running_loop().time()
            self._owner.link_opened(self._name)
            sender = self._spawn("send", self._send(stream))
            async with asyncio.timeout(None) as self._deadline:
                await self._receive(stream)
        finally:
            self._deadline = self._stream = None
            if sender is not None:
                sender.cancel()
                self._campaign.disconnected(self._name)
            await client.close()

    async def _receive(self, stream: CopyStream) -> None:
        time = asyncio.get_running_loop().time
        while (data := await stream.receive()) is not None:
            self._heard_at = time()
            self._owner.link_heard(self._name, decode_acceptor(data))

    async def _send(self, stream: CopyStream) -> None:
        """Send where that means waiting, until cancelled."""
        try:
            while True:
                await self._wake.wait()
                self._wake.clear()
                self._sending = True
                while self._campaign.is_behind(self._name):
                    await self._catch_up(stream)
                while (request := self._campaign.next_append(self._name)) is not None:
                    await stream.send(encode_append_header(request), request.data)
                self._sending = False
        except (ConnectionError, ProtocolError, ShutdownRequested) as error:
            logger.debug("safekeeper %s: %s", self._name, error)
        finally:
            self._sending = False

    async def _catch_up(self, stream: CopyStream) -> None:
        """Forward WAL that memory does not hold any more from a safekeeper that has it.

        What goes wrong with the donor is not this connection's fault: another try will follow.
        """
        found = self._campaign.donor_for(self._name)
        if found is None:
            await asyncio.sleep(self._owner.options.reconnect_min_s)
            return
        reach(Mark.CATCH_UP_FROM_PEER)
        donor, end_lsn = found
        begin_lsn = self._campaign.peers[self._name].next_lsn
        logger.info("%s needs WAL from %s: reading it back from %s", self._name, begin_lsn, donor)
        async with aclosing(fetch_wal(self._owner.donor(donor), begin_lsn, end_lsn)) as pieces:
            while (data := await self._next_piece(pieces, donor)) is not None:
                request = self._campaign.forward(self._name, data)
                await stream.send(encode_append_header(request), data)

    async def _next_piece(self, pieces: AsyncGenerator[bytes, None], donor: str) -> bytes | None:
        """The donor's next piece; ``None`` when there are no more, or it failed."""
        try:
            return await anext(pieces, None)
        except ShutdownRequested:
            raise
        except EXPECTED_FAILURES as error:
            reach(Mark.CATCH_UP_FAILED)
            logger.info("reading WAL back from %s: %s", donor, one_line(error))
            await asyncio.sleep(self._owner.options.reconnect_min_s)
            return None


def _push_command(pageserver: str | None) -> str:
    return "START_WAL_PUSH" if pageserver is None else f"START_WAL_PUSH (pageserver '{pageserver}')"
