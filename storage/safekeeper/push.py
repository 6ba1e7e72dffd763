"""START_WAL_PUSH: one proposer's conversation with one timeline."""

from __future__ import annotations

import asyncio
import logging

from storage.consensus.messages import (
    AcceptorMessage,
    ProposerGreeting,
    decode_proposer,
    encode,
)
from storage.errors import ProtocolError
from storage.marks import Mark, reach
from storage.safekeeper.timeline import Timeline
from storage.wire.copying import CopyStream

logger = logging.getLogger(__name__)


class PushSession:
    """Feeds the timeline until the proposer leaves, is silent for too long, or is hung up on."""

    def __init__(self, timeline: Timeline, stream: CopyStream, silence_max_s: float) -> None:
        self._timeline = timeline
        self._stream = stream
        self._silence_max_s = silence_max_s
        self._heard_at = 0.0
        self._deadline: asyncio.Timeout | None = None
        self._reason = ""

    async def run(self) -> None:
        """Returns when the proposer ends the copy. Raises ``ProtocolError``, ``ConnectionError``,
        ``NotReady``: then the proposer has to start over."""
        number = self._timeline.connections.add_pusher(self)
        try:
            async with asyncio.timeout(None) as self._deadline:
                await self._converse()
        except TimeoutError:
            raise ProtocolError(self._reason) from None
        finally:
            self._deadline = None
            self._timeline.connections.remove_pusher(number)

    async def _converse(self) -> None:
        loop = asyncio.get_running_loop()
        self._heard_at = loop.time()
        greeted = False
        while (data := await self._stream.receive()) is not None:
            self._heard_at = loop.time()
            message = decode_proposer(data)
            if not greeted and not isinstance(message, ProposerGreeting):
                raise ProtocolError(f"{type(message).__name__} before the greeting")
            greeted = True
            await self._timeline.handle(self, message)

    def post(self, message: AcceptorMessage) -> None:
        """Answer the proposer; one whose connection is over needs no answer any more."""
        if self._deadline is None:
            return
        try:
            self._stream.post(encode(message))
        except (ConnectionError, ProtocolError) as error:
            logger.debug("answer to a proposer that has gone: %s", error)

    def hang_up(self, reason: str) -> None:
        """End the conversation from outside."""
        if self._deadline is not None and not self._deadline.expired():
            self._reason = reason
            self._deadline.reschedule(asyncio.get_running_loop().time())

    def tick(self) -> None:
        """Hang up on a proposer that has been silent for too long; proposers send heartbeats."""
        silence_s = asyncio.get_running_loop().time() - self._heard_at
        if silence_s > self._silence_max_s:
            reach(Mark.PROPOSER_SILENT)
            self.hang_up(f"the proposer has been silent for {silence_s:.1f} s")
