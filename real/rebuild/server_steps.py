"""Steps of the workload that concern the server as a whole: ids, databases, prepared work."""

from __future__ import annotations

import contextlib
from typing import Any, Final

import psycopg2.errors

from real.rebuild.work import Step, Work


def subtransactions(work: Work) -> None:
    """More than the 64 that a server keeps in memory; some undone; some in functions."""
    number = work.number()
    with work.session() as run:
        run.execute(f"create table nested{number}(i int); begin")
        for depth in range(work.random.randint(70, 100)):
            run.execute(f"savepoint s{depth}")
            run.execute(f"insert into nested{number} values ({depth})")
            if depth % 3 == 0:
                run.execute(f"rollback to s{depth}")
        run.execute("rollback" if work.random.random() < 0.3 else "commit")
        run.execute(
            f"do $$ begin for i in 1..30 loop begin insert into nested{number} values (i);"
            " if i % 4 = 0 then raise exception 'no'; end if;"
            " exception when raise_exception then null; end; end loop; end $$"
        )


def multixacts(work: Work) -> None:
    """Rows locked and changed by several at a time; those that held the locks commit or not."""
    number = work.number()
    with work.session() as run, work.session() as one, work.session() as two:
        run.execute(
            f"create table shared{number} as select i, 0 as n from generate_series(1, 90) i"
        )
        run.execute(f"alter table shared{number} add primary key (i)")
        for first in range(1, 80, 4):
            for session in (one, two):
                session.execute("begin")
                session.execute(
                    f"select 1 from shared{number} where i between %s and %s for key share",
                    (first, first + 3),
                )
            one.execute("savepoint deeper")
            one.execute(f"update shared{number} set n = n + 1 where i = {first}")
            two.execute("commit" if work.random.random() < 0.7 else "rollback")
            one.execute("commit" if work.random.random() < 0.7 else "rollback")


def sequences(work: Work) -> None:
    """Drawn from, set, restarted, undone with their transaction, cached, unlogged."""
    number = work.number()
    with work.session() as run:
        run.execute("select nextval('counter') from generate_series(1, 50)")
        run.execute(f"create sequence many{number} cache 20 maxvalue 500 cycle")
        run.execute(f"select nextval('many{number}') from generate_series(1, 30)")
        run.execute(f"select setval('counter', {work.random.randint(1, 100_000)})")
        run.execute(f"begin; alter sequence many{number} restart 400; rollback")
        run.execute(f"alter sequence many{number} restart 90 increment 3")
        run.execute(f"create unlogged sequence brief{number}")
        run.execute(f"select nextval('brief{number}')")
        run.execute(f"create table numbered{number}(i int generated always as identity, x int)")
        run.execute(f"insert into numbered{number}(x) select generate_series(1, 40)")
        run.execute(f"truncate numbered{number} restart identity")


def persistence(work: Work) -> None:
    """Tables that become logged, and that cease to be."""
    number = work.number()
    with work.session() as run:
        run.execute(
            f"create unlogged table turning{number}(i int primary key, t text);"
            f" insert into turning{number} select i, repeat('t', i) from generate_series(1, 300) i"
        )
        run.execute(f"alter table turning{number} set logged")
        run.execute(f"update turning{number} set t = 'kept' where i % 7 = 0")
        run.execute(f"create table waning{number} as select * from turning{number}")
        run.execute(f"alter table waning{number} set unlogged")


def databases(work: Work) -> None:
    """By both strategies, from a template in two tablespaces; moved; dropped."""
    number = work.number()
    with work.session() as run:
        run.execute(f"create database logged{number} strategy wal_log")
        with work.session(f"logged{number}") as inside:
            inside.execute(
                "create table here(i int primary key, t text);"
                " insert into here select i, 'text' from generate_series(1, 200) i;"
                " create table there(i int) tablespace annex; insert into there values (1), (2)"
            )
            inside.execute("vacuum (freeze) here")
        run.execute(f"create database copied{number} strategy file_copy template logged{number}")
        run.execute(f"create database apart{number} strategy file_copy template template0")
        run.execute(f"alter database apart{number} set tablespace annex")
        with work.session(f"copied{number}") as inside:
            inside.execute("update here set t = 'changed' where i % 50 = 1; drop table there")
        run.execute(f"drop database logged{number}")
        run.execute(f"create tablespace brief{number} location ''")
        run.execute(f"create table held{number}(i int) tablespace brief{number}")
        run.execute(f"drop table held{number}")
        run.execute(f"drop tablespace brief{number}")


def two_phase(work: Work) -> None:
    """One prepared transaction for each end, and one that stays open until the next time."""
    number = work.number()
    with work.session() as run:
        _finish_prepared(run)
        run.execute(f"create table promised{number}(i int)")
        for name in ("kept", "undone", "open"):
            run.execute(f"begin; insert into promised{number} values (1)")
            run.execute(f"savepoint child; create table by_{name}{number}(i int primary key)")
            run.execute(f"drop table if exists by_kept{number - 1}")
            run.execute(f"prepare transaction '{name}{number}'")
        run.execute(f"commit prepared 'kept{number}'")
        run.execute(f"rollback prepared 'undone{number}'")


def _finish_prepared(run: Any) -> None:
    run.execute("select gid from pg_prepared_xacts")
    for (gid,) in run.fetchall():
        run.execute(f"commit prepared '{gid}'")


def ids(work: Work) -> None:
    """Transaction ids are used up; what is old enough is frozen everywhere and cut off."""
    with work.session() as run:
        _finish_prepared(run)
        run.execute("set synchronous_commit = off")
        run.execute(
            "do $$ begin for i in 1..2000 loop perform txid_current(); commit; end loop; end $$"
        )
        run.execute("alter database template0 allow_connections true")
        run.execute("select datname from pg_database order by 1")
        for (database,) in run.fetchall():
            with work.session(database) as inside:
                inside.execute("vacuum (freeze)")


def catalogs(work: Work) -> None:
    """Catalogs get new files, those of the whole cluster too, so relation maps change."""
    with work.session() as run:
        _finish_prepared(run)  # A unique index of a catalog waits for whoever inserted into it.
        for statement in (
            "vacuum full pg_class", "reindex table pg_class", "vacuum full pg_authid",
            "vacuum full pg_attribute", "vacuum pg_proc",
        ):  # fmt: skip
            # The transfers read catalogs as well.
            with contextlib.suppress(psycopg2.errors.DeadlockDetected):
                run.execute(statement)


def origins(work: Work) -> None:
    """A subscriber's bookkeeping: set by commits, by hand, backwards, and dropped."""
    number = work.number()
    kept, dropped = f"kept{number}", f"dropped{number}"
    with work.session() as run:
        run.execute("select roname from pg_replication_origin")
        for (name,) in run.fetchall():
            run.execute("select pg_replication_origin_drop(%s)", (name,))
        for name in (kept, dropped):
            run.execute("select pg_replication_origin_create(%s)", (name,))
        run.execute("select pg_replication_origin_session_setup(%s)", (kept,))
        run.execute("select pg_replication_origin_advance(%s, '0/5000')", (dropped,))
        for at, end in ((1000, "commit"), (2000, "rollback"), (3000, "commit")):
            run.execute("begin")
            run.execute("select pg_replication_origin_xact_setup(%s, now())", (f"0/{at}",))
            run.execute(f"create table replicated{number}_{at}(i int)")
            run.execute(end)
        run.execute("select pg_replication_origin_session_reset()")
        run.execute("select pg_replication_origin_advance(%s, '0/10')", (dropped,))
        if work.random.random() < 0.5:
            run.execute("select pg_replication_origin_drop(%s)", (dropped,))


def administration(work: Work) -> None:
    """What an administrator does: segments, checkpoints, restore points, backups, settings."""
    with work.session() as run:
        run.execute("select pg_create_restore_point('here')")
        run.execute("select pg_logical_emit_message(true, 'prefix', 'message')")
        run.execute("select pg_logical_emit_message(false, 'prefix', 'message')")
        run.execute("select pg_backup_start('backup', true)")
        run.execute("select pg_switch_wal()")
        run.execute("select pg_backup_stop(false)")
        for value in ("off", "on"):
            run.execute(f"alter system set full_page_writes = {value}")
            run.execute("select pg_reload_conf()")
            run.execute("checkpoint")


STEPS: Final[tuple[Step, ...]] = (
    subtransactions, multixacts, sequences, persistence, databases, two_phase, ids, catalogs,
    origins, administration,
)  # fmt: skip
