"""Short ways to write the reported events of a run down in tests."""

from __future__ import annotations

from harness.backend import Event
from storage.events import Field


class Reports:
    """Builds a run's events, one second apart."""

    def __init__(self) -> None:
        self.events: list[Event] = []

    def add(self, node: str, kind: str, /, **fields: Field) -> Reports:
        self.events.append(Event(float(len(self.events)), node, kind, fields))
        return self

    def lsn(self, node: str, name: str, value: int, timeline: str = "l") -> Reports:
        return self.add(node, "lsn", tenant="t", timeline=timeline, name=name, value=value)

    def elected(self, node: str, term: int, proposer: int = 1, timeline: str = "l") -> Reports:
        return self.add(
            node, "elected", tenant="t", timeline=timeline, term=term, proposer=proposer
        )

    def vote(self, node: str, term: int, proposer: int) -> Reports:
        return self.add(node, "vote", tenant="t", timeline="l", term=term, proposer=proposer)

    def term(self, node: str, term: int) -> Reports:
        return self.add(node, "term", tenant="t", timeline="l", term=term)

    def process(self, node: str, state: str) -> Reports:
        return self.add(node, "process", node=node, state=state)

    def tenant(self, node: str, state: str) -> Reports:
        return self.add(node, "tenant_state", tenant="t", state=state)
