"""One timeline on one safekeeper: carries out what the acceptor decides, in the right order.

Locks: ``_lock`` is held over each step and the disk work it asks for; ``_disk_lock`` over WAL
writes, so that one flush takes all that was accepted while the previous one ran. Who needs both
takes ``_lock`` first. Disk work that must not be dropped half way runs in a task of its own.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence

from storage.consensus.messages import AppendRequest, ProposerElected, ProposerMessage, VoteRequest
from storage.consensus.term_history import TermHistory
from storage.errors import BadRequest, NotReady, PortError
from storage.events import emit
from storage.failpoints import Failpoint, failpoint
from storage.ids import TenantTimelineId
from storage.log import one_line
from storage.lsn import Lsn
from storage.marks import Mark, reach
from storage.safekeeper.connections import Connections, Pusher
from storage.safekeeper.control import ControlFile
from storage.safekeeper.control_state import ControlState
from storage.safekeeper.environment import Environment
from storage.safekeeper.pins import Pins
from storage.safekeeper.reading import WalReading
from storage.safekeeper.remote_wal import RemoteWal
from storage.safekeeper.segments import WalSegments
from storage.safekeeper.state import (
    Acceptor,
    Effect,
    PersistControl,
    Reply,
    TruncateWal,
    WriteBatch,
)
from storage.safekeeper.wakeups import Wakeups
from storage.tasks import TaskKind, current_registration, shutdown_requested
from storage.wal.validate import WalRange, find_end_of_wal

logger = logging.getLogger(__name__)


class Timeline:
    """Opened by :meth:`load`; its flusher runs until the registry stops it."""

    def __init__(
        self,
        acceptor: Acceptor,
        control: ControlFile,
        segments: WalSegments,
        environment: Environment,
    ) -> None:
        identity = acceptor.identity
        self.id = TenantTimelineId(identity.tenant_id, identity.timeline_id)
        self._ids = {"tenant": self.id.tenant_id, "timeline": self.id.timeline_id}
        self.options = environment.options
        self.acceptor = acceptor
        self.segments = segments
        self.remote = RemoteWal(
            environment.objects, self.id, segments.segment_size, self.options.backup_timeout_s
        )
        self.reading = WalReading(acceptor, segments, self.remote, self.options.recent_wal_bytes)
        self.pins = Pins()
        self.closing = False
        """Whether it is being deleted: nothing new may begin."""
        self.commit_wakeups = Wakeups()
        self.flush_wakeups = Wakeups()
        self._control = control
        self._environment = environment
        self._lock = asyncio.Lock()
        self._disk_lock = asyncio.Lock()
        self._accepted = asyncio.Event()
        self.connections = Connections(lambda: environment.on_activity(self.id))
        self._unanswered: list[Pusher] = []
        self._commit_shown = acceptor.commit_lsn
        self._remote_shown = acceptor.remote_consistent_lsn
        self._backup_shown = acceptor.backup_lsn
        for name, lsn in (
            ("truncate_lsn", control.saved.peer_horizon_lsn),
            ("backup_lsn", control.saved.backup_lsn),
            ("remote_consistent_lsn", control.saved.remote_consistent_lsn),
        ):
            emit("lsn", **self._ids, name=name, value=lsn)
        environment.spawn(
            TaskKind.DISK, "wal flusher", self._flush_always(), self.id, critical=True
        )

    @classmethod
    async def load(cls, directory: str, environment: Environment) -> Timeline:
        """Open what is on disk and find the end of the WAL. ``CorruptData`` or ``DiskError``."""
        control = await ControlFile.load(environment.disk, directory)
        identity = control.saved.identity
        segments = WalSegments(environment.disk, directory, identity.wal_segment_size)
        await segments.load()
        segments.check_complete(control.saved.oldest_lsn(), control.saved.commit_lsn)
        wal = WalRange(control.saved.commit_lsn, identity.pg_version, identity.wal_segment_size)
        end = await find_end_of_wal(segments.read_segment, wal)
        await segments.settle(control.saved.commit_lsn, end.end_lsn)
        if end.torn:
            reach(Mark.TORN_TAIL_AT_BOOT)
        acceptor = Acceptor(environment.options.node_id, control.saved, end.end_lsn)
        logger.info(
            "timeline %s/%s: term %s, commit %s, WAL ends at %s (%s)",
            identity.tenant_id, identity.timeline_id, acceptor.term, acceptor.commit_lsn,
            end.end_lsn, end.reason,
        )  # fmt: skip
        timeline = cls(acceptor, control, segments, environment)
        emit("lsn", **timeline._ids, name="flush_lsn", value=acceptor.flush_lsn)
        return timeline

    # ---- proposers

    @property
    def active(self) -> bool:
        """Whether anybody may still need something of this timeline: a proposer writes, or a
        pageserver has not got all that is committed into remote storage."""
        lacking = self.acceptor.remote_consistent_lsn < self.acceptor.commit_lsn
        return lacking or self.connections.pushers > 0

    async def handle(self, pusher: Pusher, message: ProposerMessage) -> None:
        """Take a proposer's message; answers go to its pusher, at once or after a flush.

        Raises ``ProtocolError`` or ``NotReady`` (disk): the conversation cannot go on.
        """
        if not isinstance(message, AppendRequest):
            work = self._decide(pusher, message)
            await asyncio.shield(self._environment.result_of(work, self.id))
            return
        async with self._lock:
            for effect in self.acceptor.step(message):
                assert isinstance(effect, Reply), "appending needs no disk work before an answer"
                pusher.post(effect.message)
            if message.data:
                if pusher not in self._unanswered:
                    self._unanswered.append(pusher)
                self._accepted.set()
            else:
                self._show_progress()

    async def _decide(self, pusher: Pusher, message: ProposerMessage) -> None:
        """A step of an election: everything accepted before is durable first, then its effects."""
        async with self._lock:
            if self.acceptor.must_flush_before(message):
                reach(Mark.FLUSHED_BEFORE_VOTE)
                await self._flush()
            before, flush_lsn = self.acceptor.control(), self.acceptor.flush_lsn
            async with self._disk_lock:
                with self._environment.fuse.guard(f"an election of {self.id}"):
                    await self._carry_out(self.acceptor.step(message), pusher, before)
            if self.acceptor.term != before.term and isinstance(message, VoteRequest):
                emit("term", **self._ids, term=message.term)
                emit("vote", **self._ids, term=message.term, proposer=message.proposer_id)
            elif isinstance(message, VoteRequest) and message.term < before.term:
                reach(Mark.VOTE_REFUSED)
            elif isinstance(message, ProposerElected) and message.term == before.term:
                emit("adopted", **self._ids, term=message.term, end_lsn=self.acceptor.flush_lsn)
            self._show_cut(flush_lsn)
            self._show_horizon()
            self._show_progress()
            self.flush_wakeups.notify()

    def _show_cut(self, flush_lsn: Lsn) -> None:
        """The log may end before ``flush_lsn`` now, where it ended before."""
        if self.acceptor.flush_lsn < flush_lsn:
            reach(Mark.WAL_CUT)
            emit("lsn", **self._ids, name="flush_lsn", value=self.acceptor.flush_lsn)

    async def _carry_out(
        self, effects: Sequence[Effect], pusher: Pusher | None, before: ControlState
    ) -> None:
        """In order, so that nothing is told before it is durable.

        ``NotReady`` (disk): term and history are those of ``before`` again.
        """
        try:
            for effect in effects:
                match effect:
                    case PersistControl(control):
                        await self._persist(control)
                    case TruncateWal(end_lsn):
                        await self._truncate(end_lsn)
                    case Reply(message):
                        assert pusher is not None, "only a proposer is answered"
                        pusher.post(message)
        except PortError as error:
            reach(Mark.ELECTION_UNSAVED)
            self.acceptor.election_failed(before)
            raise NotReady(f"timeline {self.id}: {one_line(error)}") from error

    async def _persist(self, control: ControlState) -> None:
        shown_lsn = self._control.saved.peer_horizon_lsn
        await self._control.save(control)
        if control.peer_horizon_lsn != shown_lsn:
            # It moves with every append; observers hear of it when it becomes durable.
            emit("lsn", **self._ids, name="truncate_lsn", value=control.peer_horizon_lsn)

    async def _truncate(self, end_lsn: Lsn) -> None:
        logger.info("timeline %s: cutting the WAL at %s", self.id, end_lsn)
        self.reading.cut(end_lsn)
        await self.segments.truncate(end_lsn)

    # ---- peers and S3, while there is no proposer

    async def begin_catching_up(self, history: TermHistory, commit_lsn: Lsn) -> Lsn:
        """Cut the log where it parts from the committed one; returns from where WAL is needed.

        See :meth:`Acceptor.begin_catching_up`. ``ProtocolError``, ``NotReady`` (disk).
        """
        work = self._begin_catching_up(history, commit_lsn)
        await asyncio.shield(self._environment.result_of(work, self.id))
        return self.acceptor.flush_lsn

    async def _begin_catching_up(self, history: TermHistory, commit_lsn: Lsn) -> None:
        async with self._lock:
            await self._flush()
            before, flush_lsn = self.acceptor.control(), self.acceptor.flush_lsn
            async with self._disk_lock:
                with self._environment.fuse.guard(f"a cut of {self.id}"):
                    effects = self.acceptor.begin_catching_up(history, commit_lsn)
                    if effects:
                        emit("catching_up", **self._ids, commit_lsn=commit_lsn)
                    await self._carry_out(effects, None, before)
            if self.acceptor.term != before.term:
                emit("term", **self._ids, term=self.acceptor.term)
            self._show_cut(flush_lsn)
            self._show_progress()

    async def catch_up(self, begin_lsn: Lsn, data: bytes) -> None:
        """Write and flush committed WAL that a peer or S3 gave. ``ProtocolError``, ``NotReady``."""
        async with self._lock:
            self.acceptor.catch_up(begin_lsn, data)
        await asyncio.shield(self._environment.result_of(self._flush(), self.id))

    # ---- flushing

    async def _flush_always(self) -> None:
        """Flush whatever was accepted, group after group, until asked to stop."""
        entry = current_registration()
        assert entry is not None, "the flusher is a registered task"
        entry.on_shutdown(self._accepted.set)
        while True:
            await self._accepted.wait()
            self._accepted.clear()
            if shutdown_requested():
                return
            try:
                await self._flush()
            except NotReady as error:
                logger.info("%s", one_line(error))
                self.connections.hang_up(str(error))

    async def _flush(self) -> None:
        """Write and sync as one all that was accepted, then answer for it. ``NotReady`` (disk)."""
        async with self._disk_lock:
            batch = self.acceptor.take_batch()
            if batch is None:
                return
            # Who appends from here on is answered by the next flush, not by this one's answer.
            unanswered, self._unanswered = self._unanswered, []
            started_s = asyncio.get_running_loop().time()
            with self._environment.fuse.guard(f"a flush of {self.id}"):
                try:
                    await failpoint(Failpoint.SK_BEFORE_FLUSH)
                    await self.segments.write(batch.begin_lsn, batch.pieces)
                    await failpoint(Failpoint.SK_AFTER_WRITE)
                    await self.segments.flush()
                except PortError as error:
                    reach(Mark.FLUSH_FAILED)
                    self.acceptor.write_failed()
                    raise NotReady(f"timeline {self.id}: {one_line(error)}") from error
                self._flushed(batch, unanswered)
            duration_s = asyncio.get_running_loop().time() - started_s
            self._environment.flushes.note(sum(map(len, batch.pieces)), duration_s)

    def _flushed(self, batch: WriteBatch, unanswered: Sequence[Pusher]) -> None:
        self.acceptor.flushed(batch)
        self.reading.flushed(batch)
        response = self.acceptor.append_response()
        for pusher in unanswered:
            pusher.post(response)
        emit("lsn", **self._ids, name="flush_lsn", value=self.acceptor.flush_lsn)
        self.flush_wakeups.notify()
        self._show_progress()

    # ---- progress

    def _show_progress(self) -> None:
        """Tell senders and observers what has advanced, whoever advanced it."""
        acceptor = self.acceptor
        if acceptor.commit_lsn != self._commit_shown:
            size = self.segments.segment_size
            new_segment = acceptor.commit_lsn // size != self._commit_shown // size
            self._commit_shown = acceptor.commit_lsn
            emit("lsn", **self._ids, name="commit_lsn", value=acceptor.commit_lsn)
            self.commit_wakeups.notify()
            if self.connections.pushers == 0 or new_segment:
                self._environment.on_activity(self.id)
        if acceptor.remote_consistent_lsn != self._remote_shown:
            self._remote_shown = acceptor.remote_consistent_lsn
            emit("lsn", **self._ids, name="remote_consistent_lsn", value=self._remote_shown)
            self._environment.on_activity(self.id)
        if acceptor.backup_lsn != self._backup_shown:
            self._backup_shown = acceptor.backup_lsn
            emit("lsn", **self._ids, name="backup_lsn", value=self._backup_shown)
            self._environment.on_activity(self.id)

    def hear_peer(self, last_log_term: int, commit_lsn: Lsn) -> None:
        """Another safekeeper tells what is committed; an advance wakes senders like any other."""
        if self.acceptor.hear_peer(last_log_term, commit_lsn):
            reach(Mark.COMMIT_FROM_PEER)
            self._show_progress()

    def hear_remote_consistent(self, lsn: Lsn) -> None:
        """A pageserver, or a peer that heard one, tells what is in remote storage."""
        if self.acceptor.hear_remote_consistent(lsn):
            self._show_progress()

    def hear_horizon(self, lsn: Lsn) -> None:
        """Every other member has all that is committed before ``lsn``."""
        self.acceptor.hear_horizon(lsn)

    def hear_backup(self, lsn: Lsn) -> None:
        """The offloader, here or on a peer, tells what is in S3."""
        if self.acceptor.hear_backup(lsn):
            self._show_progress()

    async def patch_backup(self, lsn: Lsn) -> None:
        """Believe, durably, that S3 has WAL up to ``lsn``: for tests only. ``BadRequest``."""
        acceptor = self.acceptor
        if not acceptor.backup_lsn <= lsn <= acceptor.commit_lsn:
            raise BadRequest(
                f"backup_lsn {lsn} is not within {acceptor.backup_lsn}..{acceptor.commit_lsn}"
            )
        self.hear_backup(lsn)
        await self.save_control()

    async def save_control(self) -> None:
        """Make LSNs durable that need no immediate durability, if any has changed. ``NotReady``."""
        if self.acceptor.control() != self._control.saved:
            await asyncio.shield(self._environment.result_of(self._save_control(), self.id))

    async def _save_control(self) -> None:
        async with self._lock, self._disk_lock:
            with self._environment.fuse.guard(f"saving the control file of {self.id}"):
                try:
                    await self._persist(self.acceptor.control())
                except PortError as error:
                    raise NotReady(f"timeline {self.id}: {one_line(error)}") from error
        self._show_horizon()

    def _show_horizon(self) -> None:
        """It moves with every append; at elections and saves is enough for observers."""
        emit("lsn", **self._ids, name="truncate_lsn", value=self.acceptor.peer_horizon_lsn)

    def removal_limit_lsn(self) -> Lsn:
        """WAL before it may go from this disk: durably known to be needed by nobody."""
        return self.pins.lowest(self._removal_horizon_lsn())

    async def remove_wal(self) -> None:
        """Remove the segments that are needed no more, oldest first. ``NotReady`` (disk)."""
        if self.acceptor.control().removal_horizon_lsn() != self._removal_horizon_lsn():
            await self.save_control()
        await failpoint(Failpoint.SK_BEFORE_WAL_REMOVAL)
        async with self._disk_lock:
            while self._removable():
                await self._remove_oldest()

    def _removal_horizon_lsn(self) -> Lsn:
        return self._control.saved.removal_horizon_lsn()

    def _removable(self) -> bool:
        oldest = self.segments.oldest
        if oldest is None or oldest == self.segments.newest:
            # WAL may end with its segment, as after pg_switch_wal(): then this one is still open.
            return False
        return (oldest + 1) * self.segments.segment_size <= self.removal_limit_lsn()

    async def _remove_oldest(self) -> None:
        oldest = self.segments.oldest
        assert oldest is not None, "there is a segment to remove"
        end_lsn = Lsn((oldest + 1) * self.segments.segment_size)
        reach(Mark.SEGMENT_REMOVED)
        emit("lsn", **self._ids, name="removed_lsn", value=end_lsn)
        try:
            await self.segments.remove_oldest()
        except PortError as error:
            raise NotReady(f"timeline {self.id}: {one_line(error)}") from error

    async def close(self) -> None:
        """Save what a restart would like to know, and let go of the files. ``NotReady``."""
        await self.save_control()
        try:
            await self.segments.close()
        except PortError as error:
            raise NotReady(f"timeline {self.id}: {one_line(error)}") from error
