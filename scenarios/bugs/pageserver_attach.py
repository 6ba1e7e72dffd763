"""Bugs of attaching, detaching and moving tenants."""

from __future__ import annotations

import asyncio

from harness.bug import Bug, Replacement
from storage.errors import ObjectStoreError
from storage.ids import TenantId, TimelineId
from storage.pageserver.index import TimelineIndex
from storage.pageserver.remote import RemoteTenant
from storage.pageserver.tenants import Tenants

FAMILY = "pageserver-attach/migration"


async def _skip_what_fails(self: RemoteTenant) -> dict[TimelineId, TimelineIndex]:
    """An index that cannot be read is taken for absent."""
    found: dict[TimelineId, TimelineIndex] = {}
    for timeline_id, generations in (await self.index_keys()).items():
        key = generations[max(generations)]
        try:
            data = await self._bounded(self._objects.get(key))
        except ObjectStoreError:
            continue
        found[timeline_id] = TimelineIndex.decode(data, key)
    return found


def _lock_of_nobody(self: Tenants, tenant_id: TenantId) -> asyncio.Lock:
    return asyncio.Lock()


BUGS = (
    Bug(
        "index-download-error-as-absent", FAMILY, "hard", ("O9", "O6"), "912a08317b",
        replacements=(Replacement(RemoteTenant, "indexes", _skip_what_fails),),
        applies="the object store fails while a tenant is attached or a pageserver starts",
    ),
    Bug(
        "duplicate-delete-or-request-race", FAMILY, "medium", ("O9", "O12"),
        "2d6a022bb8 = PR #4313; c48cc020bd = PR #5941 (issue #5936); 60ced06586 = #6310 "
        "(issue #6255)",
        replacements=(Replacement(Tenants, "lock", _lock_of_nobody),),
        applies="requests about one tenant that overlap",
    ),
)  # fmt: skip
