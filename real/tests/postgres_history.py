"""A real server's life for the rebuild tests: what it did, its WAL, and what it looked like when.

The cluster is *worn* before it starts: ``pg_resetwal`` puts its transaction, multixact and member
counters just below segment borders, in epoch 1, so that a short life crosses and truncates them.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from real.rebuild import picture
from real.rebuild.picture import Picture, take_picture
from storage.lsn import Lsn
from storage.pageserver.postgres.control import ControlFile
from storage.pageserver.postgres.import_directory import end_of_checkpoint
from storage.tests.postgres_server import ALL_IMAGES, Installation, Server, own
from storage.tests.postgres_store import VersionStore, tar_of
from storage.wal.format import segment_name
from storage.wal.reader import RawRecord, WalReader
from storage.wal.record import decode

SETTINGS = (
    *ALL_IMAGES, "wal_keep_size=4GB", "max_prepared_transactions=5", "autovacuum=off",
    "allow_in_place_tablespaces=on", "checkpoint_timeout=1h", "max_wal_size=4GB",
)  # fmt: skip


@dataclass(frozen=True)
class Mark:
    """A moment without activity: the end of WAL then, and what every database held."""

    name: str
    lsn: Lsn
    picture: Picture


@dataclass
class History:
    """A server's life from its base directory on."""

    installation: Installation
    segment_size: int
    system_id: int
    start: Lsn
    base_prev: Lsn
    base: VersionStore
    records: list[RawRecord] = field(default_factory=list)
    marks: dict[str, Mark] = field(default_factory=dict)

    @property
    def version(self) -> int:
        return self.installation.version

    async def ingest(self) -> VersionStore:
        """A fresh store that has imported the base and ingested all the WAL."""
        store = VersionStore(self.version)
        store.versions = {key: list(versions) for key, versions in self.base.versions.items()}
        store.record_starts = dict(self.base.record_starts)
        store.last_record_lsn = self.base.last_record_lsn
        for raw in self.records:
            await store.ingest(decode(raw.raw, raw.lsn, raw.end_lsn, self.version))
        return store


def session(server: Server, database: str = "postgres") -> AbstractContextManager[Any]:
    """A connection that commits each statement."""
    return picture.session(server.home, database)


def wear(server: Server) -> None:
    """Set the counters just below the ends of the first SLRU segments, in epoch 1."""
    for name in ("pg_xact", "pg_multixact/offsets", "pg_multixact/members"):
        path = server.data / name / "0000"
        content = path.read_bytes() if path.exists() else b""
        path.write_bytes(content.ljust(32 * 8192, b"\0"))
    own(server.data)
    server.run(
        "pg_resetwal", "-D", str(server.data), "-e", "1", "-x", "1048550", "-m", "65500,65400",
        "-O", "52330",
    )  # fmt: skip


def read_wal(server: Server, reader: WalReader, start: Lsn, segment_size: int) -> list[RawRecord]:
    """Every record from ``start`` to the end of the stopped server's WAL."""
    at = int(start)
    while True:
        name = segment_name(1, at // segment_size, segment_size)
        path = server.data / "pg_wal" / name
        if not path.exists():
            break
        reader.feed(path.read_bytes()[at % segment_size :])
        at += segment_size - at % segment_size
    records = []
    records_left = reader.records()
    while True:
        try:
            records.append(next(records_left))
        except Exception:  # The zeros behind the last record are no record.
            return records


def live(installation: Installation, home: Path, *initdb_options: str) -> History:
    """Run the whole workload; the history that it leaves."""
    server = Server(installation, home, "source")
    server.initdb("--wal-segsize=1", *initdb_options)
    wear(server)
    control = ControlFile.load(
        (server.data / "global" / "pg_control").read_bytes(), installation.version
    )
    start = end_of_checkpoint(control)
    base = VersionStore(installation.version)
    asyncio.run(base.import_directory(tar_of(server.data), start))
    history = History(
        installation, control["wal_segment_size"], control["system_id"], start,
        control.checkpoint_lsn, base,
    )  # fmt: skip
    compression = "lz4" if installation.version == 15 else "off"  # The wheels have pglz only.
    with server.running(*SETTINGS, f"wal_compression={compression}"):
        for step in (schema, churn, vacuums, multixacts, databases, two_phase, finale):
            step(server)
            mark(history, server, step.__name__)
    reader = WalReader(
        start, installation.version, history.segment_size, history.system_id,
        check_prev=control.checkpoint_lsn,
    )  # fmt: skip
    history.records = read_wal(server, reader, start, history.segment_size)
    return history


def mark(history: History, server: Server, name: str) -> None:
    with session(server) as cursor:
        cursor.execute("select pg_current_wal_insert_lsn()::text")
        lsn = Lsn.parse(cursor.fetchone()[0])
        cursor.execute("checkpoint")  # Sizes are taken from the files.
    history.marks[name] = Mark(name, lsn, take_picture(server.home))


def schema(server: Server) -> None:
    """Relations of every kind, every index method, values out of line."""
    with session(server) as run:
        for extension in ("amcheck", "pg_visibility"):
            if extension in server.installation.extensions:
                run.execute(f"create extension {extension}")
        run.execute(
            """
            create table item(id serial primary key, name text, tags int[], spot point,
                              span int4range, payload text);
            insert into item(name, tags, spot, span, payload)
                select 'name ' || i, array[i % 50, i % 7], point(i % 100, i / 100),
                       int4range(i, i + 10), repeat('payload ', i % 20)
                from generate_series(1, 3000) i;
            create index item_hash on item using hash(name);
            create index item_gin on item using gin(tags);
            create index item_gist on item using gist(spot);
            create index item_spgist on item using spgist(span);
            create index item_brin on item using brin(id);
            create table large(id int primary key, body text);
            alter table large alter body set storage external;
            insert into large select i, repeat('0123456789', 20000) from generate_series(1, 5) i;
            create unlogged table volatile(i int primary key);
            insert into volatile select generate_series(1, 500);
            create materialized view summary as select id % 10 as bucket, count(*) from item
                group by 1;
            create table part(k int, v text) partition by range(k);
            create table part_low partition of part for values from (0) to (100);
            create table part_high partition of part for values from (100) to (200);
            insert into part select i, i::text from generate_series(0, 199) i;
            create sequence counter increment 7;
            create table shrinking as select i, repeat('x', 200) as filler
                from generate_series(1, 6000) i;
            create index shrinking_i on shrinking(i);
            """
        )


def churn(server: Server) -> None:
    """Updates, deletes, aborts, nested subtransactions beyond the cached 64, two at a time."""
    with session(server) as run:
        run.execute("update item set name = name || '!' where id % 3 = 0")
        run.execute("delete from item where id % 17 = 0")
        run.execute("begin; delete from item; drop table large; rollback")
        run.execute("begin")
        for number in range(90):
            run.execute(f"savepoint s{number}")
            run.execute("insert into part values (50, %s)", (f"sub {number}",))
            if number % 3 == 0:
                run.execute(f"rollback to s{number}")
        run.execute("commit")
        run.execute("select nextval('counter') from generate_series(1, 40)")
    server.pgbench("-i", "-q", "-s", "1")
    server.pgbench("-n", "-c", "4", "-t", "50")


def vacuums(server: Server) -> None:
    """Truncation by vacuum and by statement, freezing, rewriting; then changes to frozen pages."""
    with session(server) as run:
        run.execute("delete from shrinking where i > 2000")
        run.execute("vacuum (freeze) shrinking")
        run.execute("vacuum (freeze, analyze) item")
        run.execute("vacuum full part_low")
        run.execute("truncate part_high")
        run.execute("cluster item using item_pkey")
        run.execute("vacuum (freeze) item")
        run.execute("update item set payload = 'thawed' where id % 500 = 1")
        run.execute("delete from item where id % 501 = 1")
        run.execute("insert into item(name) values ('late')")
        run.execute("begin; select * from shrinking where i = 700 for update; commit")
        run.execute("update shrinking set filler = 'moved' || repeat('y', 300) where i % 900 = 1")
        run.execute("create table copied(i int); insert into copied select 1")
        run.execute("vacuum copied")
        run.execute("reindex table item; alter table large add column extra int default 5")
        run.execute("select pg_switch_wal()")


def multixacts(server: Server) -> None:
    """Rows locked by two at a time, over a page and a segment border of both SLRUs."""
    with session(server) as one, session(server) as two:
        for number in range(60):
            for run in (one, two):
                run.execute("begin")
                run.execute(
                    "select 1 from item where id between %s and %s for share",
                    (number * 5 + 2, number * 5 + 4),
                )
            one.execute("savepoint deeper")
            one.execute("select 1 from item where id = %s for key share", (number * 5 + 2,))
            one.execute("commit")
            two.execute("commit" if number % 4 else "rollback")


def databases(server: Server) -> None:
    """Databases by both strategies, one dropped, one in a tablespace in place; old ids cut off."""
    with session(server) as run:
        run.execute("create tablespace annex location ''")
        run.execute("create table outside(i int primary key) tablespace annex")
        run.execute("insert into outside select generate_series(1, 100)")
        run.execute("create database logged strategy wal_log")
        run.execute("create database copied strategy file_copy template template0")
        run.execute("create database gone strategy file_copy")
        run.execute("create database apart tablespace annex strategy wal_log")
        run.execute("drop database gone")
        run.execute("update pg_database set datallowconn = true where datname = 'template0'")
    for database in ("logged", "copied", "apart"):
        with session(server, database) as run:
            run.execute("create table here(i int primary key, t text)")
            run.execute(
                "insert into here select i, current_database() from generate_series(1, 300) i"
            )
    with session(server) as run:
        run.execute("alter database copied set tablespace annex")
    for database in ("template0", "template1", "postgres", "logged", "copied", "apart"):
        with session(server, database) as run:
            run.execute("vacuum (freeze)")


def two_phase(server: Server) -> None:
    """Prepared transactions: one open from here on, one finished each way; one with a child."""
    with session(server) as run:
        for name in ("kept", "undone", "open"):
            run.execute("begin")
            run.execute("insert into part values (60, %s)", (f"prepared {name}",))
            run.execute("savepoint child")
            run.execute("insert into copied select 7")
            run.execute(f"prepare transaction '{name}'")
        run.execute("commit prepared 'kept'")
        run.execute("rollback prepared 'undone'")


def finale(server: Server) -> None:
    """The open prepared transaction commits; relations disappear; a checkpoint."""
    with session(server) as run:
        run.execute("commit prepared 'open'")
        run.execute("drop table large; drop table shrinking; drop materialized view summary")
        run.execute("checkpoint")
        run.execute("create table last as select generate_series(1, 10) i")


STEPS: tuple[Callable[[Server], None], ...] = (
    schema, churn, vacuums, multixacts, databases, two_phase, finale,
)  # fmt: skip
