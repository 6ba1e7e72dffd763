"""The composition root: the one place that knows both worlds and the roles of the system.

``harness`` finds ``WORLDS``, ``BENCHES`` and the bug bank here; everything is imported at first
use, so that a simulation never pays for the real world's libraries.
"""

from __future__ import annotations

import signal
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from harness.bench_checkers import bench_checkers
from harness.bench_migration import bench_migration
from harness.benches import bench_commits, bench_parity, bench_startup
from harness.bug import Bug
from harness.runner import WorldRunner

pytest_plugins = (
    "harness.pytest_plugin",
    "harness.bug_plugin",
    "harness.rows_plugin",
    "reports.allure_hooks",
)


def pytest_configure() -> None:
    """Hear Ctrl-C: a shell that runs the suite in the background makes it and its children deaf.

    Several tests interrupt a child and would wait for it until they are killed themselves.
    """
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


def sim_runner() -> WorldRunner:
    """The deterministic world, running the roles of ``storage``."""
    from sim.runner import SimRunner
    from storage.roles import ROLES

    return SimRunner(ROLES)


def real_runner() -> WorldRunner:
    """The world of OS processes; ``real/node_main.py`` loads the roles in each of them."""
    from real.runner import RealRunner

    return RealRunner()


WORLDS = {"sim": sim_runner, "real": real_runner}


def bench_kernel() -> Mapping[str, Any]:
    """Stream ping-pong on the simulated network, trace on, beside other simulators."""
    from sim.bench_kernel import bench

    return bench()


def bench_quorum() -> Mapping[str, Any]:
    """A quorum over lossy datagrams, seeds per second, beside other simulators."""
    from sim.bench_quorum import bench

    return bench()


def _commits() -> Mapping[str, Any]:
    return bench_commits(sim_runner())


def _parity() -> Mapping[str, Any]:
    real = real_runner()
    try:
        return bench_parity(sim_runner(), real)
    finally:
        real.close()


def _links() -> Mapping[str, Any]:
    from real.bench_links import bench

    return bench()


def _runtimes() -> Mapping[str, Any]:
    """p99 of a safekeeper's runtimes while one of them is blocked."""
    from real.bench_runtimes import bench

    return bench()


def _disk_offload() -> Mapping[str, Any]:
    """Inline disk I/O against a thread pool, at 1, 8 and 64 timelines."""
    from real.bench_disk import bench
    from storage.safekeeper.bench_appends import append_for

    return bench(append_for)


def _ingest() -> Mapping[str, Any]:
    """Records and megabytes that a pageserver ingests a second."""
    from real.bench_pageserver import bench_ingest
    from storage.pageserver import bench_parts

    return bench_ingest(bench_parts)


def _pages() -> Mapping[str, Any]:
    """How long a page takes, by the depth of its history."""
    from real.bench_pageserver import bench_pages
    from storage.pageserver import bench_parts

    return bench_pages(bench_parts)


def _layers() -> Mapping[str, Any]:
    """What searches, compaction and garbage collection cost as layers grow tenfold."""
    from real.bench_pageserver import bench_layers
    from storage.pageserver import bench_parts
    from storage.pageserver.bench_layers import measure_layers

    return bench_layers(bench_parts, measure_layers)


BENCHES = {
    "kernel": bench_kernel,
    "quorum": bench_quorum,
    "commits": _commits,
    "checkers": bench_checkers,
    "parity": _parity,
    "links": _links,
    "runtimes": _runtimes,
    "disk-offload": _disk_offload,
    "startup": lambda: bench_startup(real_runner),
    "ingest": _ingest,
    "pages": _pages,
    "layers": _layers,
    "migration": lambda: bench_migration(sim_runner()),
}


def bank() -> Sequence[Bug]:
    """Historical bugs, then our own; every role is imported first, so that a bug reaches whoever
    imports a name."""
    import storage.roles  # noqa: F401
    from scenarios.bugs import BANK, OWN

    return (*BANK, *OWN)


HUNTING_GROUNDS = (
    "scenarios/test_consensus_swarm.py::test_consensus_swarm",
    "scenarios/test_power_cuts.py::test_power_cuts",
    "scenarios/test_campaign.py::test_campaign[swarm]",
    "scenarios/test_impatient_operator.py::test_last_answer_counts",
    "scenarios/test_elections.py::test_leaders_come_and_go",
    "scenarios/test_settling.py::test_idle_timeline_settles[broker]",
    "scenarios/test_settling.py::test_idle_timeline_settles[callmemaybe]",
    "scenarios/test_branch_tree.py::test_tree_of_branches",
    "scenarios/test_pageserver_storms.py::test_pageserver_storms",
    "scenarios/test_gc_races.py::test_gc_race[get_page]",
    "scenarios/test_gc_races.py::test_gc_race[branch_creation]",
    "scenarios/test_retention.py::test_retention",
    "scenarios/test_wal_churn.py::test_wal_comes_and_goes",
    "scenarios/test_members.py::test_members_are_replaced_one_by_one_within_a_segment",
    "scenarios/test_members.py::test_copy_is_not_spoilt_by_removal_of_wal",
    "scenarios/test_members.py::test_copy_of_a_log_that_is_cut_meanwhile_does_not_count",
    "scenarios/test_wal_offload.py::test_older_of_two_offloaders_does_not_go_back",
    "scenarios/test_wal_offload.py::test_older_of_two_offloaders_disturbs_nothing"
    "[sk-before-backup-claim]",
)
"""Scenarios that bugs are hunted with, in turn, quick ones first; none knows of a bug. The last
five bring about orders of events, in copies of a timeline and among offloaders, that chance meets
too seldom."""


def write_bug_page(found: Mapping[str, Any], target: Path) -> None:
    """Draw what hunts found."""
    from reports.bug_page import write_bug_page as draw

    draw(found, target)
