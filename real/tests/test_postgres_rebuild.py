"""A stock PostgreSQL starts from a rebuilt directory at any LSN, and holds what it held then.

A rebuilt server is compared by the values of every table of every database, by the length of every
relation, by amcheck, by pg_visibility and by checksums: none of these alone sees everything, and
the negative controls at the end show which one sees which fault.
"""

from __future__ import annotations

import asyncio
import io
import tarfile
from bisect import bisect_right
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import psycopg2
import pytest

from real.rebuild.picture import Picture, broken_relations, differences, take_picture
from real.tests import postgres_history
from real.tests.postgres_checks import index_disagreements, leftover_files
from real.tests.postgres_history import SETTINGS, History, live, read_wal, session
from storage.lsn import Lsn
from storage.pageserver.keys import Slru
from storage.pageserver.postgres import databases, multixacts, relations, transactions
from storage.pageserver.postgres.control import CHECKPOINT
from storage.tests.postgres_server import Server, installations, own, scratch_directory
from storage.tests.postgres_store import VersionStore
from storage.wal.encode import encode
from storage.wal.format import PAGE_SIZE
from storage.wal.reader import WalReader
from storage.wal.record import RecordSpec, decode
from storage.wal.writer import WalWriter, WriterOptions

INSTALLATIONS = installations()
CLUSTERS = {
    15: (),
    16: ("--data-checksums",),
    18: (),  # Its initdb turns checksums on by itself.
}
MARKS = tuple(step.__name__ for step in postgres_history.STEPS)
NOOP = 0x20


@pytest.fixture(scope="module", params=sorted(CLUSTERS), ids=lambda version: f"pg{version}")
def history(request: pytest.FixtureRequest) -> Iterator[History]:
    if request.param not in INSTALLATIONS:
        pytest.skip(f"no PostgreSQL {request.param} binaries here")
    with scratch_directory() as home:
        yield live(INSTALLATIONS[request.param], home, *CLUSTERS[request.param])


@pytest.fixture(scope="module")
def store(history: History) -> VersionStore:
    return asyncio.run(history.ingest())


@pytest.fixture
def home() -> Iterator[Path]:
    with scratch_directory() as path:
        yield path


def record_end_at(store: VersionStore, lsn: Lsn) -> Lsn:
    """The end of the last record at or before an insert position, which may be past a header."""
    ends = sorted(store.record_starts)
    return ends[bisect_right(ends, lsn) - 1]


def rebuild(store: VersionStore, lsn: Lsn, history: History, home: Path, name: str) -> Server:
    """A server, not started, on the directory as of ``lsn``."""
    archive = asyncio.run(store.build(lsn))
    server = Server(history.installation, home, name)
    with tarfile.open(fileobj=io.BytesIO(archive)) as tar:
        tar.extractall(server.data)
    server.data.chmod(0o700)
    own(server.data)
    return server


def unlike(picture: Picture, server: Server) -> list[str]:
    """What differs now; sequences may be ahead by the values that are logged in advance."""
    return differences(picture, take_picture(server.home), sequence_slack=32 * 7)


@pytest.mark.parametrize("name", MARKS)
def test_rebuilt_server_equals_the_original_at_that_moment(
    history: History, store: VersionStore, home: Path, name: str
) -> None:
    mark = history.marks[name]
    server = rebuild(store, record_end_at(store, mark.lsn), history, home, name)
    with server.running(*SETTINGS):
        assert unlike(mark.picture, server) == []
        assert leftover_files(server) == []
        if name != "two_phase":  # The open prepared transaction holds locks.
            assert broken_relations(server.home) == []
        if name != "schema" and history.version == 15:
            assert index_disagreements(server) == []
        with session(server) as run:
            run.execute("select count(*) from volatile")
            assert run.fetchone() == (0,)
            run.execute("insert into volatile select 1")
    log = server.log.read_text()
    assert "PANIC" not in log
    assert "WARNING" not in log
    assert server.data.joinpath("global/pg_control").stat().st_size == PAGE_SIZE
    if "--data-checksums" in CLUSTERS[history.version] or history.version == 18:
        assert "Bad checksums:  0" in server.run("pg_checksums", "--check", "-D", str(server.data))


def test_directory_right_after_the_import_starts(
    history: History, store: VersionStore, home: Path
) -> None:
    server = rebuild(store, history.start, history, home, "fresh")
    assert "in production" not in server.run("pg_controldata", str(server.data))
    with server.running(*SETTINGS), session(server) as run:
        run.execute(
            "select count(*) > 0, pg_current_wal_flush_lsn() - %s from pg_class",
            (str(history.start),),
        )
        assert run.fetchone()[0]


def test_counters_crossed_and_dropped_segments(history: History, store: VersionStore) -> None:
    """The workload did what it is for: an epoch above 0, segments begun and segments cut off."""
    control = asyncio.run(store.directory(store.last_record_lsn).checkpoint())
    assert control is not None
    next_xid, _, next_multi, next_offset = CHECKPOINT.unpack(control)[5:9]
    assert next_xid >> 32 == 1
    assert next_xid & 0xFFFFFFFF > 1 << 20
    assert next_multi > 65536
    assert next_offset > 1636 * 32
    for slru in Slru:
        segments = asyncio.run(store.directory(store.last_record_lsn).slru_segments(slru))
        assert segments == [1], f"SLRU {slru} has segments {segments}"


def test_prepared_transaction_can_be_finished_after_the_rebuild(
    history: History, store: VersionStore, home: Path
) -> None:
    lsn = record_end_at(store, history.marks["two_phase"].lsn)
    server = rebuild(store, lsn, history, home, "prepared")
    with server.running(*SETTINGS), session(server) as run:
        run.execute("select gid from pg_prepared_xacts")
        assert run.fetchall() == [("open",)]
        run.execute("commit prepared 'open'")
        run.execute("select count(*) from part where v like 'prepared %'")
        assert run.fetchone() == (2,)
        run.execute("select count(*) from copied where i = 7")
        assert run.fetchone() == (2,)


def test_any_record_boundary_is_a_consistent_state(
    history: History, store: VersionStore, home: Path
) -> None:
    """In the middle of pgbench there is no picture to compare with, but its sums must agree."""
    before, after = history.marks["schema"].lsn, history.marks["churn"].lsn
    ends = [end for end in sorted(store.record_starts) if before < end < after]
    for number, lsn in enumerate(ends[-1:-400:-133]):
        server = rebuild(store, lsn, history, home, f"bench{number}")
        with server.running(*SETTINGS), session(server) as run:
            run.execute(
                "select (select sum(abalance) from pgbench_accounts),"
                " (select sum(tbalance) from pgbench_tellers),"
                " (select sum(bbalance) from pgbench_branches),"
                " (select sum(delta) from pgbench_history)"
            )
            assert len(set(run.fetchone())) == 1


def pad_until(store: VersionStore, history: History, wanted: Position) -> Lsn:
    """Let WAL continue with no-op records until one ends where it is wanted."""
    segment_size = history.segment_size
    writer = WalWriter(
        WriterOptions(history.version, segment_size, history.system_id),
        store.last_record_lsn,
        store.record_starts[store.last_record_lsn],
    )
    while not wanted(writer.position, segment_size):
        far = -writer.position % segment_size > 3 * PAGE_SIZE
        noop = RecordSpec(0, NOOP, 0, bytes(5000 if far else 6))
        raw, (start, end) = encode(noop, writer.prev_lsn), writer.append(noop)
        asyncio.run(store.ingest(decode(raw, start, end, history.version)))
    return writer.position


Position = Callable[[int, int], bool]
POSITIONS: dict[str, Position] = {
    "in the middle of a page": lambda at, segment: 1000 < at % PAGE_SIZE < 7000,
    "at the end of a page": lambda at, segment: at % PAGE_SIZE == 0 and at % segment > 0,
    "checkpoint crosses a page": lambda at, segment: 0 < -at % PAGE_SIZE < 104 < -at % segment,
    "checkpoint crosses a segment": lambda at, segment: 0 < -at % segment < 104,
    "at the end of a segment": lambda at, segment: at % segment == 0,
}


@pytest.mark.parametrize("where", POSITIONS)
def test_wal_goes_on_without_a_gap_from_the_synthetic_checkpoint(
    history: History, home: Path, where: str
) -> None:
    """Rebuilt, written to, crashed, recovered, and rebuilt again from the joined WAL."""
    if history.version != 15 and where != "checkpoint crosses a segment":
        pytest.skip("the page arithmetic is the same for all versions; 15 runs every position")
    store = asyncio.run(history.ingest())
    lsn = pad_until(store, history, POSITIONS[where])
    server = rebuild(store, lsn, history, home, "first")
    server.start(SETTINGS)
    try:
        with session(server) as run:
            run.execute("create table added as select generate_series(1, 100) i")
            run.execute("update pgbench_tellers set tbalance = 0")
    finally:
        server.stop("immediate")
    with server.running(*SETTINGS), session(server) as run:
        run.execute("insert into added select 1000")
    picture_source = rebuild_joined(store, history, home, server, lsn)
    with picture_source.running(*SETTINGS), session(picture_source) as run:
        run.execute("select count(*), max(i) from added")
        assert run.fetchone() == (101, 1000)
        assert broken_relations(picture_source.home) == []


def rebuild_joined(
    store: VersionStore, history: History, home: Path, first: Server, lsn: Lsn
) -> Server:
    """Ingest what ``first`` wrote from ``lsn`` on, every link checked, and rebuild at its end."""
    reader = WalReader(
        lsn, history.version, history.segment_size, history.system_id,
        check_prev=store.record_starts[lsn],
    )  # fmt: skip
    records = read_wal(first, reader, lsn, history.segment_size)
    for raw in records:
        asyncio.run(store.ingest(decode(raw.raw, raw.lsn, raw.end_lsn, history.version)))
    assert store.last_record_lsn == records[-1].end_lsn > lsn
    return rebuild(store, store.last_record_lsn, history, home, "second")


def test_basebackup_is_the_directory_without_relations(
    history: History, store: VersionStore
) -> None:
    lsn = record_end_at(store, history.marks["databases"].lsn)

    def files(*, full: bool) -> dict[str, bytes]:
        archive = asyncio.run(store.build(lsn, full=full))
        with tarfile.open(fileobj=io.BytesIO(archive)) as tar:
            return {
                member.name: content.read()
                for member in tar
                if (content := tar.extractfile(member)) is not None
            }

    whole, lean = files(full=True), files(full=False)
    missing = whole.keys() - lean.keys()
    assert all(name.rsplit("/", 1)[1][0].isdigit() for name in missing)
    assert not any(name.startswith(("pg_xact", "pg_multixact", "pg_wal")) for name in missing)
    assert {name: whole[name] for name in lean} == lean
    assert "base/1/PG_VERSION" in lean
    assert "global/pg_filenode.map" in lean


class Sabotage(NamedTuple):
    """A rule taken out, and what must notice it at which mark."""

    owner: type
    method: str
    mark: str
    seen_by: str


async def nothing(*_: object, **__: object) -> None:
    """In place of a rule."""


SABOTAGES = (
    Sabotage(relations.StorageRecords, "_truncate", "vacuums", "sizes"),
    Sabotage(relations.HeapRecords, "_update", "vacuums", "visibility"),
    Sabotage(multixacts.MultixactRecords, "_create", "multixacts", "start or amcheck"),
    Sabotage(transactions.TransactionRecords, "_set_status", "schema", "values"),
    Sabotage(transactions.TransactionRecords, "_drop", "finale", "leftovers"),
    Sabotage(databases.DatabaseRecords, "_copy_relation", "databases", "values"),
)


@pytest.mark.parametrize("sabotage", SABOTAGES, ids=lambda it: f"{it.owner.__name__}.{it.method}")
def test_checks_notice_a_missing_rule(
    history: History, home: Path, sabotage: Sabotage, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The checks above can fail: each rule that is taken out is seen by the check named for it."""
    if history.version != 15:
        pytest.skip("amcheck and pg_visibility are installed with 15 only")
    monkeypatch.setattr(sabotage.owner, sabotage.method, nothing)
    store = asyncio.run(history.ingest())
    mark = history.marks[sabotage.mark]
    lsn = record_end_at(store, mark.lsn)
    server = rebuild(store, lsn, history, home, "broken")
    assert symptoms(server, mark.picture, sabotage.seen_by)


def symptoms(server: Server, picture: Picture, seen_by: str) -> list[str]:
    """What the check of a kind finds wrong; a server that does not run at all is wrong too."""
    try:
        with server.running(*SETTINGS):
            match seen_by:
                case "sizes" | "values":
                    return unlike(picture, server)
                case "visibility":
                    assert unlike(picture, server) == []
                    return [line for line in broken_relations(server.home) if "visibility" in line]
                case "leftovers":
                    return leftover_files(server)
            return broken_relations(server.home)
    except (AssertionError, psycopg2.Error) as error:
        return [] if seen_by == "visibility" else [str(error)]
