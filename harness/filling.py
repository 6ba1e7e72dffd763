"""Fills WAL segments quickly, by transactions that change many pages at once; and offloads them
by hand, where a test wants to say when."""

from __future__ import annotations

from typing import TYPE_CHECKING

from harness.endpoint_handle import EndpointHandle
from harness.errors import HarnessError
from harness.storage_taps import wal_bytes
from storage.ids import TenantTimelineId
from storage.lsn import Lsn

if TYPE_CHECKING:
    from harness.cluster import Cluster

_PAGES = 32
_KEYS_PER_PAGE = 16
_PAGE_STRIDE = 32
FIRST_KEY = 100_000


async def fill_wal(endpoint: EndpointHandle, size: int) -> Lsn:
    """Write until the WAL is ``size`` bytes longer; returns the last commit's LSN.

    For computes that tell LSNs (walgen).
    """
    begin = await _transaction(endpoint, 0)
    end, number = begin, 0
    while end - begin < size:
        number += 1
        end = await _transaction(endpoint, number)
    return end


async def _transaction(endpoint: EndpointHandle, number: int) -> Lsn:
    """Some 100 KiB of WAL: half of each of 32 pages."""
    keys = [
        FIRST_KEY + page * _PAGE_STRIDE + key
        for page in range(_PAGES)
        for key in range(_KEYS_PER_PAGE)
    ]
    # Values are unique, so that a read names the write it saw.
    lsn = await endpoint.txn({key: f"{endpoint.name} {endpoint.now_s()} {number} {key} "
                              .ljust(200, "x") for key in keys})  # fmt: skip
    if lsn is None:
        raise HarnessError(f"{endpoint.name} tells no LSN; use walgen")
    return lsn


async def offload_by_hand(cluster: Cluster, timeline: TenantTimelineId, end_lsn: Lsn) -> None:
    """Do what an offloader would: whole segments up to ``end_lsn``, under the names it gives.

    For a timeline that begins with a segment, and segments below 4 GiB of WAL.
    """
    safekeeper, size = cluster.safekeeper(0), cluster.topology.wal_segment_size
    objects = cluster.world.backend.admin_objects()
    lsn = (await safekeeper.timeline(timeline)).timeline_start_lsn
    assert lsn % size == 0, f"the timeline begins at {lsn}, within a segment"
    while lsn < end_lsn:
        data = await wal_bytes(safekeeper, timeline, lsn, Lsn(lsn + size))
        name = f"{1:08X}{0:08X}{lsn // size:08X}"
        await objects.put(f"safekeeper/{timeline.tenant_id}/{timeline.timeline_id}/{name}", data)
        lsn = Lsn(lsn + size)
