"""Waits for what the triggers of a plan name: a time, commits, an event of a node."""

from __future__ import annotations

import asyncio
from collections import Counter
from dataclasses import dataclass

from harness.backend import Event
from harness.faulting.plan import AfterCommits, AtTime, OnEvent, Trigger
from harness.world import World

COMMITS_POLL_S = 0.005


@dataclass
class _Watch:
    trigger: OnEvent
    happened: asyncio.Future[None]
    count: int = 0


class Triggers:
    """The triggers of one run of a plan; counts from its making on."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._began_s = world.now_s()
        self._commits = world.history.commits()
        self._watches: list[_Watch] = []
        self._terms: Counter[str] = Counter()
        self._unfollow = world.backend.follow(self._note)

    async def wait(self, trigger: Trigger) -> None:
        """Return when a trigger's moment has come; perhaps never."""
        match trigger:
            case AtTime(at_s):
                await asyncio.sleep(max(0.0, self._began_s + at_s - self._world.now_s()))
            case AfterCommits(commits):
                while self._world.history.commits() - self._commits < commits:  # noqa: ASYNC110
                    await asyncio.sleep(COMMITS_POLL_S)
            case OnEvent():
                watch = _Watch(trigger, asyncio.get_running_loop().create_future())
                self._watches.append(watch)
                await watch.happened

    def close(self) -> None:
        """Listen no more."""
        self._unfollow()

    def _note(self, event: Event) -> None:
        if event.kind == "term":
            term = event.fields["term"]
            assert isinstance(term, int), f"{event} has no number as term"
            self._terms[event.node] = max(term, self._terms[event.node])
        for watch in self._watches:
            if watch.trigger.matches(event, self._terms[event.node]):
                watch.count += 1
                if watch.count == watch.trigger.count and not watch.happened.done():
                    watch.happened.set_result(None)
