"""Lose a node and re-attach: S3 and the safekeepers have everything between them.

Once computes have stopped, every pageserver that serves tenants ends, in order or, by chance, not;
loses its disk; comes back and attaches them anew. It must catch up with all that is committed, on
branches too, and serve pages that equal redo of the WAL: what only its disk had is missed now,
whatever the scenario was about.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from harness.checkers.storage_agrees import Models, check_pageserver
from harness.errors import CheckFailed, NotLive
from storage.ids import TenantId

if TYPE_CHECKING:
    from harness.cluster import Cluster
    from harness.nodes import PageserverHandle

CHECKER = "reattachment"
CATCHES_UP_WITHIN_S = 60.0


async def check_reattachment(cluster: Cluster, models: Models) -> int:
    """Lose every pageserver, one after the other, and leave it running; returns how many page
    versions were compared.

    Nothing is asked of a cluster without a majority of safekeepers: WAL that is not in S3 yet may
    be where nobody can read it.
    """
    running = [safekeeper for safekeeper in cluster.safekeepers if safekeeper.running]
    if 2 * len(running) <= len(cluster.safekeepers):
        return 0
    chance = cluster.world.generator("reattachment")
    compared = 0
    for pageserver in cluster.pageservers:
        tenants = await _served(pageserver) if pageserver.running else []
        if tenants:
            await (pageserver.kill() if chance.random() < 0.5 else pageserver.stop())
            await _come_back_empty(pageserver, tenants)
            compared += await _compare(cluster, pageserver, tenants, models)
    return compared


async def _served(pageserver: PageserverHandle) -> list[TenantId]:
    """Tenants whose home a pageserver is."""
    return [
        TenantId(tenant["tenant_id"])
        for tenant in await pageserver.http("GET", "/tenant")
        if tenant["state"] == "Active" and not tenant["superseded"]
    ]


async def _come_back_empty(pageserver: PageserverHandle, tenants: list[TenantId]) -> None:
    await pageserver.wipe()
    await pageserver.start()
    for tenant_id in tenants:
        await pageserver.attach(tenant_id)


async def _compare(
    cluster: Cluster,
    pageserver: PageserverHandle,
    tenants: list[TenantId],
    models: Models,
) -> int:
    compared = 0
    for timeline in cluster.timelines:
        model = models.get(str(timeline))
        if timeline.tenant_id not in tenants or model is None:
            continue
        await cluster.subscribe(timeline, pageserver)
        try:
            await cluster.caught_up(pageserver, timeline, within_s=CATCHES_UP_WITHIN_S)
            pages_max = cluster.world.pages_max
            compared += await check_pageserver(pageserver, timeline, model, pages_max)
        except NotLive as error:
            raise NotLive(f"{_what(pageserver)}: {error}", checker=CHECKER) from error
        except CheckFailed as error:
            raise CheckFailed(f"{_what(pageserver)}: {error}", checker=CHECKER) from error
    return compared


def _what(pageserver: PageserverHandle) -> str:
    return f"after {pageserver.name} lost its disk at the end and attached its tenants anew"
