"""The list of attached tenants: local, durable before anybody is told of a change.

What it does not name is removed from the disk, so it is believed whole or not at all.
"""

from __future__ import annotations

from storage import checked_json
from storage.durable import read_settled, replace_file
from storage.errors import CorruptData, FileMissing
from storage.ids import TenantId
from storage.ports import Disk

PATH = "attached.json"
FORMAT_VERSION = 1


async def load(disk: Disk) -> dict[TenantId, int] | None:
    """Attached tenants with their last known generation; ``None`` on a disk without the list.

    Raises ``CorruptData`` naming the file and ``DiskError``.
    """
    try:
        data = await read_settled(disk, PATH)
    except FileMissing:
        return None
    try:
        body = checked_json.decode(data, FORMAT_VERSION, PATH)
        return {TenantId(t): int(g) for t, g in body["tenants"].items()}
    except (CorruptData, ValueError, KeyError, TypeError, AttributeError) as error:
        raise CorruptData(
            f"{PATH} is no list of attached tenants ({error}); erase this node's disk and attach "
            f"its tenants again: the object store has them"
        ) from error


async def save(disk: Disk, tenants: dict[TenantId, int]) -> None:
    """Replace the list, durably; ``DiskError``."""
    body = {"tenants": dict(sorted(tenants.items()))}
    await replace_file(disk, PATH, checked_json.encode(body, FORMAT_VERSION))
