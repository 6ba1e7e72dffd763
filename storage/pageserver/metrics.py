"""What a pageserver tells Prometheus: states of tenants, LSNs and layers of timelines, its disk."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric

from storage.http.api import Api
from storage.metrics import NodeCollector, add_metrics_route, exposition
from storage.pageserver.environment import Environment
from storage.pageserver.tenant import Tenant
from storage.pageserver.tenants import Tenants
from storage.pageserver.timeline import Timeline

_LABELS = ("tenant_id", "timeline_id")
_GAUGES = {
    "last_record_lsn": "Where WAL that is ingested ends, in bytes.",
    "disk_consistent_lsn": "What layer files on disk have, in bytes.",
    "remote_consistent_lsn": "What the object store has, in bytes.",
    "latest_gc_cutoff_lsn": "Before it nothing can be read any more, in bytes.",
    "layers": "Layers in the layer map.",
    "uploads_pending": "Operations that wait for the object store.",
}


def add_metrics(api: Api, environment: Environment, tenants: Tenants) -> None:
    """Declare the route; a scrape is of one moment, as nothing of it waits."""

    async def scrape() -> str:
        node = NodeCollector(environment.registry, {})
        return exposition(node, PageserverCollector(environment, tenants.all()))

    add_metrics_route(api, scrape)


class PageserverCollector:
    """The state of every tenant, and of the disk that they share."""

    def __init__(self, environment: Environment, tenants: Sequence[Tenant]) -> None:
        self._budget = environment.budget
        self._tenants = tenants

    def collect(self) -> Iterator[Metric]:
        """Families of tenants, one gauge for each field of a timeline, then of the disk."""
        states = GaugeMetricFamily(
            "pageserver_tenant_state",
            "1 for the state a tenant is in.",
            labels=("tenant_id", "state"),
        )
        for tenant in self._tenants:
            states.add_metric((tenant.tenant_id, str(tenant.state.state)), 1)
        yield states
        yield from self._of_timelines()
        resident = GaugeMetricFamily(
            "pageserver_resident_layer_bytes", "Layer files on disk, in bytes."
        )
        resident.add_metric([], self._budget.used_bytes)
        evictions = CounterMetricFamily(
            "pageserver_layer_evictions", "Layer files removed to make room."
        )
        evictions.add_metric([], self._budget.evictions)
        downloads = CounterMetricFamily("pageserver_layer_downloads", "Layer files brought back.")
        downloads.add_metric([], self._budget.downloads)
        yield from (resident, evictions, downloads)

    def _of_timelines(self) -> Iterator[Metric]:
        states = [
            ((tenant.tenant_id, timeline_id), _values(timeline))
            for tenant in self._tenants
            for timeline_id, timeline in tenant.timelines.items()
        ]
        for index, (name, text) in enumerate(_GAUGES.items()):
            family = GaugeMetricFamily(f"pageserver_{name}", text, labels=_LABELS)
            for ids, values in states:
                family.add_metric(ids, values[index])
            yield family


def _values(timeline: Timeline) -> tuple[float, ...]:
    """In the order of the gauges."""
    values = (
        timeline.last_record_lsn,
        timeline.disk_consistent.value,
        timeline.remote_consistent.value,
        timeline.gc_cutoff.lsn,
        len(timeline.layers),
        timeline.uploader.pending,
    )
    assert len(values) == len(_GAUGES), "each gauge has its value"
    return values
