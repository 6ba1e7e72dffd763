"""The bucket online: judged at the moment a pageserver tells of it, and not a moment later."""

from __future__ import annotations

import asyncio

import pytest

from harness.backend import Event
from harness.checkers.bucket_watch import BucketWatch, at_once
from harness.errors import CheckFailed
from harness.tests.test_bucket import MAIN, TENANT, MemoryStore, layer, remove, whole
from harness.topology import THREE_SAFEKEEPERS
from harness.verdict import RunSettings
from harness.world import World
from sim.runner import SimRunner
from storage.pageserver.remote import RemoteTenant
from storage.roles import ROLES


def told(lsn: int, node: str = "ps1", name: str = "remote_consistent_lsn") -> Event:
    fields = {"tenant": TENANT, "timeline": MAIN, "name": name, "value": lsn}
    return Event(1.5, node, "lsn", fields)


def look(store: MemoryStore, event: Event) -> bool:
    return BucketWatch(store).observe(event)  # type: ignore[arg-type]


def test_only_what_pageservers_tell_of_the_bucket_is_looked_at() -> None:
    broken = whole()
    broken.objects.clear()
    assert look(whole(), told(0x20))
    assert look(whole(), told(0x20, "sk1"))
    assert not look(broken, told(0, "sk1")), "a safekeeper that was told of nothing"
    assert not look(broken, told(0x20, name="disk_consistent_lsn"))
    assert not look(broken, Event(1.0, "ps1", "term", {"term": 1}))


def test_what_is_not_there_when_it_is_told_is_seen() -> None:
    with pytest.raises(CheckFailed, match=r"at 1\.5.* ps1 told that 0/21 of b+ .* 0/20 only"):
        look(whole(), told(0x21))
    store = whole()
    remove(layer(0x11, 1))(store)
    with pytest.raises(CheckFailed, match="which does not exist") as failure:
        look(store, told(0x20))
    assert failure.value.checker == "bucket"


def test_what_a_safekeeper_believes_must_be_in_the_index_by_then() -> None:
    with pytest.raises(
        CheckFailed, match=r"sk2 told that 0/21 .* consistent up to 0/20"
    ) as failure:
        look(whole(), told(0x21, "sk2"))
    assert failure.value.checker == "bucket"
    store = whole()
    for key in list(store.objects):
        if MAIN in key:
            remove(key)(store)
    with pytest.raises(CheckFailed, match="it has no index"):
        look(store, told(0x20, "sk2"))
    store = whole()
    remove(layer(0x11, 1))(store)
    assert look(store, told(0x20, "sk2")), "layers are for pageservers to answer for"


def test_a_bucket_that_takes_time_is_refused() -> None:
    with pytest.raises(AssertionError, match="takes time"):
        at_once(asyncio.sleep(0))


async def checkpoints(world: World) -> None:
    cluster = await world.start(THREE_SAFEKEEPERS)
    main = await cluster.endpoint("main")
    for number in range(3):
        await main.put(number, "x")
        await cluster.caught_up(cluster.pageserver(0), main.timeline)
        await cluster.pageserver(0).checkpoint(main.timeline)


def test_a_layer_that_is_named_before_it_is_there_ends_the_run(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    settings = RunSettings("sim", "walgen", 2)
    whole_run = SimRunner(ROLES).run(checkpoints, settings)
    assert whole_run.error is None

    put = RemoteTenant.put

    async def put_late(self: RemoteTenant, key: str, data: bytes) -> None:
        if "/layers/" in key:
            await self.persistently("nothing", lambda: asyncio.sleep(0))
        else:
            await put(self, key, data)

    monkeypatch.setattr(RemoteTenant, "put", put_late)
    result = SimRunner(ROLES).run(checkpoints, settings)
    assert isinstance(result.error, CheckFailed), result.error
    assert result.error.checker == "bucket"
    assert "which does not exist" in str(result.error)
    assert result.virtual_s < whole_run.virtual_s
    assert result.commits == 1
