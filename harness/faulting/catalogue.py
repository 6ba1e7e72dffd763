"""The vocabulary as a page: ``python -m harness.faulting.catalogue`` prints docs/faults.md."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

from harness.faulting.fault import Damage, Fault
from harness.faulting.vocabulary import FAULTS

ROOT = Path(__file__).resolve().parents[2]
UNSUPPORTED = ROOT / "scenarios" / "faults" / "unsupported_faults.json"
EXAMPLE = ROOT / "harness" / "tests" / "test_plans_by_hypothesis.py"
COLUMNS = ("fault", "strikes", "what happens", "inverse", "effect: one of these counters rises")


def missing_in(world: str) -> Mapping[str, str]:
    """Faults that a world cannot cause, and what it would have to be able to do."""
    found: Mapping[str, str] = json.loads(UNSUPPORTED.read_text(encoding="utf-8"))[world]
    return found


def page() -> str:
    """docs/faults.md."""
    missing = missing_in("real")
    lines = [f"| {' | '.join((*COLUMNS, 'sim', 'real'))} |", "|---" * (len(COLUMNS) + 2) + "|"]
    lines += [_row(fault, missing.get(fault.name)) for fault in FAULTS.values()]
    share = f"{len(FAULTS) - len(missing)} of {len(FAULTS)}"
    example = EXAMPLE.read_text(encoding="utf-8").strip()
    return HEAD.format(share=share) + "\n".join(lines) + "\n" + FOOT.replace("EXAMPLE", example)


def _row(fault: Fault, lacking: str | None) -> str:
    what = fault.what
    if fault.damage is Damage.LOST:
        what += " (a copy is lost)"
    if fault.damage is Damage.WRONG:
        what += " (a copy lies)"
    if fault.unfair:
        what += f" (in no profile: {fault.unfair})"
    effects = " ".join(f"`{name.replace('{}', '*')}`" for name in fault.effects)
    cells = (f"`{fault.name}`", fault.scope.value, what, fault.inverse or "–", effects)
    real = f"no: cannot {lacking}" if lacking else "yes"
    return f"| {' | '.join((*cells, 'yes', real))} |"


HEAD = """\
# Faults

Every fault there is, for both worlds: data in `harness/faulting/`, one file per family. A fault is
caused through the handles of a cluster and the verbs of `harness/fault_ports.py`, so it means the
same in the simulation and among real processes. Of these, real processes suffer {share}, without
privileges: links through proxies, signals, copies of directories, a proxy before S3, etcd's own
leases. What that world cannot do it declares (`scenarios/faults/unsupported_faults.json`), and a
scenario that needs it is skipped with the reason.

Each fault has an *effect* that is measured, never assumed: counters that rise when it strikes (`*`
stands for the node). A run in which no fault had an effect is inconclusive.
`scenarios/faults/test_faults.py` strikes every fault alone and demands its effect, its event and
its end. A fault without an inverse is a moment. This page is
`python -m harness.faulting.catalogue`.

## Vocabulary

"""

FOOT = """
In the real world a lag or a silence of the broker is one of every byte that it says, for etcd's
clients hold one HTTP/2 connection for watches and requests. A power loss takes what was written
since the syncs of the disk hung: the operating system below a killed process loses nothing by
itself, so its directory is put back to what was durable then, file by file.

## In reports and traces

Every fault is an event `fault`, in both worlds: `verb` names it, `target` (and `source`) whom it
strikes. Its end is `heal`, `restore`, `calm`, or an event `end` whose `fault` names the verb that
is over. A plan's steps have their number in `step`, and their `effect` at the end. Processes that
are killed, stopped, paused and wiped also say so in their `process` events.

## What may be damaged

A budget keeps plans fair (`harness/faulting/atlas.py`): a minority of the safekeepers may lose
their copy, none may lie about what it answered, pageservers may lose or spoil theirs at will, for
S3 and the safekeepers have everything. What would break the budget is refused, and the record of
the step says why. Two faults never hold the same node, disk or link at once.

## Plans

A plan is a list of steps: a fault, whom it strikes, how long, and when: at a time, after a number
of commits, or when a node reports something. "Pause sk2 once it has flushed 0/180000 in term 3":

```python
Step(
    "pause",
    Strike(("sk2",)),
    OnEvent("lsn", "sk2", where={"name": "flush_lsn"}, at_least={"value": 0x180000}, term=3),
    for_s=0.5,
)
```

In the simulation the fault strikes at the very moment of the report; among real processes, up to
0.5 s later, for reports are read from files.

`draw_plan` draws one from a profile: `calm` strikes rarely, `lossy` breaks links, `hostile` breaks
everything, `swarm` draws a mix of faults, lengths and node options of its own for each run,
`transactions` is `swarm` under transactions, `consensus` a short swarm on proposers and members
(`scenarios/test_consensus_swarm.py`). `run_campaign(world, plan)` carries it out under load
and then demands liveness: of a healed core first, of everything at the end, and says what is stuck.

```
python -m harness sweep 'scenarios/test_campaign.py::test_campaign[swarm]' --seeds 0:1000 --jobs 2
python -m harness run 'scenarios/test_campaign.py::test_campaign[swarm]' --world sim --plan FILE
```

## Plans by Hypothesis

`harness.faulting.strategies` has strategies of triggers, steps and plans, to be composed in
`@given`; a failure is shrunk to the fewest steps. `harness/tests/test_plans_by_hypothesis.py` says:

```python
EXAMPLE
```
"""


if __name__ == "__main__":
    print(page(), end="")
