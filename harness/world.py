"""The world as a scenario sees it: start a cluster, cause faults, wait for what must come true.

One class for every world; a world's own part is the :class:`harness.backend.Backend` below it.
"""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping
from typing import TypeVar

from harness.backend import Ability, Backend
from harness.checkers.catalogue import judged_by
from harness.checkers.followers import count_quorums, watch_over
from harness.checkers.logs import Allowance
from harness.cluster import Cluster
from harness.compute import Compute
from harness.endpoint_handle import EndpointHandle
from harness.errors import HarnessError, NotLive, NotYet, UnsupportedFault
from harness.faults import Faults
from harness.history import History
from harness.topology import Topology
from harness.verdict import RunSettings
from harness.workload import Load, LoadOptions, Workload

T = TypeVar("T")
POLL_S = 0.05
PAGES_MAX = 64


class World:
    """What the ``world`` fixture gives. ``history`` records every operation of every endpoint."""

    def __init__(
        self, backend: Backend, settings: RunSettings, computes: Mapping[str, Compute]
    ) -> None:
        if settings.compute not in computes:
            raise HarnessError(
                f"world {settings.world!r} has no compute {settings.compute!r}; "
                f"it has: {', '.join(sorted(computes))}"
            )
        self.backend = backend
        self.settings = settings
        self.compute = computes[settings.compute]
        self.faults = Faults(backend)
        self.history = History()
        self.clusters: list[Cluster] = []
        self.allowances: list[Allowance] = []
        self.refusals: list[Allowance] = []
        self.judged: Counter[str] = judged_by(backend.world, settings.compute)
        self.watch = watch_over(self)
        self.pages_max = PAGES_MAX
        """How many page versions of each timeline and pageserver are compared at the end."""
        self.figures: dict[str, float] = {}
        self._loads = 0

    @property
    def name(self) -> str:
        """``sim`` or ``real``."""
        return self.backend.world

    def now_s(self) -> float:
        """Seconds since the run began, virtual in sim."""
        return self.backend.now_s()

    def generator(self, name: str) -> random.Random:
        """A generator derived from (seed, name): drawing from it moves no other."""
        return random.Random(f"{self.settings.seed}/{name}")

    def needs(self, ability: Ability) -> None:
        """Skip the scenario, with its reason, in a world that lacks an ability."""
        if ability not in self.backend.abilities:
            raise UnsupportedFault(f"world {self.name!r} cannot {ability.value}")

    def expect_log(self, pattern: str, *, reason: str, node: str = ".*") -> None:
        """Expect warnings and errors that match ``pattern``; every other one fails the run."""
        self.allowances.append(Allowance(pattern, reason, node))

    def expect_refusal(self, pattern: str, *, reason: str) -> None:
        """Expect operations to be refused with a message that matches ``pattern``."""
        self.refusals.append(Allowance(pattern, reason))

    def report(self, **figures: float) -> None:
        """Put measured figures on record, names ending in their unit: the report shows them."""
        self.figures.update(figures)

    async def start(self, topology: Topology) -> Cluster:
        """Start a cluster and return when every node of it accepts connections."""
        cluster = Cluster(self, topology)
        self.clusters.append(cluster)
        count_quorums(self)
        await cluster.start()
        return cluster

    def load(self, endpoint: EndpointHandle, options: Workload | None = None) -> Load:
        """A background load on an endpoint; ``async with`` starts and stops it."""
        self._loads += 1
        entropy = self.generator(f"load {self._loads}")
        return Load(endpoint, options or LoadOptions(), entropy, name=f"load{self._loads}")

    async def eventually(
        self, check: Callable[[], Awaitable[T]], *, within_s: float = 30.0, what: str = ""
    ) -> T:
        """Repeat ``check`` until it returns instead of raising ``NotYet``; hand on its result.

        Any other error fails at once. Raises ``NotLive``, with the last ``NotYet``, when
        ``within_s`` seconds (virtual in sim) pass.
        """
        deadline_s = self.now_s() + within_s
        while True:
            try:
                found = await check()
                self.judged["liveness"] += 1
                return found
            except NotYet as reason:
                if self.now_s() >= deadline_s:
                    name = what or getattr(check, "__name__", "the check")
                    raise NotLive(
                        f"{name}: not within {within_s:g} s; last seen: {reason}",
                        checker="eventually",
                    ) from reason
            await asyncio.sleep(POLL_S)
