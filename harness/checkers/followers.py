"""Which oracles follow a run: all that need no more than events and operations in exact order."""

from __future__ import annotations

from typing import TYPE_CHECKING

from harness.backend import Ability, Sink
from harness.checkers.attachments import Attachments
from harness.checkers.bucket_watch import BucketWatch
from harness.checkers.commit_order import CommitOrder
from harness.checkers.consensus_messages import CHECKER as CONSENSUS_MESSAGES
from harness.checkers.consensus_messages import ConsensusMessages, Timeline
from harness.checkers.conversation import Conversation
from harness.checkers.crash_order import CrashOrder
from harness.checkers.log_ends import CHECKER as LOG_ENDS
from harness.checkers.log_ends import LogEnds
from harness.checkers.lsn_order import LsnOrder
from harness.checkers.offload_watch import OffloadWatch
from harness.checkers.offloaded_wal import CHECKER as OFFLOADED_WAL
from harness.checkers.quorum_order import QuorumOrder
from harness.checkers.refusals import Refusals
from harness.checkers.safekeeper_logs import CHECKER as SAFEKEEPER_LOGS
from harness.checkers.safekeeper_logs import SafekeeperLogs
from harness.checkers.tasks_heed import TasksHeed
from harness.checkers.watch import Watch
from harness.nodes import SAFEKEEPER_LIBPQ_PORT

if TYPE_CHECKING:
    from harness.world import World


def watch_over(world: World) -> Watch:
    """The watch of a run, which follows its history and, where their order is exact, its events."""
    watch = Watch(world.judged)
    refusals, disk = Refusals(world.history, world.refusals), world.backend.disk
    watch.add(of_events={"lsn_order": LsnOrder(), "crash_order": CrashOrder()})
    watch.add(of_operations={"commit_order": CommitOrder(world.history)})
    if is_live(world):
        # Where time is real, cores are shared and a fault is noted after it began to work.
        bucket = BucketWatch(world.backend.admin_objects())
        watch.add(of_events={"tasks_heed": TasksHeed(), "refusals": refusals, "bucket": bucket})
        watch.add(of_events={LOG_ENDS: LogEnds(lambda node, part: disk(node).contents(part))})
        watch.add(of_operations={"refusals": refusals})
        world.backend.follow(watch.take)
    world.history.follow(watch)
    return watch


def is_live(world: World) -> bool:
    """Whether events are shown to oracles while they happen, in exact order."""
    return world.backend.clock_error_s == 0


def count_quorums(world: World) -> None:
    """Have quorums counted and messages read, once the number of safekeepers is known.

    A killed process takes its last reports along, except where they are noted at once.
    """
    sizes = {cluster.topology.safekeepers for cluster in world.clusters}
    if is_live(world) and len(world.clusters) == 1:
        quorum = sizes.pop() // 2 + 1
        objects, requests = world.backend.admin_objects(), world.clusters[0].admin.requests
        attachments, offload = Attachments(objects, requests), OffloadWatch(objects, requests)
        world.watch.add(of_events={"quorum_order": QuorumOrder(quorum), "attachments": attachments})
        world.watch.add(of_events={OFFLOADED_WAL: offload})
        if Ability.TAPS in world.backend.abilities:
            _read_messages(world, quorum)
    elif len(sizes) > 1:
        world.watch.drop("quorum_order")


def _read_messages(world: World, quorum: int) -> None:
    """Follow every connection to a safekeeper."""
    admin = world.clusters[0].admin

    def was_deleted(safekeeper: str, timeline: Timeline) -> bool:
        path = f"/tenant/{timeline[0]}/timeline/{timeline[1]}"
        return any(
            request.method == "DELETE"
            and request.node == safekeeper
            and request.path.partition("?")[0] == path
            for request in admin.requests
        )

    oracle = ConsensusMessages(quorum, was_deleted)
    logs = SafekeeperLogs(quorum)
    world.watch.add(of_events={CONSENSUS_MESSAGES: oracle, SAFEKEEPER_LOGS: logs})

    def tap(client: str, safekeeper: str) -> tuple[Sink, Sink]:
        conversation = Conversation(oracle, logs, safekeeper)
        listen = world.watch.listen
        return (
            listen(CONSENSUS_MESSAGES, conversation.from_client),
            listen(CONSENSUS_MESSAGES, conversation.from_safekeeper),
        )

    world.backend.network.tap(SAFEKEEPER_LIBPQ_PORT, tap)
