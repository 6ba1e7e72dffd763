"""Documents that a node trusts: no altered byte of any of them is believed, nothing is lost by it.

Found by a campaign: rot in the list of attached tenants changed a tenant's id, and the node removed
the files of the tenant that was attached.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest

from storage import checked_json
from storage.durable import read_file, replace_file
from storage.errors import CorruptData
from storage.lsn import Lsn
from storage.pageserver import attached
from storage.pageserver.index import TimelineIndex
from storage.pageserver.layer_files import TENANTS
from storage.pageserver.remote import Attachment
from storage.tests.pageserver_world import TENANT, TIMELINE, KvHistory, Rig, flush, ingest, play

BODY = {"tenants": {TENANT: 3}, "note": "é\n", "nested": [1, {"a": None}]}


def damaged(data: bytes) -> Iterator[bytes]:
    """Every single bit flipped, every end cut off, and something added."""
    for position in range(len(data)):
        for bit in range(8):
            flipped = bytearray(data)
            flipped[position] ^= 1 << bit
            yield bytes(flipped)
    for length in range(len(data)):
        yield data[:length]
    yield data + b" "
    yield data.replace(b" ", b"\t", 1)


def refuse_damage(decode: Callable[[bytes], object], data: bytes) -> None:
    """Demand that every damaged variant of some data is refused by the name ``here``."""
    for variant in damaged(data):
        with pytest.raises(CorruptData, match="here"):
            decode(variant)


def test_a_document_survives_and_no_altered_bit_of_it_is_believed() -> None:
    data = checked_json.encode(BODY, 1)
    assert checked_json.decode(data, 1, "here") == BODY
    refuse_damage(lambda variant: checked_json.decode(variant, 1, "here"), data)


def test_another_version_is_refused_with_both() -> None:
    with pytest.raises(CorruptData, match="here has format 2; this node reads 1"):
        checked_json.decode(checked_json.encode(BODY, 2), 1, "here")


@pytest.mark.parametrize("text", [b"", b"[]", b"3", b"null", b"{}", b'{"format": 1}', b"\xff\xfe"])
def test_what_is_no_document_is_refused(text: bytes) -> None:
    with pytest.raises(CorruptData, match="here is no document of ours"):
        checked_json.decode(text, 1, "here")


def test_no_altered_bit_of_what_the_object_store_holds_is_believed() -> None:
    index = TimelineIndex(TIMELINE, 3, 15, Lsn(8), Lsn(64), Lsn(8), ancestor_lsn=Lsn(8))
    assert TimelineIndex.decode(index.encode(), "here") == index
    refuse_damage(lambda data: TimelineIndex.decode(data, "here"), index.encode())
    attachment = Attachment(TENANT, 3, "ps0")
    assert Attachment.decode(attachment.encode(), "here") == attachment
    refuse_damage(lambda data: Attachment.decode(data, "here"), attachment.encode())


def test_no_altered_bit_of_the_attached_tenants_is_believed_and_no_file_is_removed() -> None:
    async def story(rig: Rig) -> None:
        history = KvHistory()
        timeline = await rig.timeline()
        history.fill(20)
        await ingest(timeline, history)
        await flush(timeline)
        await rig.tenants.stop()
        before = list(rig.disk.snapshot().directories)
        data = await read_file(rig.disk.view(), attached.PATH)
        for position in range(len(data)):
            rotten = bytearray(data)
            rotten[position] ^= 1 << position % 8
            await replace_file(rig.disk.view(), attached.PATH, bytes(rotten))
            rig.begin()
            with pytest.raises(CorruptData, match=r"attached\.json .*attach its tenants again"):
                await rig.tenants.load_attached()
            assert list(rig.disk.snapshot().directories) == before
            assert rig.tenants.all() == []

    play(story)


def test_without_the_list_nobody_knows_whose_the_files_are() -> None:
    async def story(rig: Rig) -> None:
        await rig.timeline()
        await rig.tenants.stop()
        await rig.disk.view().unlink(attached.PATH)
        rig.begin()
        with pytest.raises(CorruptData, match=r"tenants has 1 entries but attached\.json is miss"):
            await rig.tenants.load_attached()
        assert await rig.disk.view().listdir(TENANTS) == [TENANT]

    play(story)


def test_what_no_pageserver_named_is_left_alone() -> None:
    async def story(rig: Rig) -> None:
        await rig.timeline()
        disk = rig.disk.view()
        directory = f"{TENANTS}/{TENANT}/timelines/{TIMELINE}"
        foreign = [f"{TENANTS}/lost+found", f"{TENANTS}/{TENANT}/timelines/mine"]
        leftovers = [f"{TENANTS}/{'d' * 32}", f"{TENANTS}/{TENANT}/timelines/{'d' * 32}"]
        for path in (*foreign, *leftovers):
            await disk.mkdir(path)
        await replace_file(disk, f"{directory}/notes", b"by hand")
        await (await disk.open(f"{directory}/delta0.tmp", create=True)).close()
        await rig.restart()
        disk = rig.disk.view()
        assert await read_file(disk, f"{directory}/notes") == b"by hand"
        assert not await disk.exists(f"{directory}/delta0.tmp")
        assert [await disk.exists(path) for path in foreign] == [True, True]
        assert [await disk.exists(path) for path in leftovers] == [False, False]

    play(story)


def test_an_object_in_the_place_of_another_is_refused() -> None:
    async def story(rig: Rig) -> None:
        await rig.timeline()
        remote = rig.tenants.get(TENANT).remote
        bucket = rig.store.bucket
        key = remote.index_key(TIMELINE, 1)
        later = remote.index_key(TIMELINE, 2)
        await remote.put(later, bucket.get(key))
        with pytest.raises(CorruptData, match=rf"{later} is the index of timeline .* generation 1"):
            await remote.indexes()
        record = f"pageserver/{TENANT}/generation.json"
        await remote.put(record, Attachment(type(TENANT)("d" * 32), 1, "ps0").encode())
        with pytest.raises(CorruptData, match=rf"{record} is of tenant d"):
            await remote.newest_attachment()
        await remote.delete(later)
        await remote.put(record, Attachment(TENANT, 1, "ps0").encode())

    play(story)
