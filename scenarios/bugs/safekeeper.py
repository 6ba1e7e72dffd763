"""Bugs of the safekeeper: votes, truncation, durability of WAL and control file, commit horizon."""

from __future__ import annotations

import asyncio

from harness.bug import Bug, Replacement
from storage.consensus import term_history
from storage.consensus.messages import ProposerElected, ProposerMessage
from storage.consensus.term_history import TermHistory, TermSwitch
from storage.errors import NotReady
from storage.lsn import Lsn
from storage.ports import Leadership
from storage.safekeeper import snapshot
from storage.safekeeper.backup import Offloader
from storage.safekeeper.control import ControlFile, encode_control
from storage.safekeeper.control_state import ControlState
from storage.safekeeper.pins import Pins
from storage.safekeeper.segments import WalSegments
from storage.safekeeper.sender import WalSender
from storage.safekeeper.state import Acceptor
from storage.safekeeper.timeline import Timeline
from storage.tasks import current_registration, shutdown_requested
from storage.wal import validate
from storage.wal.validate import EndOfWal, ReadSegment, WalRange, find_end_of_wal

FAMILY = "safekeeper"
LAZY_S = 0.02

_limit_lsn = WalSender._limit_lsn


def _flush_nothing_before(self: Acceptor, message: ProposerMessage) -> bool:
    return False


async def _flush_after_a_while(self: Timeline) -> None:
    """What was accepted lies unsynced for a while: syncs are lazy where this bug was found."""
    entry = current_registration()
    assert entry is not None, "the flusher is a registered task"
    entry.on_shutdown(self._accepted.set)
    while not shutdown_requested():
        await self._accepted.wait()
        self._accepted.clear()
        await asyncio.sleep(LAZY_S)
        try:
            await self._flush()
        except NotReady as error:
            self.connections.hang_up(str(error))


def _cut_anywhere(self: Acceptor, elected: ProposerElected) -> None:
    return


def _scalar_epoch(
    proposer: TermHistory, acceptor: TermHistory, acceptor_flush_lsn: Lsn
) -> TermSwitch:
    """One number for a whole history: where the leader's epoch begins, or the log ends."""
    own = acceptor.up_to(acceptor_flush_lsn)
    if own.last_term == proposer.last_term:
        return TermSwitch(own.last_term, acceptor_flush_lsn)
    return TermSwitch(own.last_term, min(acceptor_flush_lsn, proposer.last_lsn))


def _truncate_only_what_is_known(self: Acceptor, start_lsn: Lsn) -> bool:
    return start_lsn < self.flush_lsn


async def _create_in_place(self: WalSegments, segment: int) -> None:
    file = await self._disk.open(self._path(segment), create=True)
    try:
        await self._fill(file, 0)
    finally:
        await file.close()
    await self._disk.sync_dir(self._directory)
    self._existing.add(segment)


async def _save_in_place(self: ControlFile, control: ControlState) -> None:
    file = await self._disk.open(self._path, create=True)
    try:
        await file.truncate(0)
        await file.pwrite(0, encode_control(control))
    finally:
        await file.close()
    self.saved = control


async def _end_at_segment_start(read_segment: ReadSegment, wal: WalRange) -> EndOfWal:
    found = await find_end_of_wal(read_segment, wal)
    if found.last_lsn is not None:
        return found
    return EndOfWal(Lsn(wal.start_lsn - wal.start_lsn % wal.segment_size), None, found.reason)


def _hear_in_silence(self: Timeline, last_log_term: int, commit_lsn: Lsn) -> None:
    self.acceptor.hear_peer(last_log_term, commit_lsn)


def _limit_everybody_to_commit(self: WalSender) -> Lsn:
    _limit_lsn(self)
    return self._timeline.acceptor.commit_lsn


def _assign_horizon(self: Acceptor, truncate_lsn: Lsn) -> None:
    self.peer_horizon_lsn = truncate_lsn


def _never_mind_the_term(timeline: Timeline, found: snapshot.Snapshot) -> bool:
    return True


async def _read_whatever_is_there(timeline: Timeline, begin_lsn: Lsn, end_lsn: Lsn) -> bytes:
    return await timeline.segments.read(begin_lsn, end_lsn)


def _no_pins(self: Pins, lsn: Lsn) -> Lsn:
    return lsn


def _begin_at_the_horizon(timeline: Timeline) -> Lsn:
    """A new member gets what its proposer would still send, wherever that begins."""
    return timeline.acceptor.peer_horizon_lsn


def _anybody_may(self: Acceptor) -> bool:
    return True


async def _keep_the_lease(self: Offloader, leadership: Leadership) -> None:
    return


BUGS = (
    Bug(
        "sk-vote-without-flush", FAMILY, "hard", ("O1", "O3"),
        "a69fdb0e8e; PR #2109; issue #2048",
        replacements=(
            Replacement(Acceptor, "must_flush_before", _flush_nothing_before),
            Replacement(Acceptor, "_check_cut", _cut_anywhere),
            Replacement(Timeline, "_flush_always", _flush_after_a_while),
        ),
        applies="elections before WAL is flushed, which is lazy as it was where the bug was found; "
        "the rule is guarded twice (a cut that does not fit the log is refused)",
    ),
    Bug(
        "sk-no-divergence-truncation", FAMILY, "hard", ("O1", "O2"),
        "issues #295, #296 (TLC traces); cba4da3f4d = PR #847; spec fixes 9e3fe2b4d4, fe17188464",
        replacements=(Replacement(term_history, "highest_common_point", _scalar_epoch),),
        applies="elections after a leader died with WAL on a minority",
    ),
    Bug(
        "sk-truncate-skipped-after-restart", FAMILY, "medium", ("O2", "O12"),
        "b0286e3c46; PR #4464 (regression from c058e1cec2)",
        replacements=(Replacement(Acceptor, "_must_truncate", _truncate_only_what_is_known),),
        applies="a host dies in the middle of a write, then elections",
    ),
    Bug(
        "sk-segment-init-not-atomic", FAMILY, "hard", ("O1",), "bc684e9d3b; issue #6402",
        replacements=(Replacement(WalSegments, "_create", _create_in_place),),
        applies="a host dies soon after a segment was begun",
    ),
    Bug(
        "sk-control-file-not-durable", FAMILY, "medium", ("O5", "O1"),
        "450fb9eafe = PR #966; 07dddfed28",
        replacements=(Replacement(ControlFile, "save", _save_in_place),),
        applies="a host dies after an election",
    ),
    Bug(
        "sk-end-of-wal-below-commit", FAMILY, "medium", ("O4", "O3", "O13"),
        "d5a96d3d50 (PR #1360, issue #1351); a68c23448a (PR #592); 431393e361 (issue #544)",
        replacements=(Replacement(validate, "find_end_of_wal", _end_at_segment_start),),
        applies="a safekeeper restarts while all its WAL is committed",
    ),
    Bug(
        "sk-peer-commit-no-wakeup", FAMILY, "hard", ("O10",),
        "introduced ec3bc74165, fixed 5b29774532",
        replacements=(Replacement(Timeline, "hear_peer", _hear_in_silence),),
        applies="a compute dies before it told its last commit",
    ),
    Bug(
        "sk-recovery-stream-limited-to-commit", FAMILY, "easy", ("O10",),
        "5603259c53 (after 33007cc0bb); again 90ef48aab8 (after cdb08f0362)",
        replacements=(Replacement(WalSender, "_limit_lsn", _limit_everybody_to_commit),),
        applies="an election with an uncommitted tail",
    ),
    Bug(
        "sk-peer-horizon-regress", FAMILY, "medium", ("O3", "O10"),
        "ca85646df4; issue #3752 (effects in #3317); related a092127b17 = PR #6396, #6248",
        replacements=(Replacement(Acceptor, "_adopt_horizon", _assign_horizon),),
        applies="computes restart",
    ),
    Bug(
        "sk-pull-ignores-term-change", FAMILY, "hard", ("O2", "O1"),
        "d8b2a49c55 = PR #7944; issue #6340",
        replacements=(
            Replacement(snapshot, "is_unchanged", _never_mind_the_term),
            Replacement(snapshot, "_read", _read_whatever_is_there),
        ),
        applies="an election cuts a log while it is copied; what lies beyond the log's new end is "
        "guarded too, so both are replaced",
    ),
    Bug(
        "sk-pull-races-wal-removal", FAMILY, "medium", ("O10", "O12"),
        "29a41fc7b9; reproducer 3797566c36; PR #7944",
        replacements=(Replacement(Pins, "lowest", _no_pins),),
        applies="WAL is removed while it is copied",
    ),
    Bug(
        "sk-offload-by-newcomer", FAMILY, "hard", ("O2", "O8", "O10"),
        "a51b2dac9a; issue #2432, cleaned up in 65b4e6e7d6",
        replacements=(
            Replacement(snapshot, "snapshot_begin_lsn", _begin_at_the_horizon),
            Replacement(Acceptor, "may_back_up", _anybody_may),
        ),
        applies="members are replaced; the rule is guarded twice, so both are replaced",
    ),
    Bug(
        "sk-offload-leader-task-leak", FAMILY, "medium", ("O11", "O10"),
        "0b93253b3c (issue #1815), a42eba3cd7",
        replacements=(Replacement(Offloader, "_step_down", _keep_the_lease),),
        applies="an offloader has nothing left to do",
    ),
)  # fmt: skip
