"""What a safekeeper tells Prometheus: terms and LSNs of each timeline, and how its flushes went.

Counting happens on the WAL service, a few additions per flush; a scrape takes a copy there, some
timelines at a time, and everything else on the ``metrics`` runtime.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from dataclasses import dataclass

from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    Metric,
)

from storage.ids import TenantTimelineId
from storage.safekeeper.flush_counts import FlushCounts
from storage.safekeeper.timeline import Timeline
from storage.safekeeper.timelines import Timelines

TIMELINES_AT_ONCE = 100
"""After so many a scrape lets others of the WAL service go first."""

_LABELS = ("tenant_id", "timeline_id")
_GAUGES = {
    "term": "Highest term voted for.",
    "last_log_term": "Term of the newest WAL.",
    "flush_lsn": "Where durable WAL ends, in bytes.",
    "commit_lsn": "Where committed WAL ends, as far as is known here, in bytes.",
    "peer_horizon_lsn": "What every member has, in bytes.",
    "backup_lsn": "What is in the object store, in bytes.",
    "remote_consistent_lsn": "What a pageserver has made remotely consistent, in bytes.",
    "active": "Whether anybody may still need something of the timeline.",
    "proposers": "Connected proposers.",
    "readers": "Streams of WAL that leave.",
}


@dataclass(frozen=True, slots=True)
class TimelineState:
    """One timeline at the moment of a scrape; ``values`` in the order of the gauges."""

    id: TenantTimelineId
    values: tuple[float, ...]


class SafekeeperCollector:
    """One answer of the WAL service; nobody changes it any more."""

    def __init__(self, timelines: list[TimelineState], flushes: FlushCounts) -> None:
        self._timelines = timelines
        self._flushes = flushes

    def collect(self) -> Iterator[Metric]:
        """One gauge family for each field of a timeline, then what flushes did."""
        for index, (name, text) in enumerate(_GAUGES.items()):
            family = GaugeMetricFamily(f"safekeeper_{name}", text, labels=_LABELS)
            for state in self._timelines:
                family.add_metric(state.id, state.values[index])
            yield family
        count = GaugeMetricFamily("safekeeper_timelines", "Timelines on this node.")
        count.add_metric([], len(self._timelines))
        written = CounterMetricFamily("safekeeper_wal_bytes_flushed", "WAL made durable, in bytes.")
        written.add_metric([], self._flushes.bytes)
        durations = HistogramMetricFamily(
            "safekeeper_flush_seconds", "How long writing and syncing one batch of WAL took."
        )
        durations.add_metric([], self._flushes.cumulative(), self._flushes.sum_s)
        yield from (count, written, durations)


async def gather(timelines: Timelines) -> SafekeeperCollector:
    """Copy the state of every timeline; on the WAL service."""
    states = []
    for number, timeline in enumerate(timelines, 1):
        states.append(_state(timeline))
        if number % TIMELINES_AT_ONCE == 0:
            await asyncio.sleep(0)
    return SafekeeperCollector(states, timelines.flushes.copy())


def _state(timeline: Timeline) -> TimelineState:
    acceptor, connections = timeline.acceptor, timeline.connections
    values = (
        acceptor.term,
        acceptor.last_log_term,
        acceptor.flush_lsn,
        acceptor.commit_lsn,
        acceptor.peer_horizon_lsn,
        acceptor.backup_lsn,
        acceptor.remote_consistent_lsn,
        timeline.active,
        connections.pushers,
        len(connections.readers()),
    )
    assert len(values) == len(_GAUGES), "each gauge has its value"
    return TimelineState(timeline.id, values)
