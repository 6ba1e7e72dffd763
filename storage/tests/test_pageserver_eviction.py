"""The disk is a cache: what exceeds its budget goes, and comes back when it is read."""

from __future__ import annotations

import asyncio
import random

import pytest

from storage.errors import NotReady
from storage.pageserver.disk_budget import DiskBudget, may_evict
from storage.pageserver.layer import pinned
from storage.pageserver.timeline import Timeline
from storage.tasks import TaskKind
from storage.tests.pageserver_world import (
    TENANT,
    TIMELINE,
    KvHistory,
    Rig,
    check,
    flush,
    ingest,
    kv_key,
    play,
)


async def layers_of(rig: Rig, history: KvHistory, count: int = 8) -> Timeline:
    timeline = await rig.timeline()
    for number in range(count):
        history.fill(20, keys=200, seed=number)
        await ingest(timeline, history)
        await flush(timeline)
    return timeline


def start(rig: Rig) -> DiskBudget:
    budget = rig.environment.budget
    rig.environment.registry.spawn(TaskKind.EVICTION, "budget", budget.run())
    return budget


async def files_of(rig: Rig) -> int:
    """Bytes of layer files on disk."""
    disk = rig.disk.view()
    directory = f"tenants/{TENANT}/timelines/{TIMELINE}"
    total = 0
    for name in await disk.listdir(directory):
        file = await disk.open(f"{directory}/{name}")
        total += await file.size()
        await file.close()
    return total


def test_files_beyond_the_budget_go_and_every_page_is_still_right():
    async def story(rig: Rig) -> None:
        budget = start(rig)
        history = KvHistory()
        timeline = await layers_of(rig, history)
        await asyncio.sleep(1)
        assert sum(layer.size for layer in timeline.layers) > 3 * budget.budget_bytes
        assert budget.used_bytes <= budget.budget_bytes
        assert await files_of(rig) == budget.used_bytes

        await check(timeline, history, random.Random(1).sample(history.ends, 20))

        assert budget.downloads > 0
        await asyncio.sleep(1)
        assert await files_of(rig) == budget.used_bytes <= budget.budget_bytes

    play(story, disk_budget=20_000, page_cache_size=0)


def test_many_readers_and_the_evictor_do_not_harm_each_other():
    async def story(rig: Rig) -> None:
        budget = start(rig)
        history = KvHistory()
        timeline = await layers_of(rig, history)

        async def read(seed: int) -> None:
            chance = random.Random(seed)
            for _ in range(20):
                lsn = chance.choice(history.ends)
                block = chance.choice(list(history.versions))
                found = await timeline.get(kv_key(block), lsn)
                assert found == history.page(block, lsn)
                await asyncio.sleep(chance.random() / 10)

        await asyncio.gather(*(read(seed) for seed in range(8)))
        assert budget.evictions > 10

    play(story, disk_budget=10_000, page_cache_size=0)


def test_what_is_not_uploaded_or_is_pinned_stays():
    async def story(rig: Rig) -> None:
        history = KvHistory()
        timeline = await layers_of(rig, history, 1)
        (old,) = timeline.layers
        assert may_evict(old)
        with pinned([old]):
            assert not may_evict(old)
            assert not await timeline.files.evict(old)
        rig.store.outage()
        history.fill(20)
        await ingest(timeline, history)
        timeline.freeze()
        await timeline.disk_consistent.wait_for(history.end)
        new = next(layer for layer in timeline.layers if layer is not old)
        assert not may_evict(new)
        rig.store.restore()
        await timeline.remote_consistent.wait_for(history.end)
        await timeline.uploader.wait_idle()
        assert may_evict(new)

    play(story)


def test_nothing_is_downloaded_until_it_is_read_after_an_attachment_to_an_empty_disk():
    async def story(rig: Rig) -> None:
        history = KvHistory()
        await layers_of(rig, history)
        await rig.tenants.detach(TENANT)
        tenant = await rig.tenants.attach(TENANT)
        await tenant.state.wait_active()
        timeline = tenant.timeline(TIMELINE)
        assert await files_of(rig) == 0
        await check(timeline, history, [history.ends[3]])
        assert 0 < rig.environment.budget.downloads < len(timeline.layers)

    play(story, page_cache_size=0)


def test_a_stale_attachment_whose_layers_were_removed_says_so():
    async def story(rig: Rig) -> None:
        history = KvHistory()
        timeline = await layers_of(rig, history)
        for layer in timeline.layers:
            assert await timeline.files.evict(layer)
        await rig.tenants.get(TENANT).remote.claim_generation("ps1")
        for key in [key for key in rig.keys if "/layers/" in key]:
            await rig.store.view("ps1").delete(key)
        with pytest.raises(NotReady, match="attached elsewhere"):
            await timeline.get(kv_key(0), history.ends[3])

    play(story, page_cache_size=0)
