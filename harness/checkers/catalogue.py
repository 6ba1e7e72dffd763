"""Every oracle: what it promises, when it speaks, which bugs of the bank it is for, where it works.

``docs/oracles.md`` is :func:`page`, and a test compares; ``python -m harness.checkers.catalogue``
prints it. :func:`judged_by` begins the counts of a run with a zero for every oracle that applies,
so one that compared nothing is seen.
"""

from __future__ import annotations

import enum
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass


class When(enum.StrEnum):
    """When an oracle speaks."""

    ONLINE = "online"
    """At the event or the answer that breaks the promise: the run ends there."""
    ONLINE_IN_SIM = "online in sim"
    """Online where the order of events is exact; in real at the end, over all in order of time."""
    WAITING = "while waiting"
    """When a bound of time passes."""
    END = "at the end"
    """While the cluster still runs, after the scenario."""
    STOPPED = "after the stop"
    """Over what the stopped cluster left."""


@dataclass(frozen=True, slots=True)
class Oracle:
    """``name`` is its module in ``harness/checkers`` and its key in ``judged.json``; ``counts`` is
    what is counted there; ``only`` says why it is silent in a world or on a compute, if it is."""

    name: str
    promise: str
    when: When
    bank: str
    counts: str
    worlds: Sequence[str] = ("sim", "real")
    computes: Sequence[str] = ("walgen", "postgres")
    only: str = ""


WALGEN_ONLY = ("walgen",)
WAL_IS_MODELLED = "what PostgreSQL's WAL means, only PostgreSQL knows"

ORACLES = (
    Oracle(
        "acknowledged_commits",
        "the ledger of acknowledged commits: each is read back, or was overwritten",
        When.END,
        "O1",
        "acknowledged writes",
    ),
    Oracle(
        "reads_equal_model",
        "every read is explained by real time and by its LSN, on every branch and replica",
        When.END,
        "O1 O6",
        "values read",
    ),
    Oracle(
        "commit_order",
        "LSNs of answers agree with real time: history is not rewritten, reads are not stale",
        When.ONLINE,
        "O1 O2 O3",
        "operations that tell an LSN",
    ),
    Oracle(
        "linearizable",
        "each key is one register: Gibbons and Korach's zones, or a search of bounded effort "
        "(Wing, Gong, Lowe), which may end undecided and then is counted apart",
        When.END,
        "O1 O6",
        "keys decided (`linearizable undecided`: keys that were not)",
    ),
    Oracle(
        "dependency_cycles",
        "transactions and scans have one order: no G0, G1c, G-single, G2, long fork",
        When.END,
        "O6",
        "dependencies",
    ),
    Oracle(
        "list_append",
        "lists that transactions append to have one order, which is strictly serialisable: no G1a, "
        "G1b, lost or repeated append, fork, cycle, nor long fork between primary and replicas",
        When.END,
        "O1 O2 O6",
        "lists read or changed",
    ),
    Oracle(
        "conservation",
        "every read of all accounts of a bank has the same total",
        When.END,
        "O1 O6",
        "reads of all accounts",
    ),
    Oracle(
        "wal_explains_history",
        "single history: every operation is explained by the WAL, every record by one operation",
        When.END,
        "O1 O2 O6",
        "operations",
        computes=WALGEN_ONLY,
        only=WAL_IS_MODELLED,
    ),
    Oracle(
        "pages_equal_wal",
        "single history: page versions that pageservers serve equal redo of the safekeepers' WAL",
        When.END,
        "O2 O6 O8",
        "page versions",
        computes=WALGEN_ONLY,
        only=WAL_IS_MODELLED,
    ),
    Oracle(
        "reattachment",
        "lose a node and re-attach: every pageserver ends, is emptied, and has everything again "
        "from S3 and safekeepers",
        When.STOPPED,
        "O8",
        "page versions",
        worlds=("sim",),
        computes=WALGEN_ONLY,
        only="takes seconds in real, where `scenarios/test_lost_pageserver.py` does it",
    ),
    Oracle(
        "safekeepers_agree",
        "single history: safekeepers hold the same bytes below what two know to be committed, and "
        "wherever their newest entries are of one term",
        When.END,
        "O2",
        "kilobytes of WAL that all have",
    ),
    Oracle(
        "offloaded_wal",
        "WAL in S3 is whole segments without a gap, the bytes that safekeepers hold, and all that "
        "they claim to be there, at the moment of the claim and ever after; no offloader that was "
        "replaced writes over what its successor has said",
        When.ONLINE_IN_SIM,
        "O2 O4 O7",
        "reports and claims of members, and kilobytes of WAL in S3",
    ),
    Oracle(
        "lsn_order",
        "positions only grow, in the order backup ≤ commit ≤ flush and remote_consistent ≤ "
        "disk_consistent ≤ last_record; terms only grow, have one leader and one vote per member, "
        "across crashes",
        When.ONLINE_IN_SIM,
        "O3 O4 O5",
        "reports",
    ),
    Oracle(
        "consensus_messages",
        "one leader per term, with the votes of a majority; one vote per term; terms never fall "
        "and what was said to be durable is still there at the next vote: by the bytes between "
        "proposers and safekeepers, across crashes",
        When.ONLINE,
        "O1 O3 O5",
        "messages",
        worlds=("sim",),
        only="in real only the hub, another process, sees what travels",
    ),
    Oracle(
        "attachments",
        "a pageserver becomes a tenant's newest attachment only because it was asked to since the "
        "one before did, or because it was it",
        When.ONLINE,
        "O9",
        "looks at whose a tenant is",
        worlds=("sim",),
        only="in real the bucket cannot be read at one moment",
    ),
    Oracle(
        "safekeeper_logs",
        "what leaders call committed a quorum of their own term has, and it is one log, term by "
        "term; safekeepers believe in no other; no log grows from a vote on until it is extended; "
        "a restart finds nothing beyond what was sent since the last cut; readers are sent only "
        "what is committed",
        When.ONLINE,
        "O1 O2 O3",
        "reports of positions",
        worlds=("sim",),
        only="in real only the hub, another process, sees what travels",
    ),
    Oracle(
        "log_ends",
        "who has cut a log for a leader has nothing on its disk beyond the log's end",
        When.ONLINE,
        "O2",
        "logs that were adopted",
        worlds=("sim",),
        only="in real a disk cannot be read at one moment",
    ),
    Oracle(
        "crash_order",
        "what was durable outlives crashes, restarts and attachments",
        When.ONLINE_IN_SIM,
        "O1 O3 O8",
        "reports",
    ),
    Oracle(
        "quorum_order",
        "nothing is called committed, ingested or elected before a quorum flushed or voted for it",
        When.ONLINE,
        "O1 O5",
        "reports",
        worlds=("sim",),
        only="a killed process takes its last reports along",
    ),
    Oracle(
        "bucket",
        "remote referential integrity: what indexes name is there and whole, what a pageserver "
        "reports as remote or a safekeeper was told to be is there, at the moment of the report "
        "and once everybody has stopped; nothing is forgotten",
        When.ONLINE_IN_SIM,
        "O7",
        "reports, layers that indexes name, and tenants whose leavings were looked for",
    ),
    Oracle(
        "admin_persists",
        "what an administrator was told is done stays done; nothing acknowledged is unknown",
        When.END,
        "O9",
        "tenants, timelines and refusals",
    ),
    Oracle(
        "liveness",
        "what must come true does so within a bound; a report says what is stuck",
        When.WAITING,
        "O10",
        "demands that were met",
    ),
    Oracle(
        "nothing_leaked",
        "nodes stop in time and leave no task, file or socket; nothing runs for who has gone",
        When.STOPPED,
        "O11",
        "nodes that were asked for their tasks",
    ),
    Oracle(
        "tasks_heed",
        "background tasks end when they are asked to, without being cancelled",
        When.ONLINE,
        "O11",
        "incarnations that stopped, and tasks that were cancelled",
        worlds=("sim",),
        only="where time is real, cores are shared",
    ),
    Oracle(
        "logs",
        "no line at WARNING or above that nobody expects, of a node or of the scenario",
        When.STOPPED,
        "O12",
        "log lines",
    ),
    Oracle(
        "refusals",
        "an operation is refused only for a reason that its client can understand",
        When.ONLINE_IN_SIM,
        "O13",
        "answers",
    ),
    Oracle(
        "evidence",
        "all that the others rest on was recorded; if not, the run is an error of ours",
        When.STOPPED,
        "",
        "nodes and timelines that were heard of",
    ),
)
"""In the order of a reader's questions: what clients saw, what nodes hold, what they report."""

UNDECIDED = "linearizable undecided"
"""Key in ``judged.json`` of the keys for which the effort of a search did not suffice."""


def judged_by(world: str, compute: str) -> Counter[str]:
    """A zero for every oracle that applies to a world and a compute."""
    return Counter(
        {
            oracle.name: 0
            for oracle in ORACLES
            if world in oracle.worlds and compute in oracle.computes
        }
    )


def idle(judged: Counter[str]) -> list[str]:
    """Oracles that applied to a run and compared nothing in it."""
    return [oracle.name for oracle in ORACLES if judged.get(oracle.name) == 0]


HEAD = """# Oracles

What is judged in every run, without being asked; each oracle is a file in `harness/checkers/`, and
none knows the workload. `python -m harness run … --artifacts DIR` leaves in `judged.json` how much
each compared; an oracle that compared nothing stands there with 0. The numbers O1 … O13 are those
of [the bug bank](bug-bank.md). This page is `python -m harness.checkers.catalogue`.

"""


def page() -> str:
    """The page of all oracles."""
    lines = ["| oracle | promise | when | bank | worlds | counts |", "|---|---|---|---|---|---|"]
    for oracle in ORACLES:
        where = "both" if len(oracle.worlds) > 1 else oracle.worlds[0]
        where += "" if len(oracle.computes) > 1 else f", {oracle.computes[0]}"
        where += f" ({oracle.only})" if oracle.only else ""
        cells = (f"`{oracle.name}`", oracle.promise, oracle.when, oracle.bank or "–", where)
        lines.append(f"| {' | '.join(cells)} | {oracle.counts} |")
    return HEAD + "\n".join(lines) + "\n" + FOOT


FOOT = """
## When

* *online*: the event or the answer that breaks the promise ends the run, which so shows what led to
  it and nothing after it.
* *online in sim*: events of real processes come late and from several clocks; there the same code
  looks at all of them in order of time, at the end.
* *at the end*: the promise needs all answers (what a write of unknown outcome did is told by later
  reads), or a cluster at rest (bytes and pages are compared past every compute).

## Histories

A write is *acknowledged* (it certainly happened), *failed* (it certainly did not) or *unknown* (it
may happen, now, later or never). Unknown writes are given the benefit of any doubt, but only one:
what a read, a list or the WAL shows of them binds everybody. Reads of replicas at a pinned LSN and
through a primary that may have been deposed are old on purpose: their LSN binds them, no clock.

* Values of registers are unique, so a read names its write. Keys whose values repeat are searched,
  key by key, with bounded effort; what is undecided then is counted, and no failure.
* Elements of lists are unique, so a list names the transactions before it, in order: version orders
  need no LSN, and PostgreSQL is judged like walgen. Real time enters as a chain of instants, a few
  edges for each operation.
* What steps of transactions set depends on what they found. So keys they change are no registers;
  the WAL's redo runs the steps again on the state before their record.

## Costs

`python -m harness bench checkers` measures operations per second and peak memory of every oracle of
histories, for 10⁴ and 10⁵ operations.
"""


if __name__ == "__main__":
    print(page(), end="")
