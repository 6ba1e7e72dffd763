"""The owner's side of the hub: its control socket, and the fault verbs of a cluster's network."""

from __future__ import annotations

import json
import socket
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from harness.backend import Tap
from harness.errors import HarnessError, UnsupportedFault
from harness.fault_ports import CALM, LinkFaults, Note

ANSWER_S_MAX = 10.0


class HubClient:
    """Asks the hub. A request blocks until it is carried out, so a fault holds when it returns.

    The hub is a process of its own and never waits for this one.
    """

    def __init__(self, control: socket.socket) -> None:
        control.settimeout(ANSWER_S_MAX)
        self._control = control
        self._lines = control.makefile("rb")
        self._number = 0
        self.address = ("127.0.0.1", int(self._receive("start")["port"]))

    def ask(self, verb: str, **arguments: Any) -> Any:
        """Carry out one verb of :class:`real.proxy.Hub`; ``HarnessError`` when it fails."""
        self._number += 1
        request = {"number": self._number, "verb": verb, **arguments}
        try:
            self._control.sendall(json.dumps(request).encode() + b"\n")
        except OSError as error:
            raise HarnessError(f"the hub is gone, cannot do {verb!r}: {error}") from error
        answer = self._receive(verb)
        while answer["number"] != self._number:  # Of a request that a Ctrl-C cut short.
            answer = self._receive(verb)
        if "error" in answer:
            raise HarnessError(f"the hub refuses {answer['error']}")
        return answer["ok"]

    def _receive(self, verb: str) -> Any:
        try:
            line = self._lines.readline()
        except OSError as error:
            raise HarnessError(f"the hub does not answer {verb!r} in {ANSWER_S_MAX} s") from error
        if not line:
            raise HarnessError(f"the hub ended before it answered {verb!r}")
        return json.loads(line)

    def close(self) -> None:
        """Hang up, which ends the hub."""
        self._lines.close()
        self._control.close()


class HubNetwork:
    """``harness.backend.Network`` over the hub; ``note`` is told of each fault as it is made."""

    def __init__(self, hub: HubClient, note: Note) -> None:
        self._hub = hub
        self._note = note
        self._final: Mapping[str, int] | None = None

    def _fault(self, verb: str, source: str, target: str, both: bool, **faults: Any) -> None:
        links = [[source, target]] + ([[target, source]] if both else [])
        self._hub.ask("fault", links=links, **faults)
        self._note(verb=verb, source=source, target=target, both=both)

    def cut(self, source: str, target: str, *, both: bool = True) -> None:
        """Black hole; connections established now stay silent for ever."""
        self._fault("cut", source, target, both, cut=True)

    def hold(self, source: str, target: str, *, both: bool = True) -> None:
        """Keep what is sent, in order, until healed."""
        self._fault("hold", source, target, both, held=True)

    def delay(self, source: str, target: str, seconds: float, *, both: bool = True) -> None:
        """Add ``seconds`` to everything sent from now on."""
        if seconds < 0:
            raise HarnessError(f"a delay of {seconds} s; give 0 or more")
        self._fault("delay", source, target, both, delay_s=seconds)

    def disturb(self, source: str, target: str, chances: LinkFaults, *, both: bool = True) -> None:
        """Break writes in two by chance; ``CALM`` ends it. Streams are all that the hub forwards:
        ``UnsupportedFault`` for faults of datagrams."""
        if replace(chances, fragmentation=0.0) != CALM:
            raise UnsupportedFault("the hub of the real world forwards streams, not datagrams")
        verb = "calm" if chances == CALM else "disturb"
        self._fault(verb, source, target, both, fragmentation=chances.fragmentation)

    def heal(self, source: str, target: str, *, both: bool = True) -> None:
        """Undo every fault of the link."""
        self._fault("heal", source, target, both, cut=False, held=False, delay_s=0.0)

    def reset(self, source: str, target: str) -> None:
        """Reset the established connections between two hosts."""
        self._hub.ask("reset", source=source, target=target)
        self._note(verb="reset", source=source, target=target)

    def tap(self, port: int, tap: Tap) -> None:
        """Always ``UnsupportedFault``: what travels is seen by the hub, another process."""
        raise UnsupportedFault("the hub of the real world counts bytes, it shows them to nobody")

    def effects(self) -> Mapping[str, int]:
        """What the faults did so far."""
        return self._final if self._final is not None else dict(self._hub.ask("effects"))

    def seal(self) -> None:
        """Remember the effects; the hub is about to end."""
        self._final = self.effects()
