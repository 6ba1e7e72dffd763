"""Numbers for monitoring, in the text format of Prometheus (exposition format 0.0.4)."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import NamedTuple

from storage.pageserver.environment import Environment
from storage.pageserver.tenant import Tenant

CONTENT_TYPE = "text/plain; version=0.0.4"

Labels = Mapping[str, str]


class Metric(NamedTuple):
    """One metric: its kind (``gauge`` or ``counter``), what it says, and its samples."""

    name: str
    kind: str
    text: str
    samples: list[tuple[Labels, int]]


def metrics_text(environment: Environment, tenants: Iterable[Tenant]) -> str:
    """Everything that a pageserver tells of itself, all of one moment."""
    metrics = [*_node_metrics(environment), *_timeline_metrics(list(tenants))]
    return "".join(line + "\n" for metric in metrics for line in _lines(metric))


def _node_metrics(environment: Environment) -> list[Metric]:
    budget = environment.budget
    return [
        Metric("seawall_tasks", "gauge", "Registered tasks that run",
               [({}, len(environment.registry.snapshot()))]),
        Metric("seawall_resident_layer_bytes", "gauge", "Layer files on disk",
               [({}, budget.used_bytes)]),
        Metric("seawall_layer_evictions_total", "counter", "Layer files removed to make room",
               [({}, budget.evictions)]),
        Metric("seawall_layer_downloads_total", "counter", "Layer files brought back",
               [({}, budget.downloads)]),
    ]  # fmt: skip


def _timeline_metrics(tenants: list[Tenant]) -> list[Metric]:
    positions: list[tuple[Labels, int]] = []
    layers: list[tuple[Labels, int]] = []
    pending: list[tuple[Labels, int]] = []
    for tenant in tenants:
        for timeline_id, timeline in tenant.timelines.items():
            labels = {"tenant_id": tenant.tenant_id, "timeline_id": timeline_id}
            for name, lsn in (
                ("last_record_lsn", timeline.last_record_lsn),
                ("disk_consistent_lsn", timeline.disk_consistent.value),
                ("remote_consistent_lsn", timeline.remote_consistent.value),
                ("latest_gc_cutoff_lsn", timeline.gc_cutoff.lsn),
            ):
                positions.append(({**labels, "name": name}, int(lsn)))
            layers.append((labels, len(timeline.layers)))
            pending.append((labels, timeline.uploader.pending))
    states: list[tuple[Labels, int]] = [
        ({"tenant_id": each.tenant_id, "state": str(each.state.state)}, 1) for each in tenants
    ]
    return [
        Metric("seawall_tenant_state", "gauge", "1 for the state a tenant is in", states),
        Metric("seawall_position", "gauge", "LSNs of a timeline, as numbers", positions),
        Metric("seawall_layers", "gauge", "Layers in the layer map", layers),
        Metric("seawall_uploads_pending", "gauge", "Operations that wait for the bucket", pending),
    ]


def _lines(metric: Metric) -> list[str]:
    lines = [f"# HELP {metric.name} {metric.text}", f"# TYPE {metric.name} {metric.kind}"]
    for labels, value in metric.samples:
        shown = ",".join(f'{name}="{_escaped(text)}"' for name, text in labels.items())
        lines.append(f"{metric.name}{{{shown}}} {value}" if shown else f"{metric.name} {value}")
    return lines


def _escaped(text: str) -> str:
    return text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
