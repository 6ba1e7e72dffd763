"""A warm copy: layer files of a tenant that lives elsewhere, downloaded before it moves here.

It only reads the object store, claims nothing and answers nobody. What the newest indexes name is
brought to where an attachment would look for it; everything else of the tenant goes. The files are
a cache that a restart forgets.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass

from storage.errors import CorruptData, NotReady, ObjectMissing
from storage.ids import TenantId, TenantTimelineId
from storage.pageserver.environment import Environment
from storage.pageserver.index import TimelineIndex
from storage.pageserver.layer import Layer
from storage.pageserver.layer_files import LayerFiles
from storage.pageserver.remote import RemoteTenant
from storage.tasks import interruptible

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Warmed:
    """Layers that are on disk now, and bytes that had to be downloaded for it."""

    layers: int
    downloaded_bytes: int


async def warm_up(environment: Environment, tenant_id: TenantId, remote: RemoteTenant) -> Warmed:
    """Bring every layer of a tenant to this disk.

    Raises ``NotFound`` for no tenant, ``NotReady`` when its owner removed a layer meanwhile (ask
    again) and ``PortError``.
    """
    layers = downloaded = 0
    async with interruptible():
        await remote.newest_attachment()
        for index in (await remote.indexes()).values():
            if not index.deleted:
                found = await _warm_timeline(environment, tenant_id, (remote, index))
                layers += found.layers
                downloaded += found.downloaded_bytes
    return Warmed(layers, downloaded)


async def _warm_timeline(
    environment: Environment, tenant_id: TenantId, source: tuple[RemoteTenant, TimelineIndex]
) -> Warmed:
    remote, index = source
    ident = TenantTimelineId(tenant_id, index.timeline_id)
    files = LayerFiles(environment, ident, remote)
    layers = await files.load(index.layers)
    downloaded = 0
    try:
        for layer in layers:
            if not await files.is_here(layer):
                await _download(files, layer)
                downloaded += layer.size
    finally:
        # Whoever attaches the tenant accounts for the files anew.
        for layer in layers:
            await files.release(layer)
    return Warmed(len(layers), downloaded)


async def _download(files: LayerFiles, layer: Layer) -> None:
    """``NotReady`` for a layer that the owner has removed since its index was read."""
    try:
        await files.fetch(layer)
    except (CorruptData, ObjectMissing) as error:
        raise NotReady(f"{layer.name} changed while it was downloaded: {error}") from error
