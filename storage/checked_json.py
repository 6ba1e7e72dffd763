"""Small documents that a node trusts later: JSON with its format version and a CRC-32C inside.

Everything that says who owns what (attached tenants, attachments, indexes, subscriptions) is kept
so, on disks and in the object store: people can read it, and no altered byte of it is believed.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import google_crc32c

from storage.errors import CorruptData

FORMAT = "format"
CHECKSUM = "checksum"


def encode(body: Mapping[str, Any], version: int) -> bytes:
    """JSON text of a body, whose keys are neither of ours."""
    assert FORMAT not in body and CHECKSUM not in body, f"keys of ours among {list(body)}"
    document = {FORMAT: version, **body}
    return json.dumps({**document, CHECKSUM: _checksum(document)}).encode()


def decode(data: bytes, version: int, source: str) -> dict[str, Any]:
    """Inverse of :func:`encode`; ``CorruptData`` names ``source`` and what is wrong.

    Only exactly what :func:`encode` wrote is accepted: what parses to the same body, with other
    spaces say, was not written by us either.
    """
    try:
        body = json.loads(data)
        stored, found = body.pop(CHECKSUM), body.pop(FORMAT)
        whole = encode(body, found) == data
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise CorruptData(f"{source} is no document of ours: {error!r}") from error
    if not whole:
        raise CorruptData(f"{source} fails its checksum {stored}")
    if found != version:
        raise CorruptData(f"{source} has format {found}; this node reads {version}")
    assert isinstance(body, dict)
    return body


def _checksum(document: Mapping[str, Any]) -> str:
    return f"{google_crc32c.value(json.dumps(document, sort_keys=True).encode()):08x}"
