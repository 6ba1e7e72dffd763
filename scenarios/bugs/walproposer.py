"""Bugs of the walproposer: quorums and recovery."""

from __future__ import annotations

from harness.bug import Bug, Replacement
from storage.consensus.fetch import fetch_wal
from storage.lsn import Lsn
from storage.tasks import ShutdownRequested
from storage.walproposer.campaign import PeerPhase, Recover
from storage.walproposer.link import EXPECTED_FAILURES
from storage.walproposer.proposer import WalProposer
from storage.walproposer.state import Campaign

FAMILY = "walproposer"


def _count_over_another_list(self: Campaign) -> Lsn:
    """The quorum of a list of another size than the member list: those that stream now."""
    online = [p.flush_lsn for p in self.peers.values() if p.phase is PeerPhase.STREAMING]
    return sorted(online, reverse=True)[len(online) // 2]


async def _recover_what_comes(self: WalProposer, campaign: Campaign, wanted: Recover) -> None:
    """The end of the stream, whatever it was, is taken as the end of the tail."""
    pieces: list[bytes] = []
    try:
        donor = self.donor(wanted.donor)
        async for piece in fetch_wal(donor, wanted.begin_lsn, wanted.end_lsn):
            pieces.append(piece)
    except ShutdownRequested:
        return
    except EXPECTED_FAILURES:
        pass
    if campaign is self.campaign and not campaign.ended:
        self._carry_out(campaign.recovered(pieces))


def _complete_anyway(self: Campaign) -> None:
    return


BUGS = (
    Bug(
        "wp-quorum-over-wrong-member-list", FAMILY, "medium", ("O1", "O2"),
        "1b789e8d7c = PR #11785",
        replacements=(Replacement(Campaign, "_quorum_flush_lsn", _count_over_another_list),),
        applies="a commit while some members are away; two configurations at once come later",
    ),
    Bug(
        "wp-recovery-accepts-short-read", FAMILY, "medium", ("O1", "O2"),
        "neondatabase/postgres PR #147; neon issues #861, #1014",
        replacements=(
            Replacement(WalProposer, "_recover", _recover_what_comes),
            Replacement(Campaign, "_check_recovery_complete", _complete_anyway),
        ),
        applies="a donor dies while it is read; the rule is guarded twice, so both are replaced",
    ),
)  # fmt: skip
