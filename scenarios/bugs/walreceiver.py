"""Bugs between safekeeper and pageserver: who calls, who stops, whom to ask, when to settle."""

from __future__ import annotations

from harness.bug import Bug, Replacement
from storage.lsn import Lsn
from storage.pageserver.candidates import Candidate, Candidates
from storage.pageserver.flush import Flusher
from storage.safekeeper.callmemaybe import CallMeMaybe, Subscription
from storage.safekeeper.sender import WalSender

FAMILY = "walreceiver/broker"


def _wanted_while_a_compute_writes(self: CallMeMaybe, subscription: Subscription) -> bool:
    timeline = self._timelines.find(subscription.timeline_id)
    if timeline is None or timeline.connections.pushers == 0:
        return False
    return not self._is_paused(subscription)


def _never_has_all(self: WalSender) -> bool:
    """As if the feedback of another reader were compared, which nobody ever updates."""
    return False


def _least_tried(self: Candidates, position: Lsn, now_s: float) -> Candidate | None:
    """Only who was tried least may be tried, and nothing ever resets the count."""

    def attempts(candidate: Candidate) -> int:
        return int(getattr(candidate, "attempts", 0))

    fewest = min(map(attempts, self._known.values()), default=0)
    for candidate in self._known.values():
        if attempts(candidate) == fewest and self._is_eligible(candidate, position, now_s):
            setattr(candidate, "attempts", fewest + 1)  # noqa: B010 (it has no such field)
            return candidate
    return None


def _ageless(self: Flusher) -> float | None:
    return None


BUGS = (
    Bug(
        "callmemaybe-stops-before-caught-up", FAMILY, "hard", ("O10",),
        "issue #1074; 3b61f364f7, eba897ffe7; race fix 729ac38ea8",
        replacements=(Replacement(CallMeMaybe, "_is_wanted", _wanted_while_a_compute_writes),),
        applies="callmemaybe, a compute gone, a pageserver that lacks WAL",
    ),
    Bug(
        "walsender-never-stops", FAMILY, "easy", ("O10",), "63221e4b42; issue #2722",
        replacements=(Replacement(WalSender, "_has_all", _never_has_all),),
        applies="a compute stops and its pageserver has everything",
    ),
    Bug(
        "candidate-filtered-forever", FAMILY, "medium", ("O10",),
        "976576ae59 = PR #2295; 1d0706cf25 (issue #1985)",
        replacements=(Replacement(Candidates, "_best", _least_tried),),
        applies="safekeepers come and go",
    ),
    Bug(
        "idle-timeline-never-flushed", FAMILY, "easy", ("O10",), "e593cbaaba = PR #2228",
        replacements=(Replacement(Flusher, "_age_left_s", _ageless),),
        applies="a little is written, then nothing",
    ),
)  # fmt: skip
