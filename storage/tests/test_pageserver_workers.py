"""Workers of a timeline: what fails around them they survive, what they fail of is not hidden."""

from __future__ import annotations

import asyncio

import pytest

from storage.failpoints import Action, Failpoint, InjectedFailure, Plan
from storage.lsn import Lsn
from storage.pageserver.compaction import Compactor
from storage.pageserver.flush import Flusher
from storage.pageserver.states import Broken, State
from storage.tasks import TaskKind
from storage.tests.pageserver_world import START, KvHistory, Rig, check, flush, ingest, play

DELAY_MAX_S = 30.0


def test_flush_that_fails_once_the_file_is_there_is_made_again() -> None:
    async def story(rig: Rig) -> None:
        history = KvHistory()
        history.fill(200)
        timeline = await rig.timeline()
        points = rig.environment.registry.failpoints
        points.arm(Failpoint.PS_FLUSH_WRITTEN, Plan(Action.RETURN, count=3))
        await ingest(timeline, history)
        await flush(timeline)
        assert timeline.disk_consistent.value == history.end
        assert await check(timeline, history) >= 400
        budget = rig.environment.budget
        assert budget.used_bytes == sum(layer.size for layer in timeline.layers)
        await timeline.files.evict(next(iter(timeline.layers)))

    play(story)


def test_merge_that_fails_once_the_files_are_there_leaves_none() -> None:
    async def story(rig: Rig) -> None:
        history = KvHistory()
        timeline = await rig.timeline()
        points = rig.environment.registry.failpoints
        points.arm(Failpoint.PS_COMPACTION_WRITTEN, Plan(Action.RETURN, count=1))
        for part in range(4):
            history.fill(50, seed=part)
            await ingest(timeline, history)
            await flush(timeline)
        registry = rig.environment.registry
        compactor = Compactor(timeline)
        with pytest.raises(InjectedFailure):
            await registry.spawn(TaskKind.COMPACTION, "by hand", compactor.compact())
        budget = rig.environment.budget
        assert budget.used_bytes == sum(layer.size for layer in timeline.layers)

    play(story, compaction_threshold=4)


def test_worker_that_fails_breaks_its_timeline(monkeypatch: pytest.MonkeyPatch) -> None:
    async def fail(self: Flusher) -> None:
        raise RuntimeError("a slip")

    monkeypatch.setattr(Flusher, "flush_oldest", fail)

    async def story(rig: Rig) -> None:
        history = KvHistory()
        history.fill(5)
        timeline = await rig.timeline()
        await ingest(timeline, history)
        timeline.freeze()
        with pytest.raises(Broken, match="layer_flush failed"):
            async with asyncio.timeout(DELAY_MAX_S):
                await timeline.last_record.wait_for(Lsn(history.end + 8))
        assert timeline.state.state is State.BROKEN
        assert "a slip" in timeline.state.reason
        assert timeline.disk_consistent.value == START

    play(story)
