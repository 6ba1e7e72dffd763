"""The bucket is whole at every moment at which a pageserver says that something is in it.

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
from harness.checkers.bucket import Timeline, check_bucket, read_bucket
from harness.errors import CheckFailed
from storage.lsn import Lsn
from storage.ports import ObjectStore

T = TypeVar("T")
LOOKS_EVERY_S = 2.0
ENDS = ("killed", "stopped", "died")


class BucketWatch:
    """Checks a tenant's part of the bucket whenever a pageserver tells a new
    ``remote_consistent_lsn``, which must be there already. ``objects`` must never suspend."""

    def __init__(self, objects: ObjectStore) -> None:
        self._objects = objects
        self._told: dict[Timeline, Lsn] = {}
        self._look_at_s = LOOKS_EVERY_S

    def observe(self, event: Event) -> bool:
        """Look at the bucket if an event says that it changed; whether it did."""
        fields = event.fields
        ends = event.kind == "process" and fields["state"] in ENDS
        if ends or event.at_s >= self._look_at_s:
            self._look_at_s = event.at_s + LOOKS_EVERY_S
            self._look_again(event.at_s)
        # Safekeepers pass the same position on; only a pageserver names what is its own.
        if event.kind != "lsn" or fields["name"] != "remote_consistent_lsn":
            return False
        if not event.node.startswith("ps"):
            return False
        tenant, timeline = str(fields["tenant"]), str(fields["timeline"])
        value = fields["value"]
        assert isinstance(value, int), f"{event} has no number"
        try:
            bucket = at_once(read_bucket(self._objects, f"pageserver/{tenant}/"))
            check_bucket(bucket, {(tenant, timeline): Lsn(value)})
        except CheckFailed as failure:
            raise CheckFailed(
                f"at {event.at_s:.6f} s, when {event.node} told that {Lsn(value)} of {timeline} is "
                f"in the object store: {failure}",
                checker=failure.checker,
            ) from failure
        told = self._told.get((tenant, timeline), Lsn(0))
        self._told[tenant, timeline] = max(told, Lsn(value))
        return True

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


def at_once(work: Coroutine[Any, Any, T]) -> T:
    """The result of a coroutine that never suspends."""
    try:
        work.send(None)
    except StopIteration as end:
        result: T = end.value
        return result
    work.close()
    raise AssertionError("the bucket takes time to read, so it cannot be judged at one moment")
