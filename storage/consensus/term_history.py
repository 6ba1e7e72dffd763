"""Term histories: which term wrote which range of a log, and where two logs part.

A log's entries carry no term; instead every log owner keeps the points where terms began. Two
logs that agree on ``(term, lsn)`` agree on every byte before that LSN. Source of the rules: the
TLA+ module ProposerAcceptorStatic of Neon (``FindHighestCommonPoint``, ``AcceptorTermHistory``)
and the log matching property of Raft (Ongaro and Ousterhout, 2014, section 5.3).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

from storage.errors import ProtocolError
from storage.lsn import Lsn


class TermSwitch(NamedTuple):
    """``term`` wrote the log from ``lsn`` on, until the next switch."""

    term: int
    lsn: Lsn


@dataclass(frozen=True, slots=True)
class TermHistory:
    """Switches in order: terms strictly grow, LSNs never fall. Never empty: a timeline is born
    with term 0 at its start LSN, so that any two logs of it have a common point."""

    switches: tuple[TermSwitch, ...]

    def __post_init__(self) -> None:
        if not self.switches:
            raise ProtocolError("a term history is empty; it must begin with term 0")
        for earlier, later in zip(self.switches, self.switches[1:], strict=False):
            if later.term <= earlier.term or later.lsn < earlier.lsn:
                raise ProtocolError(f"term history goes back: {earlier} is followed by {later}")

    @classmethod
    def born_at(cls, start_lsn: Lsn) -> TermHistory:
        """The history of a timeline that nobody has written to yet."""
        return cls((TermSwitch(0, start_lsn),))

    @property
    def last_term(self) -> int:
        """The term of the last switch."""
        return self.switches[-1].term

    @property
    def last_lsn(self) -> Lsn:
        """Where the last term begins."""
        return self.switches[-1].lsn

    def extended(self, term: int, lsn: Lsn) -> TermHistory:
        """This history and one more switch; ``ProtocolError`` if it would go back."""
        return TermHistory((*self.switches, TermSwitch(term, lsn)))

    def up_to(self, flush_lsn: Lsn) -> TermHistory:
        """The part that is true of a log which ends at ``flush_lsn``.

        A switch exactly at the end counts: the log is complete up to where that term begins, so
        it may vote as a log of that term.
        """
        kept = tuple(switch for switch in self.switches if switch.lsn <= flush_lsn)
        assert kept, f"log end {flush_lsn} lies before the timeline's start {self.switches[0]}"
        return self if len(kept) == len(self.switches) else TermHistory(kept)


def highest_common_point(
    proposer: TermHistory, acceptor: TermHistory, acceptor_flush_lsn: Lsn
) -> TermSwitch:
    """The last term both logs share and the LSN up to which they are equal.

    ``proposer`` ends with its own, newest term, whose log never ends before the acceptor's part
    of it. ``ProtocolError`` when the histories share nothing or contradict one another.
    """
    own = acceptor.up_to(acceptor_flush_lsn).switches
    theirs = proposer.switches
    shared = 0
    for mine, other in zip(own, theirs, strict=False):
        if mine.term != other.term:
            break
        if mine.lsn != other.lsn:
            raise ProtocolError(f"term {mine.term} begins at {mine.lsn} here, {other.lsn} there")
        shared += 1
    if shared == 0:
        raise ProtocolError(f"no common term: the logs begin with {own[0]} and {theirs[0]}")
    own_end = own[shared].lsn if shared < len(own) else acceptor_flush_lsn
    their_end = theirs[shared].lsn if shared < len(theirs) else acceptor_flush_lsn
    return TermSwitch(own[shared - 1].term, min(own_end, their_end))
