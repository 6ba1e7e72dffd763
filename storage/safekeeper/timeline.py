"""One timeline on one safekeeper: carries out what the acceptor decides, in the right order.

Locks: ``_lock`` is held over each step and the disk work it asks for; ``_disk_lock`` over WAL
writes, so that one flush takes all that was accepted while the previous one ran. Who needs both
takes ``_lock`` first. Disk work that must not be dropped half way runs in a task of its own.
"""

from __future__ import annotations

import asyncio
import hashlib
import logging
from collections.abc import Sequence
from typing import Any

from storage.consensus.messages import AppendRequest, ProposerMessage, VoteRequest
from storage.consensus.wal_run import WalRun
from storage.errors import BadRequest, NotReady, PortError
from storage.events import emit
from storage.failpoints import Failpoint, failpoint
from storage.ids import TenantTimelineId
from storage.log import one_line
from storage.lsn import Lsn
from storage.marks import Mark, reach
from storage.safekeeper.connections import Connections, Pusher
from storage.safekeeper.control import ControlFile
from storage.safekeeper.environment import Environment
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

_DIGEST_BYTES = 1024 * 1024


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
        self.commit_wakeups = Wakeups()
        self.flush_wakeups = Wakeups()
        self._control = control
        self._environment = environment
        self._lock = asyncio.Lock()
        self._disk_lock = asyncio.Lock()
        self._accepted = asyncio.Event()
        self._recent = WalRun(acceptor.flush_lsn)
        self.connections = Connections(lambda: environment.on_activity(self.id))
        self._unanswered: list[Pusher] = []
        self._commit_shown = acceptor.commit_lsn
        self._remote_shown = acceptor.remote_consistent_lsn
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
        segments.check_complete(control.saved.local_start_lsn, control.saved.commit_lsn)
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
            await asyncio.shield(
                self._environment.result_of(self._decide(pusher, message), self.id)
            )
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
            term, flush_lsn = self.acceptor.term, self.acceptor.flush_lsn
            history = self.acceptor.term_history
            async with self._disk_lock:
                with self._environment.fuse.guard(f"an election of {self.id}"):
                    try:
                        await self._carry_out(self.acceptor.step(message), pusher)
                    except PortError as error:
                        reach(Mark.ELECTION_UNSAVED)
                        self.acceptor.election_failed(history)
                        raise NotReady(f"timeline {self.id}: {one_line(error)}") from error
            if self.acceptor.term != term and isinstance(message, VoteRequest):
                emit("term", **self._ids, term=message.term)
                emit("vote", **self._ids, term=message.term, proposer=message.proposer_id)
            elif isinstance(message, VoteRequest) and message.term < term:
                reach(Mark.VOTE_REFUSED)
            if self.acceptor.flush_lsn < flush_lsn:
                reach(Mark.WAL_CUT)
                emit("lsn", **self._ids, name="flush_lsn", value=self.acceptor.flush_lsn)
            self._show_horizon()
            self._show_progress()
            self.flush_wakeups.notify()

    async def _carry_out(self, effects: Sequence[Effect], pusher: Pusher) -> None:
        """In order, so that nothing is told before it is durable."""
        for effect in effects:
            match effect:
                case PersistControl(control):
                    await self._control.save(control)
                case TruncateWal(end_lsn):
                    await self._truncate(end_lsn)
                case Reply(message):
                    pusher.post(message)

    async def _truncate(self, end_lsn: Lsn) -> None:
        logger.info("timeline %s: cutting the WAL at %s", self.id, end_lsn)
        self._recent = WalRun(end_lsn)
        await self.segments.truncate(end_lsn)

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
                self._flushed(batch)

    def _flushed(self, batch: WriteBatch) -> None:
        self.acceptor.flushed(batch)
        lsn = batch.begin_lsn
        for piece in batch.pieces:
            lsn = self._recent.append(lsn, piece)
        surplus_end = self._recent.end_lsn - self._environment.options.recent_wal_bytes
        if surplus_end > self._recent.begin_lsn:
            self._recent.forget(Lsn(surplus_end))
        unanswered, self._unanswered = self._unanswered, []
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
            self._commit_shown = acceptor.commit_lsn
            emit("lsn", **self._ids, name="commit_lsn", value=acceptor.commit_lsn)
            self.commit_wakeups.notify()
            if self.connections.pushers == 0:
                self._environment.on_activity(self.id)
        if acceptor.remote_consistent_lsn != self._remote_shown:
            self._remote_shown = acceptor.remote_consistent_lsn
            emit("lsn", **self._ids, name="remote_consistent_lsn", value=self._remote_shown)
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

    async def save_control(self) -> None:
        """Make LSNs durable that need no immediate durability, if any has changed. ``NotReady``."""
        if self.acceptor.control() != self._control.saved:
            await asyncio.shield(self._environment.result_of(self._save_control(), self.id))

    async def _save_control(self) -> None:
        async with self._lock, self._disk_lock:
            with self._environment.fuse.guard(f"saving the control file of {self.id}"):
                try:
                    await self._control.save(self.acceptor.control())
                except PortError as error:
                    raise NotReady(f"timeline {self.id}: {one_line(error)}") from error
        self._show_horizon()

    def _show_horizon(self) -> None:
        """It moves with every append; at elections and saves is enough for observers."""
        emit("lsn", **self._ids, name="truncate_lsn", value=self.acceptor.peer_horizon_lsn)

    async def close(self) -> None:
        """Save what a restart would like to know, and let go of the files. ``NotReady``."""
        await self.save_control()
        try:
            await self.segments.close()
        except PortError as error:
            raise NotReady(f"timeline {self.id}: {one_line(error)}") from error

    # ---- reading

    @property
    def first_lsn(self) -> Lsn:
        """Where the oldest segment begins; before the timeline's start it holds zeros."""
        start_lsn = self.acceptor.identity.start_lsn
        return Lsn(start_lsn - start_lsn % self.segments.segment_size)

    def has_wal_from(self, lsn: Lsn) -> bool:
        """Whether a stream may begin at ``lsn``: within the WAL, or, as stock clients do, at the
        beginning of the oldest segment."""
        return lsn >= self.acceptor.identity.start_lsn or lsn == self.first_lsn

    def status(self) -> dict[str, Any]:
        """Terms, LSNs (as text) and connections, for people, tests and the HTTP API."""
        acceptor = self.acceptor
        return {
            "term": acceptor.term,
            "last_log_term": acceptor.last_log_term,
            "flush_lsn": str(acceptor.flush_lsn),
            "commit_lsn": str(acceptor.commit_lsn),
            "truncate_lsn": str(acceptor.peer_horizon_lsn),
            "backup_lsn": str(acceptor.backup_lsn),
            "remote_consistent_lsn": str(acceptor.remote_consistent_lsn),
            "peer_horizon_lsn": str(acceptor.peer_horizon_lsn),
            "timeline_start_lsn": str(acceptor.identity.start_lsn),
            "term_history": [
                {"term": switch.term, "lsn": str(switch.lsn)}
                for switch in acceptor.durable_history().switches
            ],
            "active": self.active,
            "proposers": self.connections.pushers,
            "readers": self.connections.readers(),
        }

    async def digest(self, from_lsn: Lsn, until_lsn: Lsn) -> str:
        """SHA-256 in hex of flushed WAL; ``BadRequest`` for a range that is not here."""
        if not self.acceptor.identity.start_lsn <= from_lsn <= until_lsn <= self.acceptor.flush_lsn:
            raise BadRequest(
                f"{from_lsn}..{until_lsn} is not within the WAL here, "
                f"{self.acceptor.identity.start_lsn}..{self.acceptor.flush_lsn}"
            )
        digest = hashlib.sha256()
        while from_lsn < until_lsn:
            end_lsn = Lsn(min(until_lsn, from_lsn + _DIGEST_BYTES))
            digest.update(await self.segments.read(from_lsn, end_lsn))
            from_lsn = end_lsn
        return digest.hexdigest()

    async def read(self, begin_lsn: Lsn, end_lsn: Lsn) -> bytes:
        """Flushed WAL of ``[begin_lsn, end_lsn)``, from memory if it is recent. ``DiskError``."""
        assert begin_lsn < end_lsn <= self.acceptor.flush_lsn, f"{begin_lsn}..{end_lsn}"
        hole_end_lsn = min(end_lsn, self.acceptor.identity.start_lsn)
        if begin_lsn < hole_end_lsn:
            return bytes(hole_end_lsn - begin_lsn) + (
                await self.read(hole_end_lsn, end_lsn) if hole_end_lsn < end_lsn else b""
            )
        if begin_lsn >= self._recent.begin_lsn:
            return self._recent.read(begin_lsn, end_lsn)
        return await self.segments.read(begin_lsn, end_lsn)
