"""The bucket is whole at every moment at which somebody says that something is in it.

Whatever crashes next finds the bucket as it is now, so a layer that is uploaded after the index
that names it, or removed before the index that does not, is wrong even if all is well later. What
was told stays true, so it is looked at again whenever a pageserver ends, and now and then: an
upload that is carried out late may undo it. For worlds whose bucket can be read past every fault
and in no time.
"""

from __future__ import annotations

from collections.abc import Coroutine
from typing import Any, TypeVar

from harness.backend import Event
from harness.checkers.bucket import CHECKER, Timeline, check_bucket, read_bucket
from harness.errors import CheckFailed
from storage.lsn import Lsn
from storage.ports import ObjectStore

T = TypeVar("T")
LOOKS_EVERY_S = 2.0
ENDS = ("killed", "stopped", "died")


class BucketWatch:
    """Looks at the bucket whenever a ``remote_consistent_lsn`` is reported, which must be there
    already: at all of the tenant when its pageserver reports it, at the index when a safekeeper
    believes it, as it may drop the WAL from then on. ``objects`` must never suspend."""

    def __init__(self, objects: ObjectStore) -> None:
        self._objects = objects
        self._told: dict[Timeline, Lsn] = {}
        self._look_at_s = LOOKS_EVERY_S

    def observe(self, event: Event) -> bool:
        """Look at the bucket if an event says what is in it; whether it does."""
        fields = event.fields
        ends = event.kind == "process" and fields["state"] in ENDS and event.node.startswith("ps")
        if ends or event.at_s >= self._look_at_s:
            self._look_at_s = event.at_s + LOOKS_EVERY_S
            self._look_again(event.at_s)
        if event.kind != "lsn" or fields["name"] != "remote_consistent_lsn":
            return False
        value = fields["value"]
        assert isinstance(value, int), f"{event} has no number"
        if not value:
            return False  # A safekeeper that was told of nothing yet.
        timeline = (str(fields["tenant"]), str(fields["timeline"]))
        if event.node.startswith("ps"):
            self._judge(event, timeline, Lsn(value))
        else:
            self._judge_belief(event, timeline, Lsn(value))
        self._told[timeline] = max(self._told.get(timeline, Lsn(0)), Lsn(value))
        return True

    def _judge(self, event: Event, timeline: Timeline, lsn: Lsn) -> None:
        """All of the tenant, of which its pageserver knows."""
        try:
            bucket = at_once(read_bucket(self._objects, f"pageserver/{timeline[0]}/"))
            check_bucket(bucket, {timeline: lsn})
        except CheckFailed as failure:
            raise _failure(event, timeline, lsn, str(failure)) from failure

    def _judge_belief(self, event: Event, timeline: Timeline, lsn: Lsn) -> None:
        """The index: a safekeeper may drop WAL before ``lsn`` from now on."""
        prefix = f"pageserver/{timeline[0]}/timelines/{timeline[1]}/index-"
        bucket = at_once(read_bucket(self._objects, prefix))
        if timeline not in bucket.indexes:
            raise _failure(event, timeline, lsn, "it has no index")
        stored = Lsn.parse(bucket.newest(timeline)["disk_consistent_lsn"])
        if stored < lsn:
            raise _failure(event, timeline, lsn, f"the newest index is consistent up to {stored}")

    def _look_again(self, now_s: float) -> None:
        """What was told to be there is there still, unless its timeline was deleted."""
        for tenant in sorted({tenant for tenant, _ in self._told}):
            try:
                bucket = at_once(read_bucket(self._objects, f"pageserver/{tenant}/"))
                self._told = {
                    timeline: lsn
                    for timeline, lsn in self._told.items()
                    if timeline[0] != tenant or timeline in bucket.indexes
                }
                check_bucket(bucket, {t: lsn for t, lsn in self._told.items() if t[0] == tenant})
            except CheckFailed as failure:
                raise CheckFailed(
                    f"at {now_s:.6f} s, some time after it was right: {failure}",
                    checker=failure.checker,
                ) from failure


def _failure(event: Event, timeline: Timeline, lsn: Lsn, what: str) -> CheckFailed:
    return CheckFailed(
        f"at {event.at_s:.6f} s, when {event.node} told that {lsn} of {timeline[1]} is in the "
        f"object store: {what}",
        checker=CHECKER,
    )


def at_once(work: Coroutine[Any, Any, T]) -> T:
    """The result of a coroutine that never suspends."""
    try:
        work.send(None)
    except StopIteration as end:
        result: T = end.value
        return result
    work.close()
    raise AssertionError("the bucket takes time to read, so it cannot be judged at one moment")
