"""The atlas: which copies of the data exist, and which of them a plan may still damage.

The protocol promises durability while a majority of the safekeepers keep what they answered for,
and S3 keeps what it acknowledged. Crashes that lose unsynced data, errors, stalls and full disks
damage nothing: nodes must survive them. So

* a safekeeper's copy may be *lost* (and the node then refuses the timeline), for a minority;
* a safekeeper's copy may never be *wrong*: one that forgot a vote or an answer is outside what any
  majority protocol survives (Lamport, "Paxos Made Simple", 2001, section 2.2);
* a pageserver's copy may be lost or wrong at will: S3 and the safekeepers have everything.
"""

from __future__ import annotations

from harness.faulting.fault import Cast, Damage, Fault, Strike


class Atlas:
    """Keeps the books of one run."""

    def __init__(self, cast: Cast) -> None:
        self._cast = cast
        self._lost: dict[str, None] = {}

    @property
    def losses_max(self) -> int:
        """How many safekeepers may lose their copy."""
        return (len(self._cast.safekeepers) - 1) // 2

    def refusal(self, fault: Fault, strike: Strike) -> str | None:
        """Why a fault would break the protocol's assumptions, ``None`` if it may strike."""
        struck = [target for target in strike.targets if target in self._cast.safekeepers]
        if fault.damage is Damage.NONE or not struck:
            return None
        if fault.damage is Damage.WRONG:
            return f"the copy of {struck[0]} would lie about what it answered"
        if len({*self._lost, *struck}) > self.losses_max:
            return f"{struck[0]} would be one lost copy too many, after {', '.join(self._lost)}"
        return None

    def note(self, fault: Fault, strike: Strike) -> None:
        """A fault has struck."""
        assert self.refusal(fault, strike) is None, f"{fault.name} breaks the budget"
        if fault.damage is Damage.LOST:
            for target in strike.targets:
                if target in self._cast.safekeepers:
                    self._lost[target] = None
