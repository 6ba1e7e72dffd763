"""``GET /v1/metrics``: Prometheus text of what a node's services can tell of themselves.

A scrape of a node with several runtimes runs on ``metrics`` (SYSTEM.md E3): it asks the others for
their state, a moment each, and a synchronous collector then makes the text of it, so that no
service ever waits for prometheus_client. One that does not answer in time is reported as stuck, and
what it told last is shown again. Timestamps, created-series and clocks are left out: two runs print
the same.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable, Coroutine, Iterable, Iterator, Sequence
from typing import Any, Protocol, TypeVar

from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4, generate_latest
from prometheus_client.registry import CollectorRegistry

from storage.http.api import Api, Request, Text
from storage.runtimes import RuntimeEnded
from storage.services import Service
from storage.tasks import TaskRegistry

T = TypeVar("T")

ANSWER_WITHIN_S = 0.5
"""How long a service may take to answer before the scrape goes on without it, in seconds."""


class Collector(Protocol):
    """What prometheus_client asks for metrics; also one answer of a service, ready to be shown."""

    def collect(self) -> Iterable[Metric]:
        """Metric families; synchronous, and of state that nobody changes meanwhile."""
        ...


Gather = Callable[[], Coroutine[Any, Any, Collector]]
"""Runs on the service it tells of, and returns a collector of what it found."""


def exposition(*collectors: Collector) -> str:
    """What the collectors hold, in the text format of Prometheus."""
    registry = CollectorRegistry(auto_describe=False)
    for collector in collectors:
        registry.register(collector)
    return generate_latest(registry).decode()


def add_metrics_route(api: Api, scrape: Callable[[], Awaitable[str]]) -> None:
    """Declare the route, which answers what ``scrape`` returns."""

    async def answer(_request: Request) -> Text:
        return Text(CONTENT_TYPE_PLAIN_0_0_4, await scrape())

    api.add("GET", "/metrics", answer, summary="Prometheus metrics", answer_type="text/plain")


class Metrics:
    """Scrapes on ``home``; ``gather`` tells the state of ``source``."""

    def __init__(
        self, home: Service, source: Service, gather: Gather, services: Sequence[Service]
    ) -> None:
        self._home = home
        self._source = source
        self._gather = gather
        self._services = services
        self._last: Collector | None = None

    def add_to(self, api: Api) -> None:
        """Declare the route."""
        add_metrics_route(api, lambda: self._home.call(self.scrape))

    async def scrape(self) -> str:
        """The text of all metrics; on the ``metrics`` runtime."""
        lags_s = {service.name: await self._lag_s(service) for service in self._services}
        if lags_s.get(self._source.name) is not None:
            self._last = await _in_time(self._source.call(self._gather)) or self._last
        node = NodeCollector(self._home.registry, lags_s)
        return exposition(node) if self._last is None else exposition(node, self._last)

    async def _lag_s(self, service: Service) -> float | None:
        """How long a service takes to answer anything; ``None`` if it does not."""
        loop = asyncio.get_running_loop()
        asked_s = loop.time()
        answer = await _in_time(service.runtime.call(_nothing))
        return None if answer is None else loop.time() - asked_s


class NodeCollector:
    """What every node can tell: its tasks, and how fast its runtimes answer, if it has several."""

    def __init__(self, registry: TaskRegistry, lags_s: dict[str, float | None]) -> None:
        self._tasks = Counter(
            (info.runtime, str(info.kind)) for info in registry.snapshot_of_node()
        )
        self._lags_s = lags_s

    def collect(self) -> Iterator[Metric]:
        """Families ``seawall_tasks``, ``seawall_runtime_lag_seconds``, ``seawall_runtime_up``."""
        tasks = GaugeMetricFamily(
            "seawall_tasks", "Registered tasks that run now.", labels=["runtime", "kind"]
        )
        for (runtime, kind), count in self._tasks.items():
            tasks.add_metric([runtime, kind], count)
        up = GaugeMetricFamily(
            "seawall_runtime_up",
            f"Whether the runtime answered this scrape within {ANSWER_WITHIN_S} s.",
            labels=["runtime"],
        )
        lag = GaugeMetricFamily(
            "seawall_runtime_lag_seconds",
            "How long the runtime took to answer; missing if it did not.",
            labels=["runtime"],
        )
        for runtime, lag_s in self._lags_s.items():
            up.add_metric([runtime], 0 if lag_s is None else 1)
            if lag_s is not None:
                lag.add_metric([runtime], lag_s)
        yield from (tasks, up, lag) if self._lags_s else (tasks,)


async def _nothing() -> bool:
    return True


async def _in_time(work: Coroutine[Any, Any, T]) -> T | None:
    try:
        async with asyncio.timeout(ANSWER_WITHIN_S):
            return await work
    except (TimeoutError, RuntimeEnded):
        return None
