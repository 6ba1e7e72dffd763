"""Making timelines: empty ones, branches, and ones filled from a data directory.

A timeline exists once its index is in the object store, not before; ancestor and branch point are
part of the index, so a failed branch leaves nothing behind. A branch point is chosen, checked and
handed to garbage collection in one step (BUGBANK ``branch-head-read-before-lock``).
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from storage.errors import BadRequest, Conflict, LsnOutOfScope, NotReady
from storage.failpoints import Failpoint, failpoint
from storage.ids import TenantId, TimelineId
from storage.lsn import INVALID_LSN, Lsn
from storage.pageserver.index import TimelineIndex
from storage.pageserver.layer_files import tenant_directory
from storage.pageserver.modification import Modification
from storage.pageserver.remote import IndexTaken
from storage.pageserver.tenant import Tenant
from storage.pageserver.tenants import Tenants
from storage.pageserver.timeline import Timeline
from storage.wal.format import PAGE_MAGIC

RECORD_ALIGNMENT = 8


@dataclass(frozen=True, slots=True)
class NewTimeline:
    """An empty timeline whose WAL begins at ``start_lsn``."""

    timeline_id: TimelineId
    start_lsn: Lsn
    pg_version: int

    def __post_init__(self) -> None:
        if self.pg_version not in PAGE_MAGIC:
            known = ", ".join(map(str, PAGE_MAGIC))
            raise BadRequest(f"pg_version {self.pg_version} is not one of {known}")
        if self.start_lsn % RECORD_ALIGNMENT or not self.start_lsn:
            raise BadRequest(f"start_lsn {self.start_lsn} is no place where a record can begin")


@dataclass(frozen=True, slots=True)
class NewBranch:
    """A branch of another timeline, at ``ancestor_start_lsn`` or (``None``) at its head."""

    timeline_id: TimelineId
    ancestor_timeline_id: TimelineId
    ancestor_start_lsn: Lsn | None = None


async def create_timeline(
    tenants: Tenants, tenant_id: TenantId, request: NewTimeline | NewBranch
) -> Timeline:
    """Make a timeline; the same request again answers with the same timeline.

    Raises ``Conflict``, ``LsnOutOfScope``, ``NotFound``, ``NotReady``.
    """

    async def create() -> Timeline:
        async with tenants.lock(tenant_id):
            tenant = active_tenant(tenants, tenant_id)
            _check_never_deleted(tenant, request.timeline_id)
            existing = tenant.timelines.get(request.timeline_id)
            if existing is not None:
                return _same(existing, request)
            if isinstance(request, NewTimeline):
                return await _publish(tenants, tenant, _empty_index(tenant, request))
            return await _branch(tenants, tenant, request)

    return await tenants.to_the_end(f"create timeline {request.timeline_id}", create)


async def import_timeline(
    tenants: Tenants,
    tenant_id: TenantId,
    request: NewTimeline,
    fill: Callable[[Modification], Awaitable[None]],
) -> Timeline:
    """Make a timeline whose content at ``start_lsn`` is what ``fill`` puts; ``Conflict`` if there.

    When it fails, nothing of the timeline remains.
    """
    async with tenants.lock(tenant_id):
        tenant = active_tenant(tenants, tenant_id)
        _check_never_deleted(tenant, request.timeline_id)
        if request.timeline_id in tenant.timelines:
            raise Conflict(f"timeline {request.timeline_id} exists already")
        index = _empty_index(tenant, request, before=RECORD_ALIGNMENT)
        try:
            return await tenant.import_timeline(index, fill)
        except BaseException:
            await tenants.disk.rmtree(
                f"{tenant_directory(tenant_id)}/timelines/{request.timeline_id}"
            )
            raise


def active_tenant(tenants: Tenants, tenant_id: TenantId) -> Tenant:
    """A tenant whose timelines may be made and deleted here; ``NotReady``, ``Conflict``."""
    tenant = tenants.get(tenant_id)
    tenant.state.check_active()
    if tenant.is_superseded():
        raise Conflict(f"tenant {tenant_id} was attached elsewhere since; detach it here")
    return tenant


def _check_never_deleted(tenant: Tenant, timeline_id: TimelineId) -> None:
    """A deletion is final: what is left of the old timeline must not meet a new one's."""
    if tenant.is_deleted(timeline_id):
        raise Conflict(f"timeline {timeline_id} was deleted; a new one needs a new id")


def _same(existing: Timeline, request: NewTimeline | NewBranch) -> Timeline:
    """The existing timeline if it is what the request wants."""
    if isinstance(request, NewTimeline):
        same = existing.ancestor is None and existing.initdb_lsn == request.start_lsn
    else:
        same = (
            existing.ancestor is not None
            and existing.ancestor.ident.timeline_id == request.ancestor_timeline_id
            and request.ancestor_start_lsn in (None, existing.ancestor_lsn)
        )
    if not same:
        raise Conflict(f"timeline {request.timeline_id} exists already, and is another one")
    return existing


def _empty_index(tenant: Tenant, request: NewTimeline, before: int = 0) -> TimelineIndex:
    """Index of an empty timeline, ``before`` bytes before its first record."""
    return TimelineIndex(
        timeline_id=request.timeline_id,
        generation=tenant.generation,
        pg_version=request.pg_version,
        initdb_lsn=request.start_lsn,
        disk_consistent_lsn=Lsn(request.start_lsn - before),
        latest_gc_cutoff_lsn=request.start_lsn,
    )


async def _branch(tenants: Tenants, tenant: Tenant, request: NewBranch) -> Timeline:
    ancestor = tenant.timeline(request.ancestor_timeline_id)
    ancestor.state.check_active()
    if request.ancestor_start_lsn is not None:
        await _wait_ingested(ancestor, request.ancestor_start_lsn)
    await tenants.bounded("the first index of this attachment", ancestor.uploader.wait_owned())
    lsn = await choose_branch_point(ancestor, request)
    at_head = lsn == ancestor.last_record_lsn
    index = TimelineIndex(
        timeline_id=request.timeline_id,
        generation=tenant.generation,
        pg_version=ancestor.pg_version,
        initdb_lsn=ancestor.initdb_lsn,
        disk_consistent_lsn=lsn,
        latest_gc_cutoff_lsn=ancestor.gc_cutoff.planned,
        prev_record_lsn=ancestor.prev_record_lsn if at_head else INVALID_LSN,
        ancestor_timeline_id=request.ancestor_timeline_id,
        ancestor_lsn=lsn,
    )
    await failpoint(Failpoint.PS_BRANCH_CHOSEN)
    try:
        return await _publish(tenants, tenant, index)
    except IndexTaken:
        # The place is another timeline's, so no attempt of ours can come true any more.
        ancestor.branch_points.gone(request.timeline_id)
        raise


async def choose_branch_point(ancestor: Timeline, request: NewBranch) -> Lsn:
    """Where to branch; from here on garbage collection spares it. Nothing suspends in between."""
    lsn = request.ancestor_start_lsn
    if lsn is None:
        lsn = ancestor.last_record_lsn
    check_in_scope(ancestor, lsn)
    ancestor.branch_points.expect(request.timeline_id, lsn)
    return lsn


def check_in_scope(timeline: Timeline, lsn: Lsn) -> None:
    """Refuse what begins before what the timeline has and keeps; names both LSNs."""
    if timeline.deleting:
        raise Conflict(f"timeline {timeline.ident.timeline_id} is being deleted")
    if lsn < timeline.initdb_lsn:
        raise LsnOutOfScope(f"LSN {lsn} is before initdb_lsn {timeline.initdb_lsn}")
    timeline.gc_cutoff.check_stays(lsn)
    if lsn < timeline.ancestor_lsn:
        raise LsnOutOfScope(
            f"LSN {lsn} is before {timeline.ancestor_lsn}, where timeline "
            f"{timeline.ident.timeline_id} was branched; use its ancestor"
        )


async def _wait_ingested(ancestor: Timeline, lsn: Lsn) -> None:
    timeout_s = ancestor.environment.options.wait_lsn_timeout_s
    try:
        async with asyncio.timeout(timeout_s):
            await ancestor.wait_readable(lsn)
    except TimeoutError as error:
        raise NotReady(
            f"timeline {ancestor.ident} did not reach LSN {lsn} within {timeout_s} s: "
            f"last_record_lsn is {ancestor.last_record_lsn}"
        ) from error


async def _publish(tenants: Tenants, tenant: Tenant, index: TimelineIndex) -> Timeline:
    """Put the first index, make sure that it counts, then serve the timeline."""
    what = f"creating timeline {index.timeline_id}"
    try:
        etag = await tenants.bounded(what, tenant.remote.put_index(index, previous_etag=None))
    except IndexTaken as taken:
        # An earlier request of ours came through although we gave it up.
        if not _alike(taken.index, index):
            raise
        index, etag = taken.index, taken.etag
    await failpoint(Failpoint.PS_TIMELINE_STORED)
    if not await tenants.bounded(what, tenant.remote.is_newest(tenant.generation)):
        raise Conflict(f"tenant {tenant.tenant_id} was attached elsewhere since")
    timeline = await tenant.add_timeline(index, etag)
    await failpoint(Failpoint.PS_TIMELINE_LOADED)
    return timeline


def _alike(one: TimelineIndex, other: TimelineIndex) -> bool:
    return (
        not one.layers
        and one.pg_version == other.pg_version
        and one.initdb_lsn == other.initdb_lsn
        and one.ancestor_timeline_id == other.ancestor_timeline_id
    )
