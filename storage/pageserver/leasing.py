"""Granting LSN leases: what is granted is kept, by this attachment and by those that follow it.

A lease is held back from garbage collection before anything is awaited. It counts once the object
store says that this attachment is still the newest: then every later one, which collects nothing
while it may not know all leases (``leases.py``), begins after it.
"""

from __future__ import annotations

import asyncio

from storage.errors import BadRequest, Conflict, NotReady
from storage.lsn import Lsn
from storage.pageserver.creation import check_in_scope
from storage.pageserver.timeline import Timeline


async def lease_lsn(timeline: Timeline, lsn: Lsn, length_s: float | None = None) -> float:
    """Keep ``lsn`` readable for ``lease_length_s`` (or less, if asked to); how long, in seconds.

    Renewal is the same request. ``LsnOutOfScope`` names the cutoff that has passed the LSN, also
    when a lease at it has just ended; ``Conflict`` from a stale pageserver, ``NotReady`` without
    the object store: ask again, the LSN is held meanwhile.
    """
    longest_s = timeline.environment.options.lease_length_s
    if length_s is not None and not 0 < length_s <= longest_s:
        raise BadRequest(f"a lease of {length_s} s: it may have up to {longest_s} s")
    timeline.state.check_active()
    check_leasable(timeline, lsn)
    loop = asyncio.get_running_loop()
    until_s = loop.time() + (longest_s if length_s is None else length_s)
    timeline.leases.grant(lsn, until_s)
    await _confirm(timeline)
    return max(0.0, until_s - loop.time())


def check_leasable(timeline: Timeline, lsn: Lsn) -> None:
    """Refuse an LSN that the next cutoff has passed: nothing brings it back (BUGBANK
    ``lease-granted-below-cutoff``)."""
    check_in_scope(timeline, lsn)


async def _confirm(timeline: Timeline) -> None:
    """Return if this attachment is the newest and every later one will read its index."""
    timeout_s = timeline.environment.options.attach_answer_timeout_s
    try:
        async with asyncio.timeout(timeout_s):
            await timeline.uploader.wait_owned()
            if not await timeline.uploader.is_newest():
                raise Conflict(f"timeline {timeline.ident} was attached elsewhere since")
    except TimeoutError as error:
        raise NotReady(
            f"the object store did not confirm within {timeout_s} s that timeline "
            f"{timeline.ident} is attached here"
        ) from error
