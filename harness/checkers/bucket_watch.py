"""The bucket is whole at every moment at which a pageserver says that something is in it.

Whatever crashes next finds the bucket as it is now, so a layer that is uploaded after the index
that names it, or removed before the index that does not, is wrong even if all is well later. For
worlds whose bucket can be read past every fault and in no time.
"""

from __future__ import annotations

from collections.abc import Coroutine
from typing import Any, TypeVar

from harness.backend import Event
from harness.checkers.bucket import check_bucket, read_bucket
from harness.errors import CheckFailed
from storage.lsn import Lsn
from storage.ports import ObjectStore

T = TypeVar("T")


class BucketWatch:
    """Checks a tenant's part of the bucket whenever a pageserver tells a new
    ``remote_consistent_lsn``, which must be there already. ``objects`` must never suspend."""

    def __init__(self, objects: ObjectStore) -> None:
        self._objects = objects

    def observe(self, event: Event) -> bool:
        """Look at the bucket if an event says that it changed; whether it did."""
        fields = event.fields
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
        return True


def at_once(work: Coroutine[Any, Any, T]) -> T:
    """The result of a coroutine that never suspends."""
    try:
        work.send(None)
    except StopIteration as end:
        result: T = end.value
        return result
    work.close()
    raise AssertionError("the bucket takes time to read, so it cannot be judged at one moment")
