"""The list of attached tenants: local, durable before anybody is told of a change."""

from __future__ import annotations

import json

from storage.durable import read_file, replace_file
from storage.errors import CorruptData, FileMissing
from storage.ids import TenantId
from storage.ports import Disk

PATH = "attached.json"


async def load(disk: Disk) -> dict[TenantId, int]:
    """Attached tenants with their last known generation; empty on a new disk.

    Raises ``CorruptData`` naming the file and ``DiskError``.
    """
    try:
        data = await read_file(disk, PATH)
    except FileMissing:
        return {}
    try:
        return {TenantId(t): int(g) for t, g in json.loads(data)["tenants"].items()}
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise CorruptData(
            f"{PATH} is no list of attached tenants ({error!r}); remove it and attach them again"
        ) from error


async def save(disk: Disk, tenants: dict[TenantId, int]) -> None:
    """Replace the list, durably; ``DiskError``."""
    await replace_file(disk, PATH, json.dumps({"tenants": dict(sorted(tenants.items()))}).encode())
