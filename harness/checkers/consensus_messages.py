"""One leader per term and one vote per term, by the messages themselves and across crashes.

Read from the wire, whatever nodes report of themselves:

* A safekeeper never votes for two proposers in one term, and its term never falls, whatever
  incarnation answers.
* In one term only one proposer acts as leader, and only after a majority sent it their votes.
* What a safekeeper told a leader to be durable it still has when it votes, unless a later term has
  written to its log meanwhile.

A wiped disk has lost what it promised; one that a fault damaged, or a timeline that was deleted,
promises nothing.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from harness.backend import Event
from harness.checkers.consensus_wire import Voted
from harness.errors import CheckFailed
from storage.lsn import Lsn

CHECKER = "consensus_messages"

Timeline = tuple[str, str]
"""Tenant and timeline id."""


@dataclass(slots=True)
class Promises:
    """What a safekeeper said of a timeline: its newest term, its vote in each term; and what it
    told the leader of ``led_by`` to be durable, a log up to ``flush_lsn`` whose end is of
    ``log_term``."""

    votes: dict[int, int]
    term: int = 0
    led_by: int = 0
    log_term: int = 0
    flush_lsn: int = 0


class ConsensusMessages:
    """What everybody promised. ``quorum``: how many votes make a leader. ``was_deleted`` tells
    whether a safekeeper was told to delete a timeline."""

    def __init__(self, quorum: int, was_deleted: Callable[[str, Timeline], bool]) -> None:
        assert quorum >= 1, f"a quorum of {quorum}"
        self._quorum = quorum
        self._was_deleted = was_deleted
        self._promises: dict[tuple[str, Timeline], Promises] = {}
        self._leaders: dict[tuple[Timeline, int], int] = {}
        self._voters: dict[tuple[Timeline, int, int], dict[str, None]] = {}
        self._damaged: set[str] = set()

    def observe(self, event: Event) -> bool:
        """Note what befalls disks; no event is a message."""
        if event.kind == "process" and event.fields["state"] == "wiped":
            node = str(event.fields.get("node") or event.node)
            self._damaged.discard(node)
            for key in [key for key in self._promises if key[0] == node]:
                del self._promises[key]
        elif event.kind == "fault" and event.fields.get("damage") and event.fields["verb"] != "end":
            self._damaged.update(str(event.fields.get("target", "")).split())
        elif event.kind == "catching_up":
            # Without a leader: what is cut is not committed, or another oracle will tell.
            timeline = (str(event.fields["tenant"]), str(event.fields["timeline"]))
            promised = self.promises(event.node, timeline)
            promised.log_term, promised.flush_lsn = 0, 0
        return False

    def promises(self, safekeeper: str, timeline: Timeline) -> Promises:
        """What a safekeeper promised so far."""
        return self._promises.setdefault((safekeeper, timeline), Promises({}))

    def voted(self, safekeeper: str, timeline: Timeline, vote: Voted, proposer: int) -> None:
        """Judge an answer to a vote request of ``proposer``."""
        promised = self.promises(safekeeper, timeline)
        if vote.given:
            before = promised.votes.setdefault(vote.term, proposer)
            if before != proposer:
                self._refuse(
                    safekeeper, timeline, f"votes in term {vote.term} for {before} and {proposer}"
                )
            self._voters.setdefault((timeline, vote.term, proposer), {})[safekeeper] = None
        has = (vote.log_term, vote.flush_lsn)
        if has < (promised.log_term, promised.flush_lsn):
            self._refuse(
                safekeeper,
                timeline,
                f"has WAL up to {Lsn(vote.flush_lsn)} of term {vote.log_term} in its vote, but "
                f"said {Lsn(promised.flush_lsn)} of term {promised.log_term} was durable",
            )

    def term_told(self, safekeeper: str, timeline: Timeline, term: int) -> None:
        """Judge the term in any answer of a safekeeper."""
        promised = self.promises(safekeeper, timeline)
        if term < promised.term:
            self._refuse(safekeeper, timeline, f"is at term {term} after term {promised.term}")
        promised.term = max(term, promised.term)

    def may_cut(self, safekeeper: str, timeline: Timeline, term: int) -> None:
        """The leader of a term tells a safekeeper where to cut its log: what was said to leaders
        before binds no longer."""
        promised = self.promises(safekeeper, timeline)
        if term > promised.led_by:
            promised.led_by, promised.log_term, promised.flush_lsn = term, 0, 0

    def appended(self, safekeeper: str, timeline: Timeline, log_term: int, flush_lsn: int) -> None:
        """Note up to where a log is durable, as a leader was told, and which term wrote its end."""
        promised = self.promises(safekeeper, timeline)
        durable = max((promised.log_term, promised.flush_lsn), (log_term, flush_lsn))
        promised.log_term, promised.flush_lsn = durable

    def led(self, timeline: Timeline, term: int, proposer: int) -> None:
        """Judge a message of a leader."""
        known = self._leaders.get((timeline, term))
        if known == proposer:
            return
        if known is not None:
            raise _failure(timeline, f"term {term} has two leaders: {known} and {proposer}")
        voters = self._voters.get((timeline, term, proposer), {})
        if len(voters) < self._quorum:
            raise _failure(
                timeline,
                f"proposer {proposer} leads in term {term} with the votes of "
                f"{', '.join(sorted(voters)) or 'nobody'}; {self._quorum} are needed",
            )
        self._leaders[timeline, term] = proposer

    def _refuse(self, safekeeper: str, timeline: Timeline, what: str) -> None:
        if safekeeper not in self._damaged and not self._was_deleted(safekeeper, timeline):
            raise _failure(timeline, f"{safekeeper} {what}")


def _failure(timeline: Timeline, what: str) -> CheckFailed:
    return CheckFailed(f"timeline {'/'.join(timeline)}: by its messages {what}", checker=CHECKER)
