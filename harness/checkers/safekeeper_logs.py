"""What safekeepers' logs hold and what of it is committed, by the messages that made them so.

* A leader calls committed what a quorum of its own term has flushed, from its term's start on, or
  what a voter told it; and whoever calls an LSN committed means the same log, term by term.
* A safekeeper believes in a commit only if the log that it adopted is the committed one.
* From a vote on its log does not grow until somebody extends it; no log has more of a term than
  its leader wrote, and a restart finds nothing beyond what was sent since the log was cut.
* A reader that is no proposer is sent nothing that nobody has called committed.

Bytes are judged as they are sent. Of a disk that was wiped or damaged, and of a log that was copied
from elsewhere, nothing is known until the next leader has cut it.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from harness.backend import Event
from harness.checkers.consensus_wire import Appended, Elected, Led, Voted
from harness.errors import CheckFailed
from storage.lsn import Lsn

CHECKER = "safekeeper_logs"

Timeline = tuple[str, str]
"""Tenant and timeline id."""
History = tuple[tuple[int, int], ...]
"""Which term wrote a log, each from which LSN on."""


@dataclass(slots=True)
class Log:
    """What is known of one safekeeper's log of a timeline; ``None``: nothing.

    ``histories``: one of these is adopted. ``end_max``: where it ends at most, but for what was
    ``sent`` since in each term. ``vote_end``: where it ended when a vote was given.
    """

    histories: list[History] | None = None
    end_max: int | None = None
    vote_end: int | None = None
    booting: bool = False
    sent: dict[int, int] = field(default_factory=dict)

    def adopted(self, term: int, start_lsn: int, history: History) -> None:
        """It was cut at ``start_lsn``, and now is what ``history`` says."""
        self.histories = [history]
        self.sent = {each: end for each, end in self.sent.items() if each >= term}
        self.end_max = start_lsn

    def reach_max(self) -> int | None:
        """Where it ends at most."""
        return None if self.end_max is None else max(self.end_max, *self.sent.values(), 0)


@dataclass(slots=True)
class Leadership:
    """One term: where it starts and up to where its leader sent WAL, what its voters had committed,
    and who has flushed what of it."""

    start_lsn: int = 0
    end_lsn: int = 0
    told_lsn: int = 0
    flushed: dict[str, int] = field(default_factory=dict)


class SafekeeperLogs:
    """What everybody said. ``quorum``: how many flushes make a commit."""

    def __init__(self, quorum: int) -> None:
        assert quorum >= 1, f"a quorum of {quorum}"
        self._quorum = quorum
        self._logs: dict[tuple[str, Timeline], Log] = {}
        self._terms: dict[tuple[Timeline, int], Leadership] = {}
        self._committed: dict[Timeline, tuple[int, History]] = {}
        self._told_lsn: dict[Timeline, int] = {}
        self._damaged: set[str] = set()

    def observe(self, event: Event) -> bool:
        """Compare what a node reports with what it was told; whether there was anything to."""
        if event.kind == "lsn" and event.fields["name"] in ("flush_lsn", "commit_lsn"):
            return self._position(event)
        if event.kind == "process":
            self._process(str(event.fields.get("node") or event.node), str(event.fields["state"]))
        elif event.kind == "fault" and event.fields.get("damage") and event.fields["verb"] != "end":
            self._damaged.update(str(event.fields.get("target", "")).split())
        elif event.kind == "catching_up":
            timeline = (str(event.fields["tenant"]), str(event.fields["timeline"]))
            self._logs[event.node, timeline] = Log()
        return False

    def _process(self, node: str, state: str) -> None:
        if state == "wiped":
            self._damaged.discard(node)
        for key, log in list(self._logs.items()):
            if key[0] != node:
                continue
            if state == "wiped":
                del self._logs[key]
            elif state == "started":
                log.vote_end, log.booting = None, True

    def _position(self, event: Event) -> bool:
        fields = event.fields
        timeline = (str(fields["tenant"]), str(fields["timeline"]))
        log, value = self._logs.get((event.node, timeline)), fields["value"]
        assert isinstance(value, int), f"{event} has no number"
        if log is None or event.node in self._damaged:
            return False
        if fields["name"] == "commit_lsn":
            self._check_commit(event.node, timeline, log, value)
            return True
        if log.vote_end is not None and value > log.vote_end:
            raise _failure(
                timeline,
                f"{event.node} ended at {Lsn(log.vote_end)} when it gave its vote and grew to "
                f"{Lsn(value)}, though nobody extended it",
            )
        end_max = log.reach_max()
        if log.booting and end_max is not None and value > end_max:
            raise _failure(
                timeline,
                f"{event.node} finds {Lsn(value)} after its restart; since it was cut nothing "
                f"beyond {Lsn(end_max)} was sent to it",
            )
        log.booting = False
        return True

    def _check_commit(self, node: str, timeline: Timeline, log: Log, lsn: int) -> None:
        known = self._committed.get(timeline)
        if log.histories is None or known is None:
            return
        upto = min(lsn, known[0])
        expected = up_to(known[1], upto)
        if all(up_to(history, upto) != expected for history in log.histories):
            shown = " or ".join(str(up_to(history, upto)) for history in log.histories)
            raise _failure(
                timeline,
                f"{node} calls {Lsn(lsn)} committed, but its log is of terms {shown}; what is "
                f"committed is of {expected}",
            )

    def voted(self, safekeeper: str, timeline: Timeline, vote: Voted) -> None:
        """Note what a vote tells of a log."""
        log = self._log(safekeeper, timeline)
        self._told_lsn[timeline] = max(self._told_lsn.get(timeline, 0), vote.commit_lsn)
        written = self._terms.get((timeline, vote.log_term))
        if written is not None and written.start_lsn and safekeeper not in self._damaged:
            end_lsn = max(written.start_lsn, written.end_lsn)
            if vote.flush_lsn > end_lsn:
                raise _failure(
                    timeline,
                    f"{safekeeper} votes with a log up to {Lsn(vote.flush_lsn)} of term "
                    f"{vote.log_term}, whose leader wrote no further than {Lsn(end_lsn)}",
                )
        if vote.given:
            log.vote_end = vote.flush_lsn
            term = self._term(timeline, vote.term)
            term.told_lsn = max(term.told_lsn, vote.commit_lsn)

    def elected(self, safekeeper: str, timeline: Timeline, elected: Elected) -> None:
        """A leader tells where to cut; whether that was done shows in the answer."""
        log = self._log(safekeeper, timeline)
        log.vote_end = None
        if log.histories is not None:
            log.histories.append(elected.history)
        self._term(timeline, elected.term).start_lsn = elected.history[-1][1]

    def sent(self, safekeeper: str, timeline: Timeline, append: Led, history: History) -> None:
        """Judge what a leader of ``history`` calls committed, and note the WAL that it sends."""
        log = self._log(safekeeper, timeline)
        log.sent[append.term] = max(append.end_lsn, log.sent.get(append.term, 0))
        term, lsn = self._term(timeline, append.term), append.commit_lsn
        term.end_lsn = max(term.end_lsn, append.end_lsn)
        self._told_lsn[timeline] = max(self._told_lsn.get(timeline, 0), lsn)
        if lsn <= term.told_lsn:
            return
        needed = max(lsn, term.start_lsn)
        holders = [name for name, end in term.flushed.items() if end >= needed]
        if len(holders) < self._quorum:
            raise _failure(
                timeline,
                f"the leader of term {append.term}, which starts at {Lsn(term.start_lsn)}, calls "
                f"{Lsn(lsn)} committed; flushed in its term up to there by {len(holders)} "
                f"({', '.join(holders) or 'nobody'}), {self._quorum} are needed",
            )
        known = self._committed.get(timeline, (0, ()))
        if lsn > known[0]:
            if up_to(history, known[0]) != up_to(known[1], known[0]):
                raise _failure(
                    timeline,
                    f"term {append.term} commits {Lsn(lsn)} of a log of terms {history}; up to "
                    f"{Lsn(known[0])} one of {known[1]} was committed",
                )
            self._committed[timeline] = lsn, history

    def answered(
        self, safekeeper: str, timeline: Timeline, answer: Appended, elected: Elected
    ) -> None:
        """An answer to the leader that said ``elected`` on this connection."""
        if answer.term != elected.term:
            return
        log = self._log(safekeeper, timeline)
        if log.histories is None or log.histories != [elected.history]:
            log.adopted(elected.term, elected.start_lsn, elected.history)
        flushed = self._term(timeline, answer.term).flushed
        flushed[safekeeper] = max(answer.flush_lsn, flushed.get(safekeeper, 0))

    def read(self, safekeeper: str, timeline: Timeline, end_lsn: int) -> None:
        """Judge how far a reader that is no proposer may see."""
        told_lsn = self._told_lsn.get(timeline)
        if told_lsn is not None and end_lsn > told_lsn and safekeeper not in self._damaged:
            raise _failure(
                timeline,
                f"{safekeeper} serves a reader WAL up to {Lsn(end_lsn)}; nobody has called more "
                f"than {Lsn(told_lsn)} committed",
            )

    def _log(self, safekeeper: str, timeline: Timeline) -> Log:
        return self._logs.setdefault((safekeeper, timeline), Log())

    def _term(self, timeline: Timeline, term: int) -> Leadership:
        return self._terms.setdefault((timeline, term), Leadership())


def up_to(history: History, lsn: int) -> History:
    """The terms that wrote a log before an LSN; one that wrote nothing is left out."""
    kept = [switch for switch in history if switch[1] < lsn]
    ends = [*(switch[1] for switch in kept[1:]), lsn]
    return tuple(
        switch for switch, end in zip(kept, ends[: len(kept)], strict=True) if end > switch[1]
    )


def _failure(timeline: Timeline, what: str) -> CheckFailed:
    return CheckFailed(f"timeline {'/'.join(timeline)}: by its messages {what}", checker=CHECKER)
