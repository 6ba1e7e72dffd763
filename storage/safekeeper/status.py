"""A timeline as its HTTP API and ``TIMELINE_STATUS`` show it."""

from __future__ import annotations

from typing import Any

from storage.safekeeper.timeline import Timeline


def describe(timeline: Timeline) -> dict[str, Any]:
    """Terms, LSNs (as text) and connections, for people and tests."""
    acceptor = timeline.acceptor
    oldest = timeline.segments.oldest
    return {
        "term": acceptor.term,
        "last_log_term": acceptor.last_log_term,
        "flush_lsn": str(acceptor.flush_lsn),
        "commit_lsn": str(acceptor.commit_lsn),
        "truncate_lsn": str(acceptor.peer_horizon_lsn),
        "backup_lsn": str(acceptor.backup_lsn),
        "remote_consistent_lsn": str(acceptor.remote_consistent_lsn),
        "peer_horizon_lsn": str(acceptor.peer_horizon_lsn),
        "timeline_start_lsn": str(acceptor.identity.start_lsn),
        "local_start_lsn": str(acceptor.local_start_lsn),
        "oldest_segment": oldest,
        "term_history": [
            {"term": switch.term, "lsn": str(switch.lsn)}
            for switch in acceptor.durable_history().switches
        ],
        "active": timeline.active,
        "proposers": timeline.connections.pushers,
        "standby_horizon": str(timeline.connections.standby_horizon()),
        "readers": timeline.connections.readers(),
    }
