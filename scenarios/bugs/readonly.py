"""Bugs of leases, replicas and reads of the newest state, all waiting for garbage collection."""

from __future__ import annotations

from harness.bug import Bug, Standing

FAMILY = "readonly/lease"
LATER = Standing.WAITING

BUGS = (
    Bug(
        "lease-granted-below-cutoff", FAMILY, "medium", ("O6",),
        "61d2474632 = PR #10764; 43dbded8c8 = PR #12489; issue #12435",
        standing=LATER,
        reason="comes with the complete pageserver: leases",
    ),
    Bug(
        "standby-horizon-forgotten", FAMILY, "hard", ("O6",),
        "issues #8801, #12168; PR #8802 (repro); mechanism 478cc37a70",
        standing=LATER,
        reason="comes with the complete pageserver: replicas that report their position",
    ),
    Bug(
        "latest-read-uses-hint-lsn", FAMILY, "easy", ("O13",), "540973eac4; issue #567",
        standing=LATER,
        reason="comes with the complete pageserver: garbage collection; without it a page at its "
        "hint is the newest page, by the hint's meaning",
    ),
)  # fmt: skip
