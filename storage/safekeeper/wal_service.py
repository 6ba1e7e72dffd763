"""The safekeeper's libpq service: proposers push WAL, everybody else streams it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from storage.errors import BadRequest, ProtocolError
from storage.lsn import Lsn
from storage.safekeeper.callmemaybe import CallMeMaybe
from storage.safekeeper.commands import (
    Command,
    IdentifySystem,
    ReadSlot,
    ShowSegmentSize,
    StartReplication,
    StartSnapshot,
    StartWalPush,
    TimelineStatus,
    parse_command,
)
from storage.safekeeper.environment import Environment
from storage.safekeeper.push import PushSession
from storage.safekeeper.segments import WAL_TIMELINE
from storage.safekeeper.sender import StreamRequest, WalSender
from storage.safekeeper.snapshot import send_snapshot
from storage.safekeeper.status import describe
from storage.safekeeper.timeline import Timeline
from storage.safekeeper.timelines import Timelines, timeline_id_of
from storage.tasks import serving
from storage.wire.copying import CopyStream
from storage.wire.replication import answer_identify_system, complete_streaming
from storage.wire.session import Session

END_WITHIN_S = 5.0
"""How long a reader may take to confirm the end of its stream, in seconds."""

_MEGABYTE = 1024 * 1024


class WalService:
    """Answers the commands of every connection; ``now_us`` counts from the Postgres epoch."""

    def __init__(
        self,
        timelines: Timelines,
        environment: Environment,
        now_us: Callable[[], int],
        callmemaybe: CallMeMaybe,
    ) -> None:
        self._timelines = timelines
        self._environment = environment
        self._now_us = now_us
        self._callmemaybe = callmemaybe

    async def handle(self, session: Session, text: str) -> None:
        """One command; what it raises becomes an ErrorResponse."""
        command = parse_command(text)
        settings = session.settings
        timeline = self._timelines.get(
            timeline_id_of(settings.get("tenant_id"), settings.get("timeline_id"))
        )
        with serving(*timeline.id):
            await self._carry_out(session, timeline, command)

    async def _carry_out(self, session: Session, timeline: Timeline, command: Command) -> None:
        match command:
            case StartWalPush(pageserver):
                await self._push(session, timeline, pageserver)
            case StartReplication(start_lsn, term):
                await self._replicate(session, timeline, start_lsn, term)
            case StartSnapshot():
                out = await session.copy_out()
                await send_snapshot(timeline, out)
                await out.done("START_SNAPSHOT")
            case IdentifySystem():
                await self._identify(session, timeline)
            case TimelineStatus():
                rows = list(describe(timeline).items())
                await session.rows(
                    ["name", "value"], [(k, str(v)) for k, v in rows], "TIMELINE_STATUS"
                )
            case ShowSegmentSize():
                megabytes = timeline.acceptor.identity.wal_segment_size // _MEGABYTE
                await session.rows(["wal_segment_size"], [(f"{megabytes}MB",)], "SHOW")
            case ReadSlot():
                row = ("physical", str(timeline.reading.first_lsn), WAL_TIMELINE)
                columns = ["slot_type", "restart_lsn", "restart_tli"]
                await session.rows(columns, [row], "READ_REPLICATION_SLOT")

    async def _identify(self, session: Session, timeline: Timeline) -> None:
        await answer_identify_system(
            session,
            system_id=timeline.acceptor.identity.system_id,
            timeline=WAL_TIMELINE,
            flush_lsn=timeline.acceptor.commit_lsn,
        )

    async def _push(self, session: Session, timeline: Timeline, pageserver: str | None) -> None:
        if pageserver is not None:
            await self._callmemaybe.subscribe(timeline.id, pageserver)
        stream = await session.copy_both()
        push = PushSession(timeline, stream, self._environment.options.silence_max_s)
        await push.run()
        await stream.done()

    async def _replicate(
        self, session: Session, timeline: Timeline, start_lsn: Lsn, term: int | None
    ) -> None:
        if not timeline.reading.has_wal_from(start_lsn):
            first = timeline.acceptor.identity.start_lsn
            raise BadRequest(f"WAL at {start_lsn} is not here, it begins at {first}")
        if term is not None and not timeline.acceptor.is_term(term):
            raise BadRequest(f"the vote here went to term {timeline.acceptor.term}, not {term}")
        name = session.parameters.get("application_name", "")
        stream = await session.copy_both()
        sender = WalSender(timeline, StreamRequest(start_lsn, term, name), stream)
        await sender.run(self._environment.registry, self._now_us)
        await _confirmed_end(stream)
        await complete_streaming(session)


async def _confirmed_end(stream: CopyStream) -> None:
    """End our half; a reader that does not end its own is gone, and its connection goes too."""
    try:
        async with asyncio.timeout(END_WITHIN_S):
            await stream.done()
    except TimeoutError:
        raise ProtocolError(
            f"the reader has not ended its half of the stream for {END_WITHIN_S} s"
        ) from None
