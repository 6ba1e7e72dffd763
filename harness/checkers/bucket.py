"""Remote referential integrity: what the bucket holds is whole, and nothing in it is forgotten.

Layout: ARCHITECTURE.md, "Broker keys and S3 layout". Judged is the newest index of each timeline;
an older one is a leftover. Every layer it names exists, with its size; no layer, and no index, is
of a later attachment than what names it; no layer ends beyond ``disk_consistent_lsn``; no two
deltas hold versions of the same keys from the same stretch of WAL; ancestors exist; the object
store has everything that a pageserver reported to be there.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import google_crc32c

from harness.errors import CheckFailed
from storage.errors import ObjectMissing
from storage.lsn import Lsn
from storage.ports import ObjectStore

CHECKER = "bucket"
SHOWN = 5

_ATTACHMENT = re.compile(r"pageserver/([0-9a-f]{32})/generation\.json\Z")
_INDEX = re.compile(
    r"pageserver/([0-9a-f]{32})/timelines/([0-9a-f]{32})/index-([0-9a-f]{8})\.json\Z"
)
_LAYER = re.compile(
    r"pageserver/([0-9a-f]{32})/timelines/([0-9a-f]{32})/layers/"
    r"(?:delta0|delta1|image)-[0-9a-f]{36}-[0-9a-f]{36}-[0-9a-f]{16}-([0-9a-f]{16})-([0-9a-f]{8})\Z"
)

Timeline = tuple[str, str]
"""Tenant and timeline id."""


@dataclass
class Bucket:
    """The pageservers' part of a bucket. Sizes in bytes; indexes by timeline and generation."""

    sizes: dict[str, int] = field(default_factory=dict)
    attachments: dict[str, Mapping[str, Any]] = field(default_factory=dict)
    indexes: dict[Timeline, dict[int, Mapping[str, Any]]] = field(default_factory=dict)

    def newest(self, timeline: Timeline) -> Mapping[str, Any]:
        """The index that counts."""
        generations = self.indexes[timeline]
        return generations[max(generations)]

    def leftovers(self, tenant: str, generation: int) -> list[str]:
        """Objects of a tenant that no newest index of ``generation`` or later needs.

        Timelines without an index of that generation are left out: their attachment has not come
        to clean up yet.
        """
        found: list[str] = []
        for timeline in self.indexes:
            if timeline[0] == tenant and max(self.indexes[timeline]) >= generation:
                prefix = _prefix(timeline)
                needed = {
                    f"{prefix}layers/{layer['name']}" for layer in self.newest(timeline)["layers"]
                }
                needed.add(f"{prefix}index-{max(self.indexes[timeline]):08x}.json")
                found += [key for key in self.sizes if key.startswith(prefix) and key not in needed]
        return found


async def read_bucket(objects: ObjectStore, prefix: str = "pageserver/") -> Bucket:
    """List everything, and read what names other things. ``CheckFailed`` for what is unreadable."""
    bucket = Bucket()
    for info in await objects.list(prefix):
        bucket.sizes[info.key] = info.size
        attachment, index = _ATTACHMENT.match(info.key), _INDEX.match(info.key)
        if attachment is None and index is None:
            if _LAYER.match(info.key) is None:
                raise _failure(f"object {info.key} is nothing that a pageserver may write")
            continue
        try:
            data = await objects.get(info.key)
        except ObjectMissing:
            del bucket.sizes[info.key]  # Removed since the listing.
            continue
        if attachment is not None:
            bucket.attachments[attachment[1]] = _parse(info.key, data)
        elif index is not None:
            body = _parse_index(info.key, data)
            bucket.indexes.setdefault((index[1], index[2]), {})[int(index[3], 16)] = body
    return bucket


def check_bucket(bucket: Bucket, reported: Mapping[Timeline, Lsn] | None = None) -> int:
    """Check a bucket that nobody writes to; returns how many layers the newest indexes name.

    ``reported``: the highest ``remote_consistent_lsn`` a pageserver told of each timeline.
    """
    named = 0
    for timeline, generations in sorted(bucket.indexes.items()):
        index, generation = bucket.newest(timeline), max(generations)
        what = f"{_prefix(timeline)}index-{generation:08x}.json"
        _check_generation(bucket, timeline, generation, what)
        ancestor = index["ancestor_timeline_id"]
        if ancestor is not None and (timeline[0], ancestor) not in bucket.indexes:
            raise _failure(f"{what} has ancestor {ancestor}, which has no index")
        for layer in index["layers"]:
            _check_layer(bucket, timeline, (generation, index), layer)
            named += 1
        _check_deltas_apart(what, [layer["name"] for layer in index["layers"]])
    for timeline, lsn in sorted((reported or {}).items()):
        if timeline not in bucket.indexes:
            raise _failure(f"timeline {timeline} has no index, but {lsn} was reported as remote")
        stored = Lsn.parse(bucket.newest(timeline)["disk_consistent_lsn"])
        if stored < lsn:
            raise _failure(
                f"timeline {'/'.join(timeline)}: remote_consistent_lsn {lsn} was reported, but the "
                f"newest index is consistent up to {stored} only"
            )
    return named


def _check_generation(bucket: Bucket, timeline: Timeline, generation: int, what: str) -> None:
    attachment = bucket.attachments.get(timeline[0])
    if attachment is None:
        raise _failure(f"{what}: its tenant has no generation.json")
    if generation > attachment["generation"]:
        raise _failure(f"{what} is of a later attachment than the newest, {attachment}")
    if bucket.newest(timeline)["generation"] != generation:
        raise _failure(f"{what} says generation {bucket.newest(timeline)['generation']}")
    if bucket.newest(timeline)["timeline_id"] != timeline[1]:
        raise _failure(f"{what} says timeline {bucket.newest(timeline)['timeline_id']}")


def _check_layer(
    bucket: Bucket,
    timeline: Timeline,
    owner: tuple[int, Mapping[str, Any]],
    layer: Mapping[str, Any],
) -> None:
    key = f"{_prefix(timeline)}layers/{layer['name']}"
    generation, index = owner
    match = _LAYER.match(key)
    if match is None:
        raise _failure(f"index of generation {generation} names {key}, which is no layer")
    size = bucket.sizes.get(key)
    if size is None:
        raise _failure(f"index of generation {generation} names {key}, which does not exist")
    if size != layer["size"]:
        raise _failure(f"{key} has {size} bytes, its index says {layer['size']}")
    if int(match[4], 16) > generation:
        raise _failure(f"index of generation {generation} names the later {key}")
    consistent = Lsn.parse(index["disk_consistent_lsn"])
    if int(match[3], 16) > consistent + 1:
        raise _failure(f"{key} ends beyond disk_consistent_lsn {consistent} of its index")


def _check_deltas_apart(what: str, names: list[str]) -> None:
    """A reader takes whole layers, newest first: what it finds in one hides all that is older."""
    deltas = sorted(
        (start, end, first, last, name)
        for kind, first, last, start, end, _, name in ((*n.split("-"), n) for n in names)
        if kind != "image"
    )
    reaching: list[tuple[str, str, str, str, str]] = []
    for delta in deltas:
        start, _, first, last, name = delta
        reaching = [other for other in reaching if other[1] > start]
        for _, _, other_first, other_last, other in reaching:
            if first <= other_last and other_first <= last:
                raise _failure(f"{what} names {other} and {name}, which overlap")
        reaching.append(delta)


def _parse(key: str, data: bytes) -> Mapping[str, Any]:
    try:
        body = json.loads(data)
    except ValueError as error:
        raise _failure(f"{key} is no JSON: {error}") from error
    if not isinstance(body, dict):
        raise _failure(f"{key} is no JSON object: {data[:40]!r}")
    return body


def _parse_index(key: str, data: bytes) -> Mapping[str, Any]:
    body = dict(_parse(key, data))
    stored = body.pop("checksum", None)
    found = f"{google_crc32c.value(json.dumps(body, sort_keys=True).encode()):08x}"
    if stored != found:
        raise _failure(f"{key} has checksum {found}, not {stored} as it says")
    return body


def _prefix(timeline: Timeline) -> str:
    return f"pageserver/{timeline[0]}/timelines/{timeline[1]}/"


def _failure(what: str) -> CheckFailed:
    return CheckFailed(what, checker=CHECKER)
