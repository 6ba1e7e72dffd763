"""What the system promises, row by row: the table that tests claim with the marker ``row``.

A row has claims; ``A1.repeat`` is the claim ``repeat`` of row ``A1``. Each needs a test that fails
without it, in both worlds unless ``worlds`` says less and ``reason`` why. ``bugs`` are records of
the bug bank that take the promise away: hunting them shows that the tests are no decoration.
"""

from __future__ import annotations

from dataclasses import dataclass

BOTH = ("sim", "real")
REAL = ("real",)
SIM = ("sim",)


@dataclass(frozen=True)
class Claim:
    """One thing that must be so. ``reason`` says why it is not claimed in every world."""

    name: str
    words: str
    worlds: tuple[str, ...] = BOTH
    reason: str = ""
    bugs: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        assert (self.worlds == BOTH) == (not self.reason), f"{self.name}: worlds without a reason"


@dataclass(frozen=True)
class Row:
    """A row of the table of what must work."""

    id: str
    title: str
    claims: tuple[Claim, ...]


@dataclass(frozen=True)
class Section:
    """Rows that belong together."""

    title: str
    rows: tuple[Row, ...]


STOCK = "stock binaries are real processes"

PAGESERVER = Section(
    "A. Pageserver",
    (
        Row("A1", "Attach and detach of a tenant over HTTP", (
            Claim("repeat", "both may be repeated, overlap and be given up: the last answer counts",
                  bugs=("own-detach-in-memory", "own-steals-back")),
            Claim("serves", "attach downloads the index; an active tenant serves everything"),
            Claim("keeps", "detach keeps what is in S3"),
            Claim("errors", "a refusal is typed JSON that names what was wrong"),
        )),
        Row("A2", "callmemaybe", (
            Claim("calls", "a safekeeper whose WAL a pageserver lacks calls until a stream exists"),
            Claim("pauses", "it pauses while a stream runs and goes on once that has ended"),
            Claim("dropped", "detach and unsubscribing end the calls"),
            Claim("restart", "it goes on after the safekeeper's restart"),
        )),
        Row("A3", "Migration of a tenant between two pageservers", (
            Claim("idle", "every row is there and new writes work"),
            Claim("load", "a load never sees a wrong answer and recovers"),
            Claim("stale", "the old pageserver, woken up late, harms nobody",
                  bugs=("own-never-superseded",)),
            Claim("stall", "with a warm copy the longest stall is bounded", SIM,
                  "bounds a delay; busy machines are later"),
        )),
        Row("B1", "Task registry", (
            Claim("registered", "`GET /v1/tasks` shows kind, tenant and timeline of every task"),
            Claim("shutdown", "tasks end by kind, tenant or timeline, through flag and awaitable, "
                  "and in a time that is bounded"),
            Claim("leak", "10,000 connections leave registry and descriptors as they were"),
        )),
        Row("B2", "Shutdown of the listener", (
            Claim("listener", "it stops without one more connection arriving"),
            Claim("sigterm", "the process ends within 2 s of SIGTERM without a client, with 100 "
                  "idle ones, and with one that never reads"),
        )),
        Row("B3", "Accept loop", (
            Claim("dropped", "a finished connection leaves nothing behind"),
        )),
        Row("C1", "Errors carry their trace", (
            Claim("log", "the whole chain of causes with backtraces is in the log"),
            Claim("client", "the client gets a message with SQLSTATE or HTTP status"),
        )),
        Row("D1", "LSNs out of scope", (
            Claim("branch", "a branch before initdb or the cutoff is refused, both LSNs named"),
            Claim("basebackup", "a base backup before them likewise"),
        )),
        Row("D2", "Errors of Execute", (
            Claim("simple", "an error inside a base backup reaches a client of the simple "
                  "protocol; connection and server live on"),
            Claim("extended", "the same by the extended protocol"),
        )),
        Row("D3", "No file for the ancestor", (
            Claim("metadata", "ancestor and branch point live in the timeline's index"),
            Claim("failed", "a branch that failed at any step leaves nothing that counts",
                  bugs=("own-branch-before-index",)),
        )),
        Row("D4", "latest_gc_cutoff", (
            Claim("durable", "it is in S3 before anything is removed"),
            Claim("held", "a pass waits for readers that are inside",
                  bugs=("gc-cutoff-check-not-held",)),
            Claim("checked", "reads and branches below it are refused"),
            Claim("get_page", "garbage collection against get_page"),
            Claim("branch_creation", "… against branch creation"),
            Claim("basebackup", "… against base backups"),
            Claim("read_only_start", "… against the start of read-only computes"),
            Claim("attach_detach", "… against attach and detach"),
            Claim("compaction", "… against compaction"),
            Claim("migration", "… against migration"),
            Claim("restart", "… against restarts"),
        )),
        Row("D5", "Read-only nodes pinned to an LSN", (
            Claim("defect", "without a lease, garbage collection takes what a pinned node reads"),
            Claim("leases", "with one it does not, until the lease ends"),
            Claim("restart", "a lease outlives restarts of the pageserver"),
            Claim("migration", "… and migration"),
            Claim("branch", "… and holds for branches"),
            Claim("standby_defect", "without feedback it takes what a lagging standby reads"),
            Claim("standby_holds", "hot standby feedback holds it back, whatever restarts or moves",
                  bugs=("standby-horizon-forgotten",)),
            Claim("standby_ends", "a standby that is gone is forgotten in time"),
        )),
    ),
)  # fmt: skip

SAFEKEEPER = Section(
    "B. Safekeeper",
    (
        Row("E1", "Fully async, several runtimes", (
            Claim("named", "each runtime has its name: a thread in real, a label in sim"),
            Claim("stall", "a blocked runtime does not stall the others", REAL,
                  "the sim has one thread"),
            Claim("disk", "disk I/O happens off the loop", REAL, "the sim has one thread"),
        )),
        Row("E2", "Cancellation fuse", (
            Claim("fuse", "a task dropped inside of a timeline operation crashes the node"),
            Claim("lock", "the timeline's lock is held over disk I/O"),
        )),
        Row("E3", "Metrics", (
            Claim("endpoint", "a Prometheus endpoint tells what the status tells"),
            Claim("collector", "collecting never blocks the service", REAL,
                  "the sim has one thread"),
        )),
        Row("E4", "The main task tracks the others", (
            Claim("ends", "if one ends, the process says which, and its exit code is not 0"),
        )),
        Row("E5", "Initial load is synchronous", (
            Claim("first", "every timeline is loaded before a connection is accepted"),
            Claim("corrupt", "a corrupt control file is refused by name"),
        )),
        Row("F1", "Control file persisted once in a while", (
            Claim("idle", "after a restart, remote_consistent_lsn of an idle timeline is right"),
            Claim("spike", "no spike of connections when storage nodes restart"),
        )),
        Row("G1", "WAL offload to S3", (
            Claim("need", "one task for a timeline, only while it is needed"),
            Claim("election", "one offloader for a timeline; a frozen one is fenced off"),
            Claim("whole", "only whole segments, only what is committed"),
            Claim("failover", "failover leaves no gap"),
            Claim("outage", "an outage of S3 is survived"),
        )),
        Row("G2", "Local environment", (
            Claim("up", "`python -m real up` starts a cluster and says how to connect", REAL,
                  "it is about real processes"),
        )),
        Row("H1", "WAL removal", (
            Claim("pageserver", "a segment stays while the pageserver needs it"),
            Claim("peers", "… while a peer needs it"),
            Claim("backup", "… until it is in S3; bumping backup_lsn by hand frees it"),
        )),
    ),
)  # fmt: skip

SHARED = Section(
    "Shared protocols",
    (
        Row("P1", "Consensus", (
            Claim("vote", "a vote is durable before it is answered; one leader of a term"),
            Claim("donor", "the donor is the highest (last_log_term, flush_lsn); its tail is "
                  "recovered"),
            Claim("truncation", "a log is cut at the first divergence"),
            Claim("commit", "commit_lsn is the quorum-th flush_lsn of the own term only"),
            Claim("control", "the control file has version and checksum; replacing it is atomic"),
            Claim("invariants", "terms, commits, backups and horizons never go back"),
        )),
        Row("P2", "WAL service", (
            Claim("commands", "START_WAL_PUSH, START_REPLICATION, IDENTIFY_SYSTEM, "
                  "TIMELINE_STATUS"),
            Claim("receivewal", "stock pg_receivewal writes what safekeepers have", REAL, STOCK),
            Claim("standby", "a stock hot standby follows a safekeeper", REAL, STOCK),
        )),
        Row("P3", "Page service", (
            Claim("pagestream", "requests are answered in order, whole, at their LSN"),
            Claim("timestamps", "the LSN of a time follows the times of commits, not of arrival"),
            Claim("backups", "basebackup and fullbackup give a data directory of an LSN"),
            Claim("stock", "psql, psycopg2 and the extended protocol are served", REAL, STOCK),
        )),
        Row("P4", "Pageserver", (
            Claim("walreceiver", "a safekeeper is found through the broker or callmemaybe"),
            Claim("index", "the index in S3 follows the layers it names",
                  bugs=("own-index-beside-layers",)),
            Claim("remote", "remote_consistent_lsn is that of the uploaded index",
                  bugs=("own-disk-told-as-remote",)),
            Claim("waits", "get_page waits for its LSN", bugs=("own-read-does-not-wait",)),
            Claim("branches", "branches read through their ancestors"),
            Claim("layers", "compaction and images change no page version"),
            Claim("retention", "the less strict of horizon and time decides, held back by "
                  "branches, leases and readers", bugs=("gc-horizon-pitr-not-min",)),
        )),
        Row("P5", "HTTP API", (
            Claim("errors", "errors are typed: msg, kind, trace_id"),
            Claim("openapi", "the served description names every route"),
        )),
        Row("P6", "Failpoints", (
            Claim("actions", "off, return, sleep, pause and exit, with counts and probability"),
            Claim("http", "they are armed over HTTP while the node runs"),
        )),
    ),
)  # fmt: skip

SYSTEM = (PAGESERVER, SAFEKEEPER, SHARED)


def claims() -> dict[str, Claim]:
    """Every claim by its full name, such as ``A1.repeat``."""
    found = [
        (f"{row.id}.{claim.name}", claim)
        for section in SYSTEM
        for row in section.rows
        for claim in row.claims
    ]
    assert len(dict(found)) == len(found), "two claims of one name"
    return dict(found)
