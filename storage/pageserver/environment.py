"""What every part of one pageserver incarnation shares."""

from __future__ import annotations

from dataclasses import dataclass

from storage.lsn import Lsn
from storage.pageserver.disk_budget import DiskBudget
from storage.pageserver.hooks import PostgresHooks
from storage.pageserver.keys import Key
from storage.pageserver.layer_file import BlockCache
from storage.pageserver.options import PageserverOptions
from storage.pageserver.redo import RedoTable
from storage.pageserver.sized_cache import SizedCache
from storage.ports import Ports
from storage.tasks import TaskRegistry

PageCache = SizedCache[tuple[int, Key], tuple[Lsn, bytes]]
"""Rebuilt values: (number of the timeline object, key) → (LSN it is right at, value)."""


@dataclass
class Environment:
    """Ports, options, registry, redo vocabulary and caches of one node incarnation."""

    node: str
    options: PageserverOptions
    ports: Ports
    registry: TaskRegistry
    redo: RedoTable
    postgres: PostgresHooks | None
    blocks: BlockCache
    pages: PageCache
    budget: DiskBudget
    timelines_made: int = 0

    def next_timeline_number(self) -> int:
        """A number that no other timeline object of this incarnation has."""
        self.timelines_made += 1
        return self.timelines_made
