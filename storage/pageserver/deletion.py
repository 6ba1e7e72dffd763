"""Deleting a timeline: final once its tombstone is in the object store, resumed by whoever loads.

From the request on, every index of the timeline is a tombstone (``Timeline.index``), so no upload
can come after it and undo it. Requests about one timeline are serialised, a repeated one joins, and
a parent is refused while it has children, those expected included (BUGBANK
``duplicate-delete-or-request-race``).
"""

from __future__ import annotations

import logging

from storage.errors import Conflict, DiskError
from storage.failpoints import Failpoint, failpoint
from storage.ids import TenantId, TimelineId
from storage.pageserver.burial import bury
from storage.pageserver.creation import active_tenant
from storage.pageserver.layer_files import tenant_directory
from storage.pageserver.tenant import Tenant
from storage.pageserver.tenants import Tenants
from storage.pageserver.timeline import Timeline
from storage.tasks import TaskKind, interruptible

logger = logging.getLogger(__name__)


async def delete_timeline(tenants: Tenants, tenant_id: TenantId, timeline_id: TimelineId) -> None:
    """Delete a timeline and wait for the end of it, or of a deletion that runs already.

    ``NotFound`` when it does not exist (any more), ``Conflict`` when it has children or the tenant
    was attached elsewhere, ``NotReady`` when the object store does not answer in time: the deletion
    goes on, asking again joins it.
    """
    async with tenants.lock(tenant_id):
        tenant = active_tenant(tenants, tenant_id)
        timeline = tenant.timeline(timeline_id)
        if not timeline.deleting:
            check_childless(timeline)
            _begin(tenants, tenant, timeline)
    await tenants.bounded(f"deleting timeline {timeline_id}", timeline.deleted.wait())


def check_childless(timeline: Timeline) -> None:
    """Refuse to delete what others read through: ``Conflict`` names them."""
    children = timeline.branch_points.children()
    if children:
        raise Conflict(
            f"timeline {timeline.ident.timeline_id} has the branches {', '.join(children)}; "
            "delete them first"
        )


def _begin(tenants: Tenants, tenant: Tenant, timeline: Timeline) -> None:
    """From here on this attachment will not go back; a restart before the tombstone would."""
    timeline.deleting = True
    timeline.uploader.put_index(timeline.index())
    tenant.environment.registry.spawn(
        TaskKind.DELETION,
        str(timeline.ident),
        _finish(tenants, tenant, timeline),
        tenant_id=tenant.tenant_id,
    )


async def _finish(tenants: Tenants, tenant: Tenant, timeline: Timeline) -> None:
    """Once it is final: stop serving the timeline, forget it here, remove its objects."""
    async with interruptible():
        await failpoint(Failpoint.PS_DELETION_BEGUN)
        await timeline.tombstone_stored.wait()
        await failpoint(Failpoint.PS_DELETION_STORED)
        async with tenants.lock(tenant.tenant_id):
            await tenant.forget(timeline)
            await _remove_directory(tenants, timeline)
            timeline.deleted.set()
        await failpoint(Failpoint.PS_DELETION_FORGOTTEN)
        await bury(tenant.remote, timeline.index())


async def _remove_directory(tenants: Tenants, timeline: Timeline) -> None:
    """Remove the local copy; the next load would do it as well."""
    ident = timeline.ident
    try:
        await tenants.disk.rmtree(
            f"{tenant_directory(ident.tenant_id)}/timelines/{ident.timeline_id}"
        )
    except DiskError as error:
        logger.warning("removing the files of the deleted timeline %s: %s", ident, error)
