"""Steps of the workload that concern relations: made, filled, changed, rewritten, cut, dropped."""

from __future__ import annotations

import io
from typing import Final

from real.rebuild.work import Step, Work


def tables(work: Work) -> None:
    """Every kind of relation and of index; values out of line."""
    number, rows = work.number(), work.random.randint(150, 400)
    with work.session() as run:
        run.execute(
            f"""
            create table item{number}(id serial primary key, name text, tags int[], spot point,
                                      span int4range, payload text);
            create index on item{number} using hash(name);
            create index on item{number} using gin(tags);
            create index on item{number} using gist(spot);
            create index on item{number} using spgist(span);
            create index on item{number} using brin(id) with (pages_per_range = 1);
            create index on item{number}(lower(name)) where id % 3 = 0;
            insert into item{number}(name, tags, spot, span, payload)
                select 'name ' || i, array[i % 50, i % 7], point(i % 100, i / 100),
                       int4range(i, i + 10), repeat('payload ', i % 20)
                from generate_series(1, {rows}) i;
            create table large{number}(id int primary key, body text);
            alter table large{number} alter body set storage external;
            insert into large{number}
                select i, repeat('0123456789', 3000 * i) from generate_series(1, 3) i;
            create unlogged table volatile{number}(i int primary key);
            insert into volatile{number} select generate_series(1, 100);
            create materialized view summary{number} as
                select id % 10 as bucket, count(*) from item{number} group by 1;
            """
        )
        if "bloom" in work.extensions:
            run.execute(f"create index on item{number} using bloom(name)")


def changes(work: Work) -> None:
    """Rows come, change and go in the newest table; pages split, are pruned, filled again."""
    _some_table(work, "update {t} set name = name || '!' where id % 3 = 0",
                "delete from {t} where id % 5 = 0", "vacuum {t}",
                "insert into {t}(name, tags, spot, span) select 'again', array[i], point(i, i),"
                " int4range(i, i + 1) from generate_series(1, 200) i",
                "begin; delete from {t}; drop table {t} cascade; rollback",
                "select brin_summarize_new_values(c.oid) from pg_class c, pg_am a"
                " where a.oid = c.relam and a.amname = 'brin' and c.relkind = 'i'")  # fmt: skip


def rewriting(work: Work) -> None:
    """Relations that get new files, by commands and by rewriting; indexes built aside."""
    number = work.number()
    _some_table(work, f"alter table {{t}} add column more{number} int default {number}",
                f"alter table {{t}} alter column more{number} type bigint",
                "vacuum full {t}", "cluster {t} using {t}_pkey", "reindex table {t}",
                f"create index concurrently extra{number} on {{t}}(payload)",
                f"drop index extra{number}", "alter table {t} set tablespace annex",
                "alter table {t} set tablespace pg_default")  # fmt: skip


def dropping(work: Work) -> None:
    """Relations disappear: at commit, at rollback, in a subtransaction, with a schema."""
    number = work.number()
    with work.session() as run:
        run.execute(
            f"create schema gone{number}; create table gone{number}.t(i int primary key, x text);"
            f" insert into gone{number}.t select i, repeat('x', 99) from generate_series(1, 200) i;"
            f" create table kept{number}(i int); insert into kept{number} values (1)"
        )
        run.execute(f"begin; create table never{number}(i int primary key); rollback")
        run.execute(
            f"begin; savepoint a; create table never{number}(i int primary key);"
            f" rollback to a; create table really{number}(i int primary key); commit"
        )
        run.execute(f"drop schema gone{number} cascade")
        run.execute(f"drop table really{number}")


def shrinking(work: Work) -> None:
    """Files are cut: by vacuum at their end, by statements, inside of a transaction that fails."""
    number = work.number()
    keep = work.random.randint(1, 900)
    with work.session() as run:
        run.execute(
            f"create table shrink{number} as"
            " select i, repeat('x', 200) as filler from generate_series(1, 1500) i"
        )
        run.execute(f"create index on shrink{number}(i)")
        run.execute(f"vacuum (freeze) shrink{number}")
        run.execute(f"delete from shrink{number} where i > {keep}")
        run.execute(f"vacuum (freeze, truncate) shrink{number}")
        run.execute(f"select 1 from shrink{number} where i = {keep} for update")
        run.execute(
            f"update shrink{number} set filler = 'moved' || repeat('y', 300) where i % 9 = 1"
        )
        run.execute(
            f"begin; truncate shrink{number}; insert into shrink{number} values (1); rollback"
        )
        run.execute(f"create table empty{number} as select generate_series(1, 500) i")
        run.execute(f"truncate empty{number}")
        run.execute(f"insert into empty{number} select generate_series(1, {keep})")
        run.execute(f"vacuum empty{number}")
        run.execute(f"delete from empty{number} where i % 100 = 1")


def copying(work: Work) -> None:
    """COPY, also of frozen rows; a vacuum whose map bits later changes clear."""
    number = work.number()
    with work.session() as run:
        run.execute(f"begin; create table copied{number}(i int, t text)")
        run.copy_expert(f"copy copied{number} from stdin (format csv, freeze)", _lines(1, 400))
        run.execute("commit")
        run.copy_expert(f"copy copied{number} from stdin (format csv)", _lines(500, 700))
        run.execute(f"vacuum (freeze) copied{number}")
        run.execute(f"update copied{number} set t = 'thawed' where i % 200 = 1")
        run.execute(f"begin; select * from copied{number} where i = 300 for share; rollback")
        run.execute(f"delete from copied{number} where i % 250 = 7")


def _lines(first: int, last: int) -> io.StringIO:
    return io.StringIO("".join(f"{i},text {i}\n" for i in range(first, last + 1)))


def _some_table(work: Work, *statements: str) -> None:
    """Run statements on the table of items that was made last, if there is one."""
    with work.session() as run:
        run.execute("select relname from pg_class where relname ~ '^item[0-9]+$' order by oid desc")
        found = run.fetchone()
        for statement in statements if found else ():
            run.execute(statement.format(t=found[0]))


STEPS: Final[tuple[Step, ...]] = (
    tables, changes, rewriting, dropping, shrinking, copying,
)  # fmt: skip
"""``changes`` and ``rewriting`` do nothing before there is a table."""
