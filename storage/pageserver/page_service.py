"""The page service: what clients say to a pageserver over the Postgres protocol.

``pagestream`` is the fast way for computes; the other commands are one-offs, some made for people
with psql. A refusal inside a page stream is an answer of the stream, which goes on.
"""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence

from storage.errors import BadRequest, CorruptData, NotFound
from storage.failpoints import Failpoint, failpoint
from storage.ids import TenantId, TimelineId
from storage.log import log_failure
from storage.lsn import Lsn
from storage.pageserver import page_protocol as protocol
from storage.pageserver.basebackup import base_backup
from storage.pageserver.creation import NewTimeline, import_timeline
from storage.pageserver.environment import Environment
from storage.pageserver.keys import BLOCK_SIZE, Relation, Slru
from storage.pageserver.leasing import lease_lsn
from storage.pageserver.modification import Modification
from storage.pageserver.read_view import ReadPoint, ReadView, read_view
from storage.pageserver.states import State
from storage.pageserver.tenants import Tenants
from storage.pageserver.timeline import Timeline
from storage.tasks import ShutdownRequested, interruptible
from storage.wire import messages as wire
from storage.wire.conversation import message_of, sqlstate_of
from storage.wire.session import Session
from storage.wire.sql import split_words

logger = logging.getLogger(__name__)

Arguments = Sequence[str]
Command = Callable[[Session, Arguments], Awaitable[None]]

SQLSTATE_DATA_CORRUPTED = "XX001"
LEASE_COLUMNS = ("valid_for_s",)
STATUS_COLUMNS = (
    "tenant",
    "timeline",
    "state",
    "last_record_lsn",
    "disk_consistent_lsn",
    "remote_consistent_lsn",
)


class PageService:
    """Runs the commands of libpq sessions; :meth:`query` is the handler for ``wire.serve``."""

    def __init__(self, environment: Environment, tenants: Tenants) -> None:
        self._environment = environment
        self._tenants = tenants
        self._commands: dict[str, tuple[Command, str]] = {
            "pagestream": (self._pagestream, "TENANT TIMELINE"),
            "basebackup": (self._basebackup, "TENANT TIMELINE [LSN]"),
            "fullbackup": (self._fullbackup, "TENANT TIMELINE [LSN]"),
            "import": (self._import, "basebackup TENANT TIMELINE LSN PG_VERSION"),
            "lease": (self._lease, "TENANT TIMELINE LSN"),
            "callmemaybe": (self._callmemaybe, "TENANT TIMELINE HOST:PORT"),
            "get_page": (
                self._get_page,
                "TENANT TIMELINE SPACE DATABASE RELATION FORK BLOCK [LSN]",
            ),
            "status": (self._status, ""),
        }

    async def query(self, session: Session, text: str) -> None:
        """Answer one command; errors are typed and carry their SQLSTATE."""
        words = split_words(text)
        if not words:
            await session.complete("")
            return
        command = self._commands.get(words[0].lower())
        if command is None:
            known = ", ".join(self._commands)
            raise BadRequest(f"unknown command {words[0][:40]!r}; there are {known}")
        run, usage = command
        _check_count(words, usage)
        async with interruptible():
            await run(session, words[1:])

    def describe(self, text: str) -> Sequence[str | wire.Column] | None:
        """Columns that a command will answer with, for the extended protocol."""
        words = split_words(text)
        match words[0].lower() if words else "":
            case "get_page":
                return _PAGE_COLUMNS
            case "lease":
                return LEASE_COLUMNS
            case "status":
                return STATUS_COLUMNS
            case _:
                return None

    def _timeline(self, arguments: Arguments) -> Timeline:
        tenant_id, timeline_id = _ids(arguments)
        return self._tenants.get(tenant_id).timeline(timeline_id)

    # Pages.

    async def _pagestream(self, session: Session, arguments: Arguments) -> None:
        timeline = self._timeline(arguments)
        stream = await session.copy_both()
        while (message := await stream.receive()) is not None:
            request = protocol.parse_request(message)
            try:
                if timeline.state.state is not State.ACTIVE:
                    timeline = self._timeline(arguments)
                answer = await self._answer(timeline, request)
            except ShutdownRequested:
                raise
            except Exception as error:
                answer = self._refusal(request, error)
            await stream.send(*answer.parts())
        await stream.done()
        await session.complete("PAGESTREAM")

    async def _answer(
        self, timeline: Timeline, request: protocol.PageRequest
    ) -> protocol.PageResponse:
        """Admit the reader at its LSN and answer one request of a page stream."""
        point = ReadPoint(request.request_lsn, request.not_modified_since)
        async with read_view(timeline, point) as view:
            if isinstance(request, protocol.GetPage):
                page = await view.directory.relation_block(request.relation, request.block)
                return protocol.Page(request.request_id, view.lsn, page)
            if isinstance(request, protocol.SlruSegment):
                segment = await _slru_segment(view, request.relation)
                return protocol.Segment(request.request_id, view.lsn, segment)
            return protocol.Count(request.request_id, view.lsn, await _count(view, request))

    def _refusal(self, request: protocol.PageRequest, error: Exception) -> protocol.Refused:
        trace_id = self._environment.registry.trace_ids.next()
        log_failure(
            logger,
            f"page request for {request.relation} block {request.block}",
            error,
            trace_id=trace_id,
        )
        sqlstate = SQLSTATE_DATA_CORRUPTED if isinstance(error, CorruptData) else sqlstate_of(error)
        return protocol.Refused(request.request_id, sqlstate, message_of(error))

    async def _get_page(self, session: Session, arguments: Arguments) -> None:
        timeline = self._timeline(arguments)
        numbers = [_number(text) for text in arguments[2:7]]
        point = ReadPoint.at(_lsn(arguments[7])) if len(arguments) > 7 else ReadPoint()
        async with read_view(timeline, point) as view:
            page = await view.directory.relation_block(Relation(*numbers[:4]), numbers[4])
            await session.rows(_PAGE_COLUMNS, [(str(view.lsn), page)], "SELECT 1")

    async def _status(self, session: Session, _arguments: Arguments) -> None:
        rows = [
            (
                tenant.tenant_id,
                timeline_id,
                str(timeline.state.state),
                str(timeline.last_record_lsn),
                str(timeline.disk_consistent.value),
                str(timeline.remote_consistent.value),
            )
            for tenant in self._tenants.all()
            for timeline_id, timeline in tenant.timelines.items()
        ]
        await session.rows(STATUS_COLUMNS, rows, f"SELECT {len(rows)}")

    async def _lease(self, session: Session, arguments: Arguments) -> None:
        timeline = self._timeline(arguments)
        valid_for_s = await lease_lsn(timeline, _lsn(arguments[2]))
        await session.rows(LEASE_COLUMNS, [(f"{valid_for_s:.6f}",)], "LEASE")

    # Base backups.

    async def _basebackup(self, session: Session, arguments: Arguments) -> None:
        await self._send_backup(session, arguments, full=False)

    async def _fullbackup(self, session: Session, arguments: Arguments) -> None:
        await self._send_backup(session, arguments, full=True)

    async def _send_backup(self, session: Session, arguments: Arguments, *, full: bool) -> None:
        timeline = self._timeline(arguments)
        lsn = _lsn(arguments[2]) if len(arguments) > 2 else None
        chunks = base_backup(timeline, lsn, full=full)
        try:
            # An error before the first byte is a plain refusal, not a broken copy.
            chunk = await anext(chunks, None)
            copy = await session.copy_out()
            while chunk is not None:
                await copy.send(chunk)
                await failpoint(Failpoint.PS_BASEBACKUP_SENT)
                chunk = await anext(chunks, None)
            await copy.done("FULLBACKUP" if full else "BASEBACKUP")
        finally:
            await chunks.aclose()

    async def _import(self, session: Session, arguments: Arguments) -> None:
        if arguments[0].lower() != "basebackup":
            raise BadRequest(f"import {arguments[0][:40]!r}: only a basebackup can be imported")
        postgres = self._environment.postgres
        if postgres is None:
            raise BadRequest("this pageserver has no PostgreSQL support")
        tenant_id, timeline_id = _ids(arguments[1:])
        request = NewTimeline(timeline_id, _lsn(arguments[3]), _number(arguments[4]))

        async def fill(modification: Modification) -> None:
            chunks: AsyncIterator[bytes] = session.copy_in()
            await postgres.import_directory(modification, chunks, request.pg_version)

        timeline = await import_timeline(self._tenants, tenant_id, request, fill)
        await session.complete(f"IMPORT {timeline.last_record_lsn}")

    # Discovery.

    async def _callmemaybe(self, session: Session, arguments: Arguments) -> None:
        tenant_id, timeline_id = _ids(arguments)
        host, _, port = arguments[2].rpartition(":")
        if not host or not port.isdigit():
            raise BadRequest(f"{arguments[2]!r} is not the address of a safekeeper: host:port")
        self._tenants.get(tenant_id).call_me_maybe(timeline_id, arguments[2])
        await session.complete("CALLMEMAYBE")


_PAGE_COLUMNS = (wire.Column("lsn"), wire.Column("page", wire.TypeOid.BYTEA))


async def _count(view: ReadView, request: protocol.PageRequest) -> int:
    """The number that a request other than for a page asks for."""
    relation = request.relation
    match request:
        case protocol.Exists():
            return int(await view.directory.relation_exists(relation))
        case protocol.RelationBlocks():
            blocks = await view.directory.relation_size(relation)
            if blocks is None:
                raise NotFound(f"relation {relation} does not exist at {view.lsn}")
            return blocks
        case _:
            blocks = await view.directory.database_blocks(relation.space, relation.database)
            return blocks * BLOCK_SIZE


async def _slru_segment(view: ReadView, named: Relation) -> bytes:
    """All pages of an SLRU segment."""
    try:
        slru = Slru(named.space)
    except ValueError:
        known = ", ".join(f"{each.value} {each.name}" for each in Slru)
        raise BadRequest(f"there is no SLRU {named.space}; there are {known}") from None
    blocks = await view.directory.slru_segment_size(slru, named.relation)
    if blocks is None:
        raise NotFound(f"{slru.name} has no segment {named.relation:04X} at {view.lsn}")
    numbers = range(blocks)
    return b"".join([await view.directory.slru_block(slru, named.relation, n) for n in numbers])


def _check_count(words: Sequence[str], usage: str) -> None:
    wanted = usage.split()
    fewest = len([word for word in wanted if not word.startswith("[")])
    if not fewest <= len(words) - 1 <= len(wanted):
        raise BadRequest(f"{words[0]} takes {usage or 'no arguments'}, got {len(words) - 1} words")


def _ids(arguments: Arguments) -> tuple[TenantId, TimelineId]:
    try:
        return TenantId(arguments[0]), TimelineId(arguments[1])
    except ValueError as error:
        raise BadRequest(str(error)) from None


def _lsn(text: str) -> Lsn:
    try:
        return Lsn.parse(text)
    except ValueError as error:
        raise BadRequest(str(error)) from None


def _number(text: str) -> int:
    if not text.isdigit() or int(text) > 0xFFFFFFFF:
        raise BadRequest(f"{text!r} is not a number below 2**32")
    return int(text)
