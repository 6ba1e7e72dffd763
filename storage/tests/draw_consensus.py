"""Draws the state machines of consensus into ``docs/consensus.md``, from what the cores do.

Random schedules of the pure cores are watched, and every transition that any of them makes becomes
an arrow: the picture cannot differ from the code. ``python -m storage.tests.draw_consensus``
writes the page, a test compares it.
"""

from __future__ import annotations

import sys
from collections import Counter
from pathlib import Path

from storage.consensus import messages
from storage.safekeeper.state import Acceptor
from storage.tests.consensus_model import Author, Wire, World
from storage.tests.consensus_schedule import settle

PAGE = Path(__file__).resolve().parents[2] / "docs" / "consensus.md"
BEGIN, END = "<!-- drawn: begin -->", "<!-- drawn: end -->"
SEEDS, STEPS = 40, 350
AT_LEAST = 3
"""An arrow seen less often is left out of the picture, so that it does not hang on one seed."""

Arrows = Counter[tuple[str, str, str]]


def acceptor_state(core: Acceptor) -> str:
    """Where an acceptor stands, in words."""
    if core._catching_up:
        return "catching_up"
    if core.term != core.term_history.last_term:
        return "voted"
    return "following" if core._tail_known else "restarted"


class WatchedWorld(World):
    """A world that notes every transition: (state, cause, next state)."""

    def __init__(self, seed: int, members: int) -> None:
        self.campaigns: Arrows = Counter()
        self.peers: Arrows = Counter()
        self.acceptors: Arrows = Counter()
        super().__init__(seed, members)

    def connect(self, author: Author, name: str) -> None:
        before = author.campaign.peers[name].phase.value
        super().connect(author, name)
        self.peers[before, "connection", author.campaign.peers[name].phase.value] += 1

    def hang_up(self, author: Author, name: str) -> None:
        before = author.campaign.peers[name].phase.value
        super().hang_up(author, name)
        self.peers[before, "connection lost", author.campaign.peers[name].phase.value] += 1

    def deliver_to_proposer(self, author: Author, wire: Wire) -> None:
        core, cause = author.campaign, _kind(messages.decode_acceptor(wire.to_proposer[0]))
        before, peer_before = core.phase.value, core.peers[wire.name].phase.value
        super().deliver_to_proposer(author, wire)
        self.campaigns[before, cause, core.phase.value] += 1
        self.peers[peer_before, cause, core.peers[wire.name].phase.value] += 1

    def recover(self, author: Author) -> None:
        core = author.campaign
        before = core.phase.value
        super().recover(author)
        self.campaigns[before, "tail recovered", core.phase.value] += 1

    def deliver_to_acceptor(self, wire: Wire) -> None:
        node, cause = self.nodes[wire.name], _kind(messages.decode_proposer(wire.to_acceptor[0]))
        before, core = acceptor_state(node.core), node.core
        super().deliver_to_acceptor(wire)
        if node.core is core:
            self.acceptors[before, cause, acceptor_state(core)] += 1

    def crash(self, name: str) -> None:
        before = acceptor_state(self.nodes[name].core)
        super().crash(name)
        self.acceptors[before, "crash", acceptor_state(self.nodes[name].core)] += 1

    def catch_up(self, source: str, target: str) -> None:
        core = self.nodes[target].core
        before = acceptor_state(core)
        super().catch_up(source, target)
        if self.nodes[target].core is core:
            self.acceptors[before, "peer's commit", acceptor_state(core)] += 1


def _kind(message: messages.Message) -> str:
    return type(message).__name__


def diagram(arrows: Arrows, first: str) -> str:
    """A Mermaid state diagram; arrows between the same two states share a line."""
    labels: dict[tuple[str, str], list[str]] = {}
    for (before, cause, after), count in sorted(arrows.items()):
        if before != after and count >= AT_LEAST:
            labels.setdefault((before, after), []).append(cause)
    lines = [f"    {a} --> {b}: {', '.join(causes)}" for (a, b), causes in labels.items()]
    return "\n".join(["```mermaid", "stateDiagram-v2", f"    [*] --> {first}", *lines, "```"])


def draw() -> str:
    """The drawn part of the page: three diagrams, and how many schedules committed something."""
    totals: tuple[Arrows, Arrows, Arrows] = (Counter(), Counter(), Counter())
    shares = []
    for members in (3, 5):
        committed = 0
        for seed in range(SEEDS):
            world = WatchedWorld(seed, members)
            for _ in range(STEPS):
                world.step()
            committed += world.seen["committed"] > 0
            settle(world)
            for total, part in zip(totals, (world.campaigns, world.peers, world.acceptors),
                                   strict=True):  # fmt: skip
                total.update(part)
        shares.append(f"{committed} of {SEEDS} schedules of {members} members")
    campaigns, peers, acceptors = totals
    return "\n\n".join(
        [
            "### A campaign (`storage/walproposer/state.py`)", diagram(campaigns, "gathering"),
            "### What a campaign knows of one member", diagram(peers, "offline"),
            "### A member (`storage/safekeeper/state.py`)", diagram(acceptors, "restarted"),
            f"During their {STEPS} steps of chaos, before anything heals, {' and '.join(shares)} "
            "commit something.",
        ]
    )  # fmt: skip


def page(text: str, drawn: str) -> str:
    """``text`` with the part between the two marks replaced."""
    head, _, rest = text.partition(BEGIN)
    _, _, tail = rest.partition(END)
    assert tail, f"the page lacks {BEGIN} … {END}"
    return f"{head}{BEGIN}\n\n{drawn}\n\n{END}{tail}"


def main() -> int:
    """Rewrite the page."""
    PAGE.write_text(page(PAGE.read_text(encoding="utf-8"), draw()), encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
