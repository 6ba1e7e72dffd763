"""Whole schedules of the consensus model: a time of chaos, then a healthy one."""

from __future__ import annotations

from storage.tests.consensus_model import World
from storage.tests.consensus_node import LawBroken
from storage.walproposer.campaign import Phase


def run_schedule(seed: int, members: int, steps: int) -> World:
    """Chaos, then a healthy time in which one proposer must win, commit, and level everybody."""
    world = World(seed, members)
    for _ in range(steps):
        world.step()
    world.seen["committed_in_chaos"] += world.seen["committed"] > 0
    settle(world)
    return world


def settle(world: World) -> None:
    """Only one proposer is left, nothing fails any more: everything must be committed."""
    for author in world.authors[1:]:
        for wire in author.wires.values():
            wire.broken = True
        world.authors.remove(author)
    before = len(world.committed)
    for _ in range(6000):
        world.step(chaos=False)
        (author,) = world.authors
        core = author.campaign
        if (
            core.phase is Phase.LEADING
            and len(world.committed) > before
            and all(
                node.core.flush_lsn == node.core.commit_lsn == core.log.end_lsn
                for node in world.nodes.values()
            )
        ):
            return
    raise LawBroken("a healthy cluster must commit and level all safekeepers")
