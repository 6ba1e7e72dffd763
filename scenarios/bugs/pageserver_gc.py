"""Bugs of garbage collection, all waiting: nothing is collected yet."""

from __future__ import annotations

from harness.bug import Bug, Standing

FAMILY = "pageserver-gc"
LATER = Standing.WAITING
NO_GC = "comes with the complete pageserver: garbage collection, which raises the cutoff"

BUGS = (
    Bug("gc-child-needs-older-layers", FAMILY, "medium", ("O6",), "6f7ebe6e01",
        standing=LATER, reason=NO_GC),
    Bug("gc-removes-tombstone", FAMILY, "medium", ("O6",), "a4fc6da57b",
        standing=LATER, reason=NO_GC),
    Bug("gc-cutoff-check-not-held", FAMILY, "hard", ("O6",),
        "79f0e44a20 = PR #1139 (issue #1047); recurrence 19b74b8837 = PR #12743",
        standing=LATER, reason=NO_GC),
    Bug("gc-ignores-inactive-children", FAMILY, "hard", ("O6",),
        "32d14403bd; offloaded twin f54e3e9147 = PR #9308, 7880c246f1 = PR #9760",
        standing=LATER, reason=NO_GC),
    Bug("gc-horizon-pitr-not-min", FAMILY, "easy", ("O13",), "aa7c601eca",
        standing=LATER, reason=NO_GC),
)  # fmt: skip
