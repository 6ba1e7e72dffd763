"""The laws of consensus that every action of the model checks."""

from __future__ import annotations

from collections import Counter

from storage.lsn import Lsn
from storage.tests.consensus_node import RECORD, START, Node, require
from storage.walproposer.state import Campaign


class Laws:
    """What is known to be committed, and who led; the model keeps the nodes."""

    nodes: dict[str, Node]
    seen: Counter[str]
    leaders: dict[int, int]
    committed: bytes
    committed_term: int

    def check_won(self, number: int, term: int, start: Lsn) -> None:
        self.seen["won"] += 1
        require(self.leaders.setdefault(term, number) == number, "one leader a term")
        # A winner of an old term may know less; it can commit nothing any more.
        if term > self.committed_term:
            end = START + len(self.committed)
            require(start >= end, f"the epoch at {start} loses commits up to {end:#x}")

    def check_committed(self, core: Campaign, lsn: Lsn) -> None:
        self.seen["committed"] += 1
        begin = core.log.begin_lsn
        known_end = START + len(self.committed)
        overlap_end = min(int(lsn), known_end)
        if overlap_end > begin:
            ours = core.log.read(begin, Lsn(overlap_end))
            theirs = self.committed[begin - START : overlap_end - START]
            require(ours == theirs, f"committed bytes differ before {overlap_end:#x}")
        if lsn > known_end:
            self.committed_term = core.term
            (data, copies), *_ = self.copies(known_end, int(lsn)).most_common(1) or [(b"", 0)]
            require(copies > len(self.nodes) // 2, f"{lsn} is on no quorum's platters")
            self.committed += data
            held_from = max(int(begin), known_end)
            ours = core.log.read(Lsn(held_from), lsn)
            require(ours == self.committed[held_from - START :], "the log is what was committed")

    def copies(self, begin: int, end: int) -> Counter[bytes]:
        """How many platters hold which bytes in a range; those with a hole do not count."""
        wanted = range(begin, end, RECORD.size)
        return Counter(
            node.read(begin, end)
            for node in self.nodes.values()
            if all(lsn in node.platter for lsn in wanted)
        )

    def check_nodes(self) -> None:
        end = START + len(self.committed)
        whole = 0
        for name, node in self.nodes.items():
            core = node.core
            require(core.commit_lsn >= node.commit_seen, f"commit of {name} is monotone")
            node.commit_seen = core.commit_lsn
            require(core.commit_lsn <= core.flush_lsn, f"{name}: commit <= flush")
            require(core.commit_lsn <= end, f"{name} knows a commit that nobody made")
            ours = node.read(START, core.commit_lsn)
            require(self.committed.startswith(ours), f"{name} has other bytes below its commit")
            whole += self.has_committed(node)
            self.check_history(name, node)
        require(whole > len(self.nodes) // 2, "committed WAL is on a quorum's platters")

    def has_committed(self, node: Node) -> bool:
        if START + len(self.committed) > node.core.flush_lsn:
            return False
        return node.read(START, node.core.flush_lsn).startswith(self.committed)

    def check_history(self, name: str, node: Node) -> None:
        """Every record was written in the term that the history says."""
        switches = node.core.durable_history().switches
        for index, switch in enumerate(switches):
            last = index + 1 == len(switches)
            until = node.core.flush_lsn if last else switches[index + 1].lsn
            for lsn in range(switch.lsn, until, RECORD.size):
                term = RECORD.unpack(node.platter[lsn])[0]
                require(term == switch.term, f"{name}: record of term {term} in {switch.term}")
