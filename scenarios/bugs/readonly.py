"""Bugs of leases, replicas and reads of the newest state."""

from __future__ import annotations

from harness.bug import Bug, Replacement
from storage.lsn import Lsn
from storage.pageserver import leasing, read_view
from storage.pageserver.gc import Collector
from storage.pageserver.page_protocol import LATEST_LSN
from storage.pageserver.read_view import ReadPoint
from storage.pageserver.retention import Reason
from storage.pageserver.standbys import Standbys
from storage.pageserver.timeline import Timeline

FAMILY = "readonly/lease"

_view_lsn = read_view.view_lsn


def _any_lsn_will_do(timeline: Timeline, lsn: Lsn) -> None:
    return


def _newest_is_where_the_hint_points(timeline: Timeline, point: ReadPoint) -> Lsn:
    if point.request_lsn == LATEST_LSN and point.not_modified_since:
        return point.not_modified_since
    return _view_lsn(timeline, point)


def _forget_after_each_pass(
    collector: Collector, limits: dict[Reason, Lsn | None], now_s: float
) -> None:
    timeline = collector._timeline
    horizon = timeline.standbys.horizon(now_s)
    if horizon is not None:
        limits[Reason.STANDBY] = horizon
    timeline.standbys = Standbys(timeline.environment.options.lease_length_s)


BUGS = (
    Bug(
        "lease-granted-below-cutoff", FAMILY, "medium", ("O6",),
        "61d2474632 = PR #10764; 43dbded8c8 = PR #12489; issue #12435",
        replacements=(Replacement(leasing, "check_leasable", _any_lsn_will_do),),
        applies="a replica starts, or renews its lease, where garbage collection has been",
    ),
    Bug(
        "standby-horizon-forgotten", FAMILY, "hard", ("O6", "O13"),
        "issues #8801, #12168; PR #8802 (repro); mechanism 478cc37a70",
        replacements=(Replacement(Collector, "_add_standbys", _forget_after_each_pass),),
        applies="a standby lags while garbage collection passes more often than it reports",
    ),
    Bug(
        "latest-read-uses-hint-lsn", FAMILY, "easy", ("O13",), "540973eac4; issue #567",
        replacements=(Replacement(read_view, "view_lsn", _newest_is_where_the_hint_points),),
        applies="a primary reads a page that has not changed for longer than history is kept",
    ),
)  # fmt: skip
