"""A page service whose behaviour a test switches: answer, stay silent, refuse, hang up."""

from __future__ import annotations

import enum
import io
import tarfile
from collections.abc import Awaitable, Callable

from storage.errors import NotReady
from storage.lsn import Lsn
from storage.pageserver.page_protocol import (
    Count,
    Exists,
    GetPage,
    Page,
    PageRequest,
    Refused,
    parse_request,
)
from storage.tasks import TaskRegistry
from storage.wire.server import WireServer, serve
from storage.wire.session import Session

PORT = 6400


class Mode(enum.Enum):
    """What happens to a page request."""

    ANSWER = "answer"
    SILENT = "silent"
    REFUSE = "refuse"
    HANG_UP = "hang up"


class ScriptedPageserver:
    """``fetch(block, lsn)`` yields pages; ``sqlstate`` is what refusals carry."""

    def __init__(
        self,
        name: str,
        fetch: Callable[[int, Lsn], Awaitable[bytes]],
        blocks: Callable[[], int] = lambda: 0,
    ) -> None:
        self.name = name
        self.mode = Mode.ANSWER
        self.sqlstate = "57P03"
        self.requests: list[PageRequest] = []
        self.sessions = 0
        self.prev_lsn = "none"
        self.base_refusals = 0
        self.lease_s = 9.0
        self.lease_refusal: Exception | None = None
        self.leases: list[str] = []
        self._fetch = fetch
        self._blocks = blocks
        self.registry = TaskRegistry(name)

    @property
    def address(self) -> str:
        return f"{self.name}:{PORT}"

    async def start(self) -> WireServer:
        return await serve(self.name, PORT, self.handle, self.registry)

    async def handle(self, session: Session, sql: str) -> None:
        command, *_, last = sql.split()
        self.sessions += 1
        if command == "basebackup":
            await self._basebackup(session, last)
            return
        if command == "lease":
            self.leases.append(last)
            if self.lease_refusal is not None:
                raise self.lease_refusal
            await session.rows(("valid_for_s",), [(f"{self.lease_s:.6f}",)], "LEASE")
            return
        stream = await session.copy_both()
        while (message := await stream.receive()) is not None:
            request = parse_request(message)
            self.requests.append(request)
            if self.mode is Mode.HANG_UP:
                raise NotReady("the tenant leaves")
            if self.mode is Mode.REFUSE:
                refusal = Refused(request.request_id, self.sqlstate, "no page for you")
                await stream.send(*refusal.parts())
            elif self.mode is Mode.ANSWER:
                answer = await self._answer(request)
                await stream.send(*answer.parts())
        await stream.done()

    async def _answer(self, request: PageRequest) -> Page | Count:
        number, lsn = request.request_id, request.not_modified_since
        if isinstance(request, GetPage):
            return Page(number, lsn, await self._fetch(request.block, lsn))
        blocks = self._blocks()
        return Count(number, lsn, int(blocks > 0) if isinstance(request, Exists) else blocks)

    async def _basebackup(self, session: Session, lsn: str) -> None:
        if self.base_refusals:
            self.base_refusals -= 1
            raise NotReady(f"{lsn} is not there yet")
        text = f"LSN: {lsn}\nPREV LSN: {self.prev_lsn}\n".encode()
        out = io.BytesIO()
        with tarfile.open(fileobj=out, mode="w") as tar:
            member = tarfile.TarInfo("seawall.signal")
            member.size = len(text)
            tar.addfile(member, io.BytesIO(text))
        copy = await session.copy_out()
        await copy.send(out.getvalue())
        await copy.done("BASEBACKUP")
