"""A world for the two pure cores: random schedules, crashes, lost sync, late messages, and laws.

Connections lose nothing but may break at any time, and what an acceptor has already received on a
broken one may still be handled later. Disks are those of ``consensus_node``.
"""

from __future__ import annotations

import random
from collections import Counter, deque
from dataclasses import dataclass, field

from storage.consensus import messages
from storage.errors import ProtocolError
from storage.lsn import Lsn
from storage.safekeeper import state as sk
from storage.safekeeper.control_state import ControlState
from storage.tests.consensus_laws import Laws
from storage.tests.consensus_node import RECORD, TENANT, TIMELINE, Node, require
from storage.walproposer import campaign as effects
from storage.walproposer.campaign import CampaignOptions, PeerPhase, Phase
from storage.walproposer.state import Campaign


@dataclass
class Wire:
    """One connection: a queue each way; ``broken`` means that the proposer has given it up."""

    author: int
    campaign: Campaign
    name: str
    to_acceptor: deque[bytes] = field(default_factory=deque)
    to_proposer: deque[bytes] = field(default_factory=deque)
    broken: bool = False


@dataclass
class Author:
    """One incarnation of a proposer."""

    number: int
    campaign: Campaign
    recovery: effects.Recover | None = None
    wires: dict[str, Wire] = field(default_factory=dict)
    won: bool = False


class World(Laws):
    """Acceptors, proposers and wires; every action checks every law."""

    def __init__(self, seed: int, members: int, authors: int = 2) -> None:
        self.chance = random.Random(seed)
        self.names = tuple(f"sk{i}:5454" for i in range(members))
        self.nodes = {name: Node(i, self.names) for i, name in enumerate(self.names)}
        self.authors: list[Author] = []
        self.wires: list[Wire] = []
        self.leaders: dict[int, int] = {}
        self.votes: set[tuple[str, int]] = set()
        self.committed = b""
        self.committed_term = 0
        self.number = 0
        self.records = 0
        self.seen: Counter[str] = Counter()
        # Swarm testing: every schedule has its own temper, so that rare mixtures happen.
        kinds = ("stale", "crash", "save", "gossip", "hang_up", "write", "replace", "flush", "fail",
                 "catch_up")  # fmt: skip
        self.temper = {kind: self.chance.choice((0.2, 1.0, 5.0)) for kind in kinds}
        self.temper["connect"] = self.chance.choice((0.1, 1.0, 1.0))
        for _ in range(authors):
            self.new_author()

    # ---- proposers

    def new_author(self, floor: int = 0) -> Author:
        self.number += 1
        options = CampaignOptions(
            self.names, TENANT, TIMELINE, self.number, 7, 16, 1 << 20, floor,
            append_bytes_max=40, appends_in_flight_max=2, wal_retained_bytes_max=64,
        )  # fmt: skip
        author = Author(self.number, Campaign(options))
        self.authors.append(author)
        return author

    def replace(self, author: Author, floor: int = 0) -> None:
        for wire in author.wires.values():
            wire.broken = True
        self.authors.remove(author)
        self.new_author(floor)

    def connect(self, author: Author, name: str) -> None:
        wire = Wire(author.number, author.campaign, name)
        author.wires[name] = wire
        self.wires.append(wire)
        self.carry_out(author, author.campaign.connected(name))

    def hang_up(self, author: Author, name: str) -> None:
        author.wires.pop(name).broken = True
        author.campaign.disconnected(name)
        self.seen["hang_up"] += 1

    def carry_out(self, author: Author, todo: list[effects.Effect]) -> None:
        for effect in todo:
            match effect:
                case effects.Send(name, message):
                    if name in author.wires:
                        author.wires[name].to_acceptor.append(messages.encode(message))
                case effects.Recover():
                    author.recovery = effect
                case effects.Won(term, start):
                    author.won = True
                    self.check_won(author.number, term, start)
                case effects.Committed(lsn):
                    self.check_committed(author.campaign, lsn)
                case effects.Established():
                    self.seen["established"] += 1
                case effects.Lost(term):
                    self.seen["lost"] += 1
                    self.replace(author, term)
                    return
                case effects.Superseded():
                    self.seen["superseded"] += 1
                    self.replace(author)
                    return

    def recover(self, author: Author) -> None:
        """Read the donor's tail, or a part of it: then the campaign must refuse to go on."""
        wanted = author.recovery
        assert wanted is not None
        author.recovery = None
        donor = self.nodes[wanted.donor]
        end = min(wanted.end_lsn, donor.core.flush_lsn)
        if not donor.core.is_term(author.campaign.term) or self.chance.random() < 0.1:
            end = Lsn(wanted.begin_lsn)
        data = donor.read(wanted.begin_lsn, end)
        try:
            self.carry_out(author, author.campaign.recovered([data] if data else []))
        except ProtocolError:
            require(end != wanted.end_lsn, "a whole recovery is accepted")
            self.seen["short_recovery"] += 1
            self.replace(author, author.campaign.term)

    def write_records(self, author: Author) -> None:
        data = b""
        for _ in range(self.chance.randint(1, 5)):
            self.records += 1
            data += RECORD.pack(author.campaign.term, self.records, author.number)
        author.campaign.append(author.campaign.log.end_lsn, data)

    def pump(self, author: Author, name: str) -> None:
        """Send one request to an acceptor that streams: WAL, WAL read back, or an announcement."""
        core = author.campaign
        request = None
        if core.is_behind(name):
            request = self.read_back(core, name)
        if request is None and not core.is_behind(name):
            request = core.next_append(name)
        if request is None:
            request = core.announcement(name, reply_requested=self.chance.random() < 0.5)
        if request is not None:
            author.wires[name].to_acceptor.append(messages.encode(request))

    def read_back(self, core: Campaign, name: str) -> messages.AppendRequest | None:
        donor = core.donor_for(name)
        if donor is None:
            return None
        node = self.nodes[donor[0]]
        if not node.core.is_term(core.term):
            return None
        begin = core.peers[name].next_lsn
        self.seen["read_back"] += 1
        end = min(begin + 3 * RECORD.size, donor[1])
        return core.forward(name, node.read(begin, end))

    # ---- acceptors

    def deliver_to_acceptor(self, wire: Wire) -> None:
        node = self.nodes[wire.name]
        message = messages.decode_proposer(wire.to_acceptor.popleft())
        try:
            if node.core.must_flush_before(message):
                node.flush()
            before = node.core.control()
            todo = node.core.step(message)
        except ProtocolError:
            self.seen["refused"] += 1
            self.drop(wire)
            return
        self.perform(node, wire, todo, before)

    def perform(self, node: Node, wire: Wire, todo: list[sk.Effect], before: ControlState) -> None:
        crash_at = self.chance.randint(0, len(todo)) if self.chance.random() < 0.03 else None
        failing = 0.05 * self.temper["fail"]
        for index, effect in enumerate(todo):
            if index == crash_at:
                self.crash(wire.name)
                return
            if not isinstance(effect, sk.Reply) and self.chance.random() < failing:
                self.seen["failed effect"] += 1
                node.core.election_failed(before)
                self.drop(wire)
                return
            match effect:
                case sk.PersistControl(control):
                    node.control = control
                case sk.TruncateWal(end):
                    node.truncate(end)
                case sk.Reply(message):
                    self.reply(node, wire, message)

    def reply(self, node: Node, wire: Wire, message: messages.AcceptorMessage) -> None:
        require(node.control.term >= message.term, "a term is durable before it is told")
        if isinstance(message, messages.VoteResponse) and message.given:
            key = (wire.name, message.term)
            require(key not in self.votes, f"{key} votes once")
            self.votes.add(key)
        if not wire.broken:
            wire.to_proposer.append(messages.encode(message))

    def write_and_flush(self, name: str) -> None:
        """One group flush; the node may die between the write and the sync."""
        node = self.nodes[name]
        batch = node.core.take_batch()
        if batch is None:
            return
        node.write(batch)
        if self.chance.random() < 0.04 * self.temper["crash"]:
            self.crash(name)
            return
        if self.chance.random() < 0.02:
            node.core.write_failed()
            for wire in self.wires:
                if wire.name == name:
                    self.drop(wire)
            return
        node.sync()
        node.core.flushed(batch)
        for wire in self.wires:
            if wire.name == name and not wire.broken and wire.campaign.term == node.core.term:
                self.reply(node, wire, node.core.append_response())

    def save_control(self, name: str) -> None:
        self.nodes[name].control = self.nodes[name].core.control()

    def crash(self, name: str) -> None:
        self.seen["crash"] += 1
        for wire in self.wires:
            if wire.name == name:
                self.drop(wire)
        self.nodes[name].crash(self.chance)

    def gossip(self, source: str, target: str) -> None:
        core = self.nodes[source].core
        self.nodes[target].core.hear_peer(core.last_log_term, core.commit_lsn)

    def catch_up(self, source: str, target: str) -> None:
        """A member takes committed WAL from a peer; it may die in the middle of the cut."""
        giver, node = self.nodes[source].core, self.nodes[target]
        node.flush()
        flush_lsn = node.core.flush_lsn
        before = node.core.control()
        todo = node.core.begin_catching_up(giver.durable_history(), giver.commit_lsn)
        if todo and self.chance.random() < 0.05 * self.temper["fail"]:
            self.seen["failed effect"] += 1
            node.core.election_failed(before)
            return
        crash_at = self.chance.randint(0, len(todo)) if self.chance.random() < 0.1 else None
        for index, effect in enumerate(todo):
            if index == crash_at:
                self.crash(target)
                return
            if isinstance(effect, sk.PersistControl):
                node.control = effect.control
            elif isinstance(effect, sk.TruncateWal):
                node.truncate(effect.end_lsn)
        self.seen["cut_by_catch_up"] += node.core.flush_lsn < flush_lsn
        begin = node.core.flush_lsn
        if begin < giver.commit_lsn and todo:
            end = min(int(giver.commit_lsn), begin + self.chance.randint(1, 4) * RECORD.size)
            node.core.catch_up(begin, self.nodes[source].read(begin, end))
            self.seen["caught_up"] += 1

    def drop(self, wire: Wire) -> None:
        """The acceptor's end goes away; the proposer notices."""
        wire.to_acceptor.clear()
        if not wire.broken:
            for author in self.authors:
                if author.wires.get(wire.name) is wire:
                    self.hang_up(author, wire.name)
            wire.broken = True

    def deliver_to_proposer(self, author: Author, wire: Wire) -> None:
        message = messages.decode_acceptor(wire.to_proposer.popleft())
        try:
            self.carry_out(author, author.campaign.step(wire.name, message))
        except ProtocolError:
            self.seen["proposer_refused"] += 1
            self.hang_up(author, wire.name)

    # ---- the schedule

    def actions(self, *, chaos: bool) -> list[tuple[float, object, tuple[object, ...]]]:
        found: list[tuple[float, object, tuple[object, ...]]] = []
        for wire in self.wires:
            if wire.to_acceptor:
                weight = 0.3 * self.temper["stale"] if wire.broken else 4.0
                found.append((weight, self.deliver_to_acceptor, (wire,)))
        for author in self.authors:
            found.extend(self.author_actions(author, chaos=chaos))
        for name, node in self.nodes.items():
            if node.core.write_lsn > node.core.flush_lsn:
                found.append((3.0 * self.temper["flush"], self.write_and_flush, (name,)))
            if chaos:
                found.append((0.1 * self.temper["save"], self.save_control, (name,)))
                found.append((0.05 * self.temper["crash"], self.crash, (name,)))
                other = self.chance.choice(self.names)
                found.append((0.1 * self.temper["gossip"], self.gossip, (name, other)))
                found.append((0.2 * self.temper["catch_up"], self.catch_up, (other, name)))
        return found

    def author_actions(
        self, author: Author, *, chaos: bool
    ) -> list[tuple[float, object, tuple[object, ...]]]:
        found: list[tuple[float, object, tuple[object, ...]]] = []
        core = author.campaign
        for name in self.names:
            wire = author.wires.get(name)
            if wire is None:
                weight = 0.7 * (self.temper["connect"] if chaos else 1.0)
                found.append((weight, self.connect, (author, name)))
                continue
            if wire.to_proposer:
                found.append((4.0, self.deliver_to_proposer, (author, wire)))
            if core.peers[name].phase is PeerPhase.STREAMING and not core.ended:
                found.append((2.0, self.pump, (author, name)))
            if chaos:
                found.append((0.15 * self.temper["hang_up"], self.hang_up, (author, name)))
        if author.recovery is not None:
            found.append((2.0, self.recover, (author,)))
        if core.phase is Phase.LEADING and core.log.end_lsn - core.commit_lsn < 200:
            weight = 1.5 * self.temper["write"] if chaos else 0.2
            found.append((weight, self.write_records, (author,)))
        if chaos:
            found.append((0.03 * self.temper["replace"], self.replace, (author,)))
        return found

    def step(self, *, chaos: bool = True) -> None:
        found = self.actions(chaos=chaos)
        weights = [weight for weight, _, _ in found]
        ((_, action, arguments),) = self.chance.choices(found, weights)
        action(*arguments)  # type: ignore[operator]
        self.wires = [w for w in self.wires if not w.broken or w.to_acceptor]
        self.check_nodes()
