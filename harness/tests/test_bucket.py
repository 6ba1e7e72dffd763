"""The scrub of the bucket: a whole one passes, and each way of being broken is seen."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from typing import Any

import google_crc32c
import pytest

from harness.checkers.bucket import Bucket, check_bucket, read_bucket
from harness.errors import CheckFailed
from storage.errors import ObjectMissing
from storage.lsn import Lsn
from storage.ports import ObjectInfo

TENANT, MAIN, CHILD = "a" * 32, "b" * 32, "c" * 32
PREFIX = f"pageserver/{TENANT}"


def layer(end: int, generation: int, kind: str = "delta0") -> str:
    return f"{kind}-{'0' * 36}-{'f' * 36}-{end - 0x10:016x}-{end:016x}-{generation:08x}"


class MemoryStore:
    """As much of an object store as a scrub needs."""

    def __init__(self) -> None:
        self.objects: dict[str, bytes] = {}

    async def list(self, prefix: str) -> list[ObjectInfo]:
        return [
            ObjectInfo(key, len(data), "")
            for key, data in sorted(self.objects.items())
            if key.startswith(prefix)
        ]

    async def get(self, key: str) -> bytes:
        if key not in self.objects:
            raise ObjectMissing(key)
        return self.objects[key]

    def index(self, timeline: str, number: int, layers: dict[str, int], **fields: Any) -> None:
        body = {
            "timeline_id": timeline,
            "generation": number,
            "disk_consistent_lsn": "0/20",
            "ancestor_timeline_id": None,
            "layers": [{"name": name, "size": size} for name, size in layers.items()],
            **fields,
        }
        checksum = f"{google_crc32c.value(json.dumps(body, sort_keys=True).encode()):08x}"
        key = f"{PREFIX}/timelines/{timeline}/index-{number:08x}.json"
        self.objects[key] = json.dumps({**body, "checksum": checksum}).encode()

    def layer(self, timeline: str, name: str, size: int) -> None:
        self.objects[f"{PREFIX}/timelines/{timeline}/layers/{name}"] = bytes(size)


def whole() -> MemoryStore:
    store = MemoryStore()
    store.objects[f"{PREFIX}/generation.json"] = b'{"generation": 2, "node": "ps1"}'
    store.objects["safekeeper/x/y/0001"] = b"not the pageservers' business"
    store.layer(MAIN, layer(0x11, 1), 10)
    store.layer(MAIN, layer(0x21, 2), 20)
    store.index(MAIN, 2, {layer(0x11, 1): 10, layer(0x21, 2): 20})
    store.index(CHILD, 1, {}, ancestor_timeline_id=MAIN)
    return store


def scrub(store: MemoryStore, **reported: int) -> tuple[Bucket, int]:
    bucket = asyncio.run(read_bucket(store))  # type: ignore[arg-type]
    told = {(TENANT, {"main": MAIN, "child": CHILD}[name]): Lsn(v) for name, v in reported.items()}
    return bucket, check_bucket(bucket, told)


def test_a_whole_bucket() -> None:
    bucket, named = scrub(whole(), main=0x20)
    assert named == 2
    assert bucket.leftovers(TENANT, 1) == []


def remove(suffix: str) -> Callable[[MemoryStore], None]:
    def spoil(store: MemoryStore) -> None:
        (key,) = [key for key in store.objects if key.endswith(suffix)]
        del store.objects[key]

    return spoil


def flip_a_byte(store: MemoryStore) -> None:
    key = f"{PREFIX}/timelines/{MAIN}/index-00000002.json"
    store.objects[key] = store.objects[key].replace(b'"0/20"', b'"0/28"')


def name_a_later_layer(store: MemoryStore) -> None:
    store.layer(CHILD, layer(0x11, 2), 1)
    store.index(CHILD, 1, {layer(0x11, 2): 1})


def overlap(store: MemoryStore) -> None:
    store.layer(MAIN, layer(0x19, 2), 1)
    store.index(MAIN, 2, {layer(0x11, 1): 10, layer(0x19, 2): 1})


BROKEN: dict[str, Callable[[MemoryStore], None]] = {
    "which does not exist": remove(layer(0x11, 1)),
    "has 21 bytes, its index says 20": lambda s: s.layer(MAIN, layer(0x21, 2), 21),
    "has checksum": flip_a_byte,
    "is no JSON": lambda s: s.objects.update({f"{PREFIX}/generation.json": b"{"}),
    "no generation.json": remove("generation.json"),
    "is of a later attachment": lambda s: s.index(CHILD, 3, {}),
    "names the later": name_a_later_layer,
    "ends beyond disk_consistent_lsn 0/18": lambda s: s.index(
        MAIN, 2, {layer(0x21, 2): 20}, disk_consistent_lsn="0/18"
    ),
    "which has no index": lambda s: s.index(CHILD, 1, {}, ancestor_timeline_id="d" * 32),
    "nothing that a pageserver may write": lambda s: s.objects.update({f"{PREFIX}/stray": b""}),
    "which is no layer": lambda s: s.index(CHILD, 1, {"image-1": 1}),
    "which overlap": overlap,
    "says generation 7": lambda s: s.index(CHILD, 1, {}, generation=7),
    "says timeline": lambda s: s.index(CHILD, 1, {}, timeline_id="d" * 32),
}  # fmt: skip


@pytest.mark.parametrize("says", BROKEN)
def test_a_broken_bucket(says: str) -> None:
    store = whole()
    BROKEN[says](store)
    with pytest.raises(CheckFailed, match=says):
        scrub(store)


def test_what_was_reported_must_be_there() -> None:
    with pytest.raises(CheckFailed, match=r"0/21 was reported, but the newest index .* 0/20 only"):
        scrub(whole(), main=0x21)
    store = whole()
    remove("index-00000001.json")(store)
    with pytest.raises(CheckFailed, match="has no index"):
        scrub(store, child=8)


def test_only_the_newest_index_counts_and_the_rest_are_leftovers() -> None:
    store = whole()
    store.index(MAIN, 1, {layer(0x31, 1): 5})
    store.layer(MAIN, layer(0x19, 1), 7)
    bucket, named = scrub(store)
    assert named == 2
    leftovers = [key.rsplit("/", 1)[1] for key in bucket.leftovers(TENANT, 2)]
    assert leftovers == ["index-00000001.json", layer(0x19, 1)]
    assert bucket.leftovers(TENANT, 3) == []
    assert bucket.leftovers("f" * 32, 1) == []
