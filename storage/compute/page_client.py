"""Pages from the pageserver: one pipelined ``pagestream`` that survives losing its server.

Requests go out without waiting for each other. When the connection breaks or stalls, or the compute
is told to move, what is unanswered is asked again on the next one. A refusal that may pass (the
tenant is attaching, or just left) is retried; only the caller's patience, ``read_timeout_s``,
ends that.
"""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import logging
from dataclasses import dataclass
from typing import TYPE_CHECKING

from storage.compute.options import PageServiceOptions, host_and_port
from storage.errors import CorruptData, LsnOutOfScope, NotReady, ProtocolError, SeawallError
from storage.kv.record import KV_DATABASE, KV_FORK, KV_RELATION, KV_SPACE
from storage.lsn import Lsn
from storage.marks import Mark, reach
from storage.pageserver.keys import Relation
from storage.pageserver.page_protocol import (
    LATEST_LSN,
    Count,
    Exists,
    GetPage,
    Page,
    PageRequest,
    PageResponse,
    Refused,
    RelationBlocks,
    parse_response,
)
from storage.tasks import ShutdownRequested, TaskKind, TaskRegistry, interruptible
from storage.wire.client import ConnectOptions, connect
from storage.wire.copying import CopyStream

if TYPE_CHECKING:
    import random

logger = logging.getLogger(__name__)

KV = Relation(KV_SPACE, KV_DATABASE, KV_RELATION, KV_FORK)
RETRY_FIRST_S = 0.05
RETRY_MAX_S = 2.0
STALL_TOLERANCE_S = 0.001
_FINAL = {LsnOutOfScope.sqlstate: LsnOutOfScope, "XX001": CorruptData, "XX002": CorruptData}


@dataclass(slots=True)
class Pending:
    """A request without an answer; ``asked_at_s``: when the present connection sent it."""

    request: PageRequest
    answer: asyncio.Future[PageResponse]
    asked_at_s: float | None = None


class PageClient:
    """Reads of the key-value relation at the pageserver that ``address`` names."""

    def __init__(
        self, options: PageServiceOptions, registry: TaskRegistry, entropy: random.Random
    ) -> None:
        self.address = options.pageserver
        self._options = options
        self._registry = registry
        self._entropy = entropy
        self._loop = asyncio.get_running_loop()
        self._pending: dict[int, Pending] = {}
        self._unsent: list[Pending] = []
        self._requests = 0
        self._wanted = asyncio.Event()
        self._moved = asyncio.Event()
        self._conversation: asyncio.Task[None] | None = None
        self._answers = 0
        self._heard_at_s = 0.0
        self._stall_check: asyncio.TimerHandle | None = None
        self._last_failure = "nothing was tried yet"

    def start(self) -> None:
        """Start the task that keeps the connection."""
        self._registry.spawn(TaskKind.ENDPOINT, "page client", self._run(), critical=True)

    def move(self, address: str) -> None:
        """Ask another pageserver from now on, also what is unanswered."""
        host_and_port(address)
        if address != self.address:
            logger.info("pages come from %s now, no longer from %s", address, self.address)
            self.address = address
            self._moved.set()
            self._hang_up(f"moved to {address}")

    async def page(self, block: int, hint_lsn: Lsn) -> bytes:
        """The newest version of a page; nothing changed it after ``hint_lsn``.

        Raises ``NotReady`` when no pageserver answers in time.
        """
        return await self._page(block, LATEST_LSN, hint_lsn)

    async def page_at(self, block: int, lsn: Lsn) -> bytes:
        """A page as of ``lsn``; ``LsnOutOfScope`` when that is no longer kept."""
        return await self._page(block, lsn, lsn)

    async def blocks(self, request_lsn: Lsn, hint_lsn: Lsn) -> int:
        """Length of the relation in blocks as of ``request_lsn``; 0 while it does not exist."""
        exists = await self._ask(
            Exists(KV, request_lsn=request_lsn, not_modified_since=hint_lsn), "whether kv exists"
        )
        if isinstance(exists, Count) and exists.value == 0:
            return 0
        count = await self._ask(
            RelationBlocks(KV, request_lsn=request_lsn, not_modified_since=hint_lsn), "size of kv"
        )
        if not isinstance(count, Count):
            raise ProtocolError(f"{self.address} answers a size with {type(count).__name__}")
        return count.value

    async def _page(self, block: int, request_lsn: Lsn, hint_lsn: Lsn) -> bytes:
        request = GetPage(KV, block, request_lsn=request_lsn, not_modified_since=hint_lsn)
        answer = await self._ask(request, f"block {block}")
        if not isinstance(answer, Page):
            raise ProtocolError(f"{self.address} answers a page with {type(answer).__name__}")
        return answer.data

    async def _ask(self, request: PageRequest, what: str) -> PageResponse:
        """Ask until there is an answer other than a passing refusal, or patience ends."""
        delay_s = RETRY_FIRST_S
        try:
            async with asyncio.timeout(self._options.read_timeout_s):
                while True:
                    answer = await self._ask_once(request)
                    if not isinstance(answer, Refused):
                        return answer
                    final = _FINAL.get(answer.sqlstate)
                    if final is not None:
                        raise final(f"{self.address}, {what}: {answer.message}")
                    reach(Mark.PAGE_REFUSED)
                    self._last_failure = f"{self.address}: {answer.message}"
                    await asyncio.sleep(self._jittered(delay_s))
                    delay_s = min(2 * delay_s, RETRY_MAX_S)
        except TimeoutError as error:
            raise NotReady(
                f"no pageserver answered {what} as of {request.not_modified_since} within "
                f"{self._options.read_timeout_s:g} s; last failure: {self._last_failure}"
            ) from error

    async def _ask_once(self, request: PageRequest) -> PageResponse:
        self._requests += 1
        number = self._requests
        numbered = dataclasses.replace(request, request_id=number)
        pending = Pending(numbered, self._loop.create_future())
        self._pending[number] = pending
        self._unsent.append(pending)
        self._wanted.set()
        try:
            return await pending.answer
        finally:
            del self._pending[number]

    def _jittered(self, delay_s: float) -> float:
        return delay_s * (0.5 + 0.5 * self._entropy.random())

    async def _run(self) -> None:
        """Keep a connection while there is anything to ask."""
        delay_s = RETRY_FIRST_S
        async with interruptible():
            while True:
                await self._wanted.wait()
                self._moved.clear()
                before = self._answers
                self._conversation = self._registry.spawn(
                    TaskKind.ENDPOINT, f"pages from {self.address}", self._converse()
                )
                await asyncio.wait((self._conversation,))
                self._ask_again()
                if self._answers != before or self._moved.is_set():
                    delay_s = RETRY_FIRST_S
                await self._pause(self._jittered(delay_s))
                delay_s = min(2 * delay_s, RETRY_MAX_S)

    async def _pause(self, delay_s: float) -> None:
        """Wait before the next connection, unless the address changed."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(delay_s):
                await self._moved.wait()

    def _ask_again(self) -> None:
        """After a connection: everything unanswered is to be sent on the next one."""
        self._unsent = list(self._pending.values())
        for pending in self._unsent:
            pending.asked_at_s = None
        if self._unsent:
            reach(Mark.PAGES_ASKED_AGAIN)
            self._wanted.set()
        else:
            self._wanted.clear()

    def _hang_up(self, why: str) -> None:
        if self._conversation is not None:
            self._last_failure = f"{self.address}: {why}"
            self._conversation.cancel(why)

    async def _converse(self) -> None:
        """One connection, until it breaks or is given up."""
        address = self.address
        host, port = host_and_port(address)
        try:
            async with interruptible():
                client = await connect(
                    host, port, options=ConnectOptions(timeout_s=self._options.stall_s)
                )
                try:
                    tenant_id, timeline_id = self._options.timeline
                    stream = await client.copy_both(f"pagestream {tenant_id} {timeline_id}")
                    await self._exchange(stream)
                finally:
                    await client.close()
        except (OSError, EOFError, SeawallError) as error:
            if isinstance(error, ShutdownRequested):
                raise
            self._last_failure = f"{address}: {str(error) or type(error).__name__}"
            logger.info("no pages from %s: %s", address, self._last_failure)

    async def _exchange(self, stream: CopyStream) -> None:
        sender = self._registry.spawn(TaskKind.ENDPOINT, "page requests", self._send_all(stream))
        try:
            while (message := await stream.receive()) is not None:
                self._answers += 1
                self._heard_at_s = self._loop.time()
                answer = parse_response(message)
                pending = self._pending.get(answer.request_id)
                if pending is not None and not pending.answer.done():
                    pending.answer.set_result(answer)
            raise ConnectionResetError("the pageserver ended the stream")
        finally:
            sender.cancel()

    async def _send_all(self, stream: CopyStream) -> None:
        while True:
            await self._wanted.wait()
            self._wanted.clear()
            unsent, self._unsent = self._unsent, []
            try:
                for pending in unsent:
                    pending.asked_at_s = self._loop.time()
                    await stream.send(pending.request.encode())
            except (OSError, ShutdownRequested):
                return  # The receiver meets the same end and reports it.
            self._expect_answer_within(self._options.stall_s)

    def _expect_answer_within(self, delay_s: float) -> None:
        if self._stall_check is None:
            self._stall_check = self._loop.call_later(delay_s, self._check_stall)

    def _check_stall(self) -> None:
        """Give the connection up if the pageserver owes an answer and has long been silent."""
        self._stall_check = None
        asked_s = [p.asked_at_s for p in self._pending.values() if p.asked_at_s is not None]
        if not asked_s:
            return
        silent_s = self._loop.time() - max(min(asked_s), self._heard_at_s)
        remaining_s = self._options.stall_s - silent_s
        if remaining_s <= STALL_TOLERANCE_S:
            reach(Mark.PAGESERVER_STALLED)
            self._hang_up(f"silent for {silent_s:.1f} s")
        else:
            self._expect_answer_within(remaining_s)
