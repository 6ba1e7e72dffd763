"""The contract of ``storage.ports.ObjectStore``, on every implementation."""

from __future__ import annotations

import asyncio

import pytest

from scenarios.ports.lab import Lab
from storage.errors import ObjectMissing, ObjectStoreError, PreconditionFailed
from storage.ports import ObjectInfo

STRANGE_KEYS = ["with space", "plus+percent%25", "ünïcode/日本", "a//b", "dots/../up", "=&?#", "~"]


async def test_what_is_put_is_read(lab: Lab) -> None:
    """Whole, in part, and by its description, at once and from another node."""
    store, other = lab.objects("a"), lab.objects("b")

    etag = await store.put("k", b"0123456789")

    assert await store.get("k") == b"0123456789"
    assert await other.get("k") == b"0123456789"
    assert await other.head("k") == ObjectInfo("k", 10, etag)
    assert await other.list("") == [ObjectInfo("k", 10, etag)]


async def test_put_replaces_the_whole_object(lab: Lab) -> None:
    """Nothing of a longer predecessor remains, and the etag tells the difference."""
    store = lab.objects()
    old = await store.put("k", b"a longer object")

    new = await store.put("k", b"short")

    assert await store.get("k") == b"short"
    assert new != old
    assert (await store.head("k")).etag == new


async def test_a_missing_object(lab: Lab) -> None:
    """Every way of reading says that it is missing; deleting it is harmless."""
    store = lab.objects()
    await store.put("k/below", b"x")

    for read in (
        lambda: store.get("k"),
        lambda: store.head("k"),
        lambda: store.get_range("k", 0, 1),
        lambda: store.get_range("k", 0, 0),
    ):
        with pytest.raises(ObjectMissing, match="k"):
            await read()
    await store.delete("k")
    assert await store.list("nothing") == []


async def test_ranges_end_where_the_object_ends(lab: Lab) -> None:
    """A range may begin or end beyond the object and is then short or empty."""
    store = lab.objects()
    await store.put("k", b"0123456789")
    await store.put("empty", b"")

    assert await store.get_range("k", 2, 3) == b"234"
    assert await store.get_range("k", 8, 100) == b"89"
    assert await store.get_range("k", 9, 1) == b"9"
    assert await store.get_range("k", 10, 1) == b""
    assert await store.get_range("k", 100, 1) == b""
    assert await store.get_range("k", 5, 0) == b""
    assert await store.get_range("empty", 0, 10) == b""
    assert await store.get("empty") == b""


async def test_impossible_arguments_are_the_callers_mistake(lab: Lab) -> None:
    """A negative range and an empty key are no errors of the store."""
    store = lab.objects()

    for call in (
        lambda: store.get_range("k", -1, 1),
        lambda: store.get_range("k", 0, -1),
        lambda: store.put("", b""),
        lambda: store.delete(""),
    ):
        with pytest.raises(ValueError, match=r"negative|at least one character"):
            await call()


async def test_delete_removes(lab: Lab) -> None:
    """Once a delete has returned nobody sees the object; it can be put again."""
    store = lab.objects()
    await store.put("k", b"x")

    await store.delete("k")

    with pytest.raises(ObjectMissing):
        await store.get("k")
    assert await store.list("") == []
    await store.put("k", b"again")
    assert await store.get("k") == b"again"


async def test_list_is_complete_and_in_key_order(lab: Lab) -> None:
    """More keys than one page of an answer holds, and a prefix that is part of a name."""
    store = lab.objects()
    keys = [f"p/{number}" for number in range(25)]
    await asyncio.gather(*(store.put(key, key.encode()) for key in [*keys, "o", "p", "q/1"]))

    assert [each.key for each in await store.list("p/")] == sorted(keys)
    assert [each.key for each in await store.list("p/2")] == sorted(
        key for key in keys if key.startswith("p/2")
    )
    assert [each.key for each in await store.list("")] == ["o", "p", *sorted(keys), "q/1"]
    assert all(each.size == len(each.key) for each in await store.list("p/"))


async def test_strange_keys_are_only_keys(lab: Lab) -> None:
    """No character is a path, a query or an escape."""
    store = lab.objects()

    for key in STRANGE_KEYS:
        await store.put(key, key.encode())

    for key in STRANGE_KEYS:
        assert await store.get(key) == key.encode()
        assert (await store.head(key)).key == key
    assert [each.key for each in await store.list("")] == sorted(STRANGE_KEYS)
    for key in STRANGE_KEYS:
        await store.delete(key)
    assert await store.list("") == []


async def test_a_large_object_survives_whole(lab: Lab) -> None:
    """Eight megabytes, every byte value, read back whole and in the middle."""
    store = lab.objects()
    data = bytes(range(256)) * 32768

    await store.put("large", data)

    assert await store.get("large") == data
    assert await store.get_range("large", 5_000_003, 300) == data[5_000_003:5_000_303]


async def test_if_absent_lets_exactly_one_win(lab: Lab) -> None:
    """However many nodes put at once: one object, the winner's."""
    stores = [lab.objects(node) for node in ("a", "b", "c")]

    outcomes = await asyncio.gather(
        *(stores[i % 3].put("k", b"%d" % i, if_absent=True) for i in range(12)),
        return_exceptions=True,
    )

    winners = [i for i, outcome in enumerate(outcomes) if isinstance(outcome, str)]
    losers = [each for each in outcomes if isinstance(each, PreconditionFailed)]
    assert len(winners) == 1
    assert len(losers) == 11
    assert await stores[0].get("k") == b"%d" % winners[0]


async def test_if_etag_is_compare_and_swap(lab: Lab) -> None:
    """Only who knows the present object may replace it; a missing one cannot be known."""
    store = lab.objects()
    first = await store.put("k", b"1")
    second = await store.put("k", b"2", if_etag=first)

    with pytest.raises(PreconditionFailed):
        await store.put("k", b"3", if_etag=first)
    with pytest.raises(PreconditionFailed):
        await store.put("missing", b"3", if_etag=second)

    assert await store.get("k") == b"2"
    with pytest.raises(ObjectMissing):
        await store.get("missing")


async def test_if_etag_lets_exactly_one_win(lab: Lab) -> None:
    """Concurrent swaps from one state: the second one sees another state."""
    store = lab.objects()
    etag = await store.put("k", b"start")

    outcomes = await asyncio.gather(
        *(store.put("k", b"%d" % i, if_etag=etag) for i in range(8)), return_exceptions=True
    )

    assert sum(isinstance(each, str) for each in outcomes) == 1
    assert sum(isinstance(each, PreconditionFailed) for each in outcomes) == 7


async def test_an_outage_is_an_error_and_ends(lab: Lab) -> None:
    """Every operation fails with the port's own error, and none once the store is back."""
    store = lab.objects()
    await store.put("k", b"x")

    await lab.objects_outage()
    for call in (
        lambda: store.get("k"),
        lambda: store.put("k", b"y"),
        lambda: store.list(""),
        lambda: store.delete("k"),
    ):
        with pytest.raises(ObjectStoreError) as raised:
            await call()
        assert not isinstance(raised.value, ObjectMissing | PreconditionFailed)

    await lab.objects_restore()
    assert await store.get("k") == b"x"


async def test_a_lost_reply_hides_a_success(lab: Lab) -> None:
    """The caller cannot know and is told so; the store has done it."""
    store = lab.objects()
    await store.put("gone", b"x")

    await lab.lose_replies()
    put, delete, get = await asyncio.gather(
        store.put("k", b"done"), store.delete("gone"), store.get("k"), return_exceptions=True
    )
    await lab.objects_restore()

    assert isinstance(put, ObjectStoreError)
    assert put.may_have_happened
    assert isinstance(delete, ObjectStoreError)
    assert delete.may_have_happened
    assert isinstance(get, ObjectStoreError)
    assert not get.may_have_happened
    assert await store.get("k") == b"done"
    assert [each.key for each in await store.list("")] == ["k"]


async def test_wrong_credentials_change_nothing(lab: Lab) -> None:
    """The message says what to check, and that nothing happened is certain."""
    stranger, store = lab.objects("a", credentials=False), lab.objects("b")

    for call in (
        lambda: stranger.put("k", b"x"),
        lambda: stranger.get("k"),
        lambda: stranger.head("k"),
        lambda: stranger.list(""),
        lambda: stranger.delete("k"),
    ):
        with pytest.raises(ObjectStoreError, match=r"refused|credentials") as raised:
            await call()
        assert type(raised.value) is ObjectStoreError
        assert not raised.value.may_have_happened
    assert await store.list("") == []


async def test_a_cancelled_put_happens_whole_or_not(lab: Lab) -> None:
    """Whoever gives up early still never leaves a torn object."""
    store = lab.objects()
    await store.put("k", b"old" * 1000)
    put = asyncio.ensure_future(store.put("k", b"new!" * 1000))
    await asyncio.sleep(0)

    put.cancel()
    await asyncio.gather(put, return_exceptions=True)

    assert await store.get("k") in (b"old" * 1000, b"new!" * 1000)
