"""Bugs of leases, replicas and reads of the newest state."""

from __future__ import annotations

from harness.bug import Bug, Replacement, Standing
from storage.lsn import Lsn
from storage.pageserver import leasing, read_view
from storage.pageserver.page_protocol import LATEST_LSN
from storage.pageserver.read_view import ReadPoint
from storage.pageserver.timeline import Timeline

FAMILY = "readonly/lease"
LATER = Standing.WAITING

_view_lsn = read_view.view_lsn


def _any_lsn_will_do(timeline: Timeline, lsn: Lsn) -> None:
    return


def _newest_is_where_the_hint_points(timeline: Timeline, point: ReadPoint) -> Lsn:
    if point.request_lsn == LATEST_LSN and point.not_modified_since:
        return point.not_modified_since
    return _view_lsn(timeline, point)


BUGS = (
    Bug(
        "lease-granted-below-cutoff", FAMILY, "medium", ("O6",),
        "61d2474632 = PR #10764; 43dbded8c8 = PR #12489; issue #12435",
        replacements=(Replacement(leasing, "check_leasable", _any_lsn_will_do),),
        applies="a replica starts, or renews its lease, where garbage collection has been",
    ),
    Bug(
        "standby-horizon-forgotten", FAMILY, "hard", ("O6",),
        "issues #8801, #12168; PR #8802 (repro); mechanism 478cc37a70",
        standing=LATER,
        reason="comes with the complete pageserver: replicas that report their position",
    ),
    Bug(
        "latest-read-uses-hint-lsn", FAMILY, "easy", ("O13",), "540973eac4; issue #567",
        replacements=(Replacement(read_view, "view_lsn", _newest_is_where_the_hint_points),),
        applies="a primary reads a page that has not changed for longer than history is kept",
    ),
)  # fmt: skip
