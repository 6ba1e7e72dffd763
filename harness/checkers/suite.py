"""The checks that hold at the end of any run, in any world, whatever the scenario did."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from harness.checkers.acknowledged_commits import check_acknowledged_commits, read_back
from harness.checkers.admin_state import check_admin_state
from harness.checkers.catalogue import UNDECIDED
from harness.checkers.conservation import check_conservation
from harness.checkers.dependency_cycles import check_dependency_cycles
from harness.checkers.evidence import Expected, check_evidence
from harness.checkers.followers import is_live
from harness.checkers.linearizable import check_linearizable
from harness.checkers.list_append import check_list_append
from harness.checkers.logs import check_logs
from harness.checkers.reads_equal_model import check_reads
from harness.checkers.refusals import check_refusals
from harness.checkers.storage_agrees import Models, check_leftovers, check_storage
from harness.endpoint import Refused
from harness.errors import Inconclusive

if TYPE_CHECKING:
    from harness.cluster import Cluster
    from harness.endpoint_handle import EndpointHandle
    from harness.history import History
    from harness.world import World


async def check_world(world: World) -> Mapping[Cluster, Models]:
    """Ask the running cluster for what was acknowledged, then judge the history.

    Returns what the WAL of every cluster's timelines says.
    """
    judged = world.judged
    models: dict[Cluster, Models] = {}
    for cluster in world.clusters:
        read_back_of = await _read_everything_back(world, cluster)
        _check_read_back(world.history, cluster, read_back_of)
        # First of all, for it waits until tenants are active and can be compared.
        judged["admin_persists"] += await check_admin_state(cluster)
        models[cluster] = await check_storage(cluster)
        judged["bucket"] += await check_leftovers(cluster)
    if not is_live(world):
        judged["refusals"] += check_refusals(
            world.history, world.backend.observations(), world.refusals
        )
    judged["reads_equal_model"] += check_reads(world.history)
    judged["dependency_cycles"] += check_dependency_cycles(world.history)
    judged["list_append"] += check_list_append(world.history)
    judged["conservation"] += check_conservation(world.history)
    decided = check_linearizable(world.history)
    judged["linearizable"] += decided.keys
    judged[UNDECIDED] += decided.undecided
    return models


async def _read_everything_back(world: World, cluster: Cluster) -> set[str]:
    """Every key through every endpoint that runs; the newest primary of a timeline has it all.

    Returns the timelines whose newest primary runs.
    """
    found: set[str] = set()
    newest = {str(e.timeline): e for e in _by_start(world.history, cluster) if not e.pinned}
    for endpoint in cluster.endpoints.values():
        if not endpoint.running:
            continue
        timeline = str(endpoint.timeline)
        try:
            final = await read_back(endpoint, world.history, timeline)
        except Refused:
            if endpoint is newest.get(timeline):
                raise
            continue  # A primary that was deposed ends, sooner or later.
        if endpoint is newest.get(timeline):
            covered = check_acknowledged_commits(world.history, timeline, final)
            world.judged["acknowledged_commits"] += covered
            found.add(timeline)
    return found


def _check_read_back(history: History, cluster: Cluster, found: set[str]) -> None:
    """What nobody could read back at the end may be lost: such a run must not be green."""
    committed = history.committed_timelines()
    for timeline in map(str, cluster.timelines):
        if timeline in committed and timeline not in found:
            raise Inconclusive(
                f"timeline {timeline} has acknowledged commits, but its last endpoint does not run "
                "at the end, so they cannot be read back: start it again in the scenario"
            )


def _by_start(history: History, cluster: Cluster) -> list[EndpointHandle]:
    """The endpoints of a cluster in order of their last start."""
    began_s = {
        life.process: life.began_at_s
        for lives in history.lives.values()
        for life in sorted(lives, key=lambda life: life.began_at_s)
    }
    return sorted(cluster.endpoints.values(), key=lambda each: began_s.get(each.name, 0.0))


def check_after_stop(world: World) -> None:
    """Checks of what a closed run left: reported LSNs, terms and votes, and every log line."""
    events, logs = world.backend.observations(), world.backend.logs()
    for cluster in world.clusters:
        expected = _expected(world, cluster)
        check_evidence(events, logs, expected)
        world.judged["evidence"] += len(expected.nodes) + len(expected.timelines)
    world.watch.judge(() if is_live(world) else events)
    world.judged["logs"] += len(logs)
    check_logs(logs, world.allowances)


def _expected(world: World, cluster: Cluster) -> Expected:
    committed = world.history.committed_timelines()
    loses_reports = not is_live(world)
    return Expected(
        nodes=[node.name for node in cluster.nodes if node.known],
        timelines=[each for each in cluster.timelines if str(each) in committed],
        reporters=1 if loses_reports else cluster.topology.safekeepers // 2 + 1,
    )
