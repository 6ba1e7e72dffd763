"""What remains to do when a timeline is gone: its objects, in an order that can be interrupted.

A timeline is deleted at the moment its tombstone is in the object store: an index of the newest
generation that names nothing. The tombstone stays for ever, so that an index which a stale
pageserver, or a late request, puts beside it later changes nothing. Everything else goes; an
attachment that finds a tombstone goes on with it, and ``scrub.py`` comes again for what the store
carries out late.
"""

from __future__ import annotations

import logging

from storage.pageserver.index import TimelineIndex
from storage.pageserver.remote import RemoteTenant
from storage.tasks import interruptible

logger = logging.getLogger(__name__)


async def bury(remote: RemoteTenant, index: TimelineIndex) -> None:
    """Remove every object of a timeline that is gone, except its tombstone if it has one."""
    logger.info("timeline %s is gone: removing what is left of it", index.timeline_id)
    async with interruptible():
        await remote.remove_dead(index, await remote.objects(index.timeline_id))
