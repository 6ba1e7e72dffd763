"""Isolation of a safekeeper's runtimes: one is blocked, how long do the others' answers take?

``python -m harness bench runtimes``. Inside the node a probe asks every runtime and the disk
threads to do nothing; outside, a walgen commits and a client asks for ``/v1/status``.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from harness.cluster import Cluster
from harness.endpoint_handle import EndpointHandle
from harness.nodes import SafekeeperHandle
from harness.topology import Topology
from harness.verdict import RunSettings
from harness.walgen import WalgenCompute
from harness.world import World
from real import surgery
from real.backend import RealBackend, RealOptions
from real.loop import NamedHostLoop
from real.session import PRELOAD, RealSession
from real.surgery import DISK, PLACES, operate

BLOCK_S = 2.0
MEASURED_S = BLOCK_S - 0.2
"""A little less, so that every sample falls into the time of the block."""

NODE = "sk0"
COMMITS, STATUS = "commits", "http status"
_NEEDS: Mapping[str, tuple[str, ...]] = {
    COMMITS: ("wal-service", DISK),
    STATUS: ("http",),
}
"""Which places an operation from outside cannot do without."""


@dataclass(frozen=True)
class Delays:
    """Seconds that each probe and operation took while ``blocked`` was blocked (or nothing was)."""

    blocked: str
    seconds: Mapping[str, Sequence[float]]

    def others(self) -> dict[str, float]:
        """The 99th percentile in seconds of everything that does not need what was blocked."""
        return {
            name: percentile(values, 99)
            for name, values in self.seconds.items()
            if name != self.blocked and name not in self.dependants()
        }

    def dependants(self) -> list[str]:
        """What cannot do without what was blocked."""
        return [name for name, places in _NEEDS.items() if self.blocked in places]


def percentile(values: Sequence[float], percent: float) -> float:
    """The smallest value that so many percent of the values do not exceed."""
    assert values, "nothing was measured"
    return sorted(values)[min(len(values) - 1, int(len(values) * percent / 100))]


class Patient:
    """A safekeeper under load, and what its clients see."""

    def __init__(self, cluster: Cluster, endpoint: EndpointHandle) -> None:
        self._cluster = cluster
        self._endpoint = endpoint
        self._key = 0

    @property
    def safekeeper(self) -> SafekeeperHandle:
        """The only one."""
        return self._cluster.safekeeper(0)

    @property
    def backend(self) -> RealBackend:
        """Where it runs."""
        backend = self._cluster.world.backend
        assert isinstance(backend, RealBackend), "patients are real"
        return backend

    async def delays(self, blocked: str, *, busy: bool = False) -> Delays:
        """Block a place (``""``: none) for ``BLOCK_S`` seconds and measure everything meanwhile."""
        if blocked:
            await operate(NODE, "block", place=blocked, seconds=BLOCK_S, busy=busy)
        started_s = time.perf_counter()
        probes, commits, status = await asyncio.gather(
            operate(NODE, "probe", seconds=MEASURED_S),
            _repeat(self.commit),
            _repeat(lambda: self.safekeeper.http("GET", "/status")),
        )
        rest_s = started_s + BLOCK_S - time.perf_counter()
        await asyncio.sleep(max(0.0, rest_s))
        return Delays(blocked, {**probes, COMMITS: commits, STATUS: status})

    async def commit(self) -> None:
        """One write, acknowledged."""
        self._key = self._key % 100 + 1
        await self._endpoint.put(self._key, "x" * 100)


async def _repeat(work: Callable[[], Awaitable[Any]]) -> list[float]:
    end_s = time.perf_counter() + MEASURED_S
    delays = []
    while (started_s := time.perf_counter()) < end_s:
        await work()
        delays.append(time.perf_counter() - started_s)
        await asyncio.sleep(surgery.PROBE_PAUSE_S)
    return delays


def with_patient(session: RealSession, story: Callable[[Patient], Awaitable[None]]) -> None:
    """Run a story on a fresh cluster of one safekeeper."""

    async def whole() -> None:
        backend = RealBackend(session, RealOptions(roles="real.surgery:ROLES"))
        try:
            settings = RunSettings("real", "walgen", 0)
            world = World(backend, settings, {"walgen": WalgenCompute()})
            cluster = await world.start(Topology(safekeepers=1))
            endpoint = await cluster.endpoint("main")
            await endpoint.put(1, "x")
            await story(Patient(cluster, endpoint))
            await endpoint.stop()
        finally:
            await backend.close()

    with asyncio.Runner(loop_factory=NamedHostLoop) as runner:
        runner.run(whole())


def bench() -> Mapping[str, Any]:
    """99th percentiles of the others, worst of all, for every place blocked asleep and busy."""
    found: dict[str, Any] = {"bench": "runtimes", "block_s": BLOCK_S}

    async def story(patient: Patient) -> None:
        found["nothing"] = _milliseconds(await patient.delays(""))
        for busy in (False, True):
            for place in PLACES:
                name = f"{place} {'busy' if busy else 'asleep'}"
                found[name] = _milliseconds(await patient.delays(place, busy=busy))

    session = RealSession([*PRELOAD, "real.surgery"])
    try:
        with_patient(session, story)
    finally:
        session.close()
    return found


def _milliseconds(delays: Delays) -> dict[str, float]:
    return {name: round(1000 * p99_s, 1) for name, p99_s in delays.others().items()}
