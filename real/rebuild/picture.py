"""What a server looks like from outside: values, sizes, sequences; and what its own checks find."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psycopg2

_TABLES = """
    select c.oid::regclass::text, c.relpersistence,
           case c.relkind when 't' then 'row(t.chunk_id, t.chunk_seq, t.chunk_data)' else 't' end
    from pg_class c where c.relkind in ('r', 'm', 't') and c.relpersistence <> 't' order by 1
"""
_SIZES = """
    select c.oid::regclass::text, pg_relation_size(c.oid, 'main'), pg_relation_size(c.oid, 'vm'),
           pg_relation_filepath(c.oid)
    from pg_class c where c.relkind in ('r', 'm', 't', 'i', 'S') and c.relpersistence = 'p'
    order by 1
"""
_SEQUENCES = """
    select c.oid::regclass::text from pg_class c
    where c.relkind = 'S' and c.relpersistence = 'p' order by 1
"""
_BLOCK = 8192


@dataclass(frozen=True)
class DatabasePicture:
    """Of each table the rows' number and hash; of each relation its sizes; of each sequence its
    last value."""

    tables: dict[str, tuple[int, int]] = field(default_factory=dict)
    sizes: dict[str, tuple[int, int]] = field(default_factory=dict)
    sequences: dict[str, int] = field(default_factory=dict)


Picture = dict[str, DatabasePicture]
"""By database."""


@contextmanager
def session(host: Path, database: str = "postgres") -> Iterator[Any]:
    """A cursor that commits each statement, on the server whose socket lies in ``host``."""
    with closing(psycopg2.connect(host=str(host), user="postgres", dbname=database)) as link:
        link.autocommit = True
        with link.cursor() as cursor:
            yield cursor


def database_names(host: Path) -> list[str]:
    """Those that take connections."""
    with session(host) as run:
        run.execute("select datname from pg_database where datallowconn order by 1")
        return [name for (name,) in run.fetchall()]


def take_picture(host: Path) -> Picture:
    """All databases of a quiet server."""
    return {name: _take_database(host, name) for name in database_names(host)}


def _take_database(host: Path, database: str) -> DatabasePicture:
    picture = DatabasePicture()
    with session(host, database) as run:
        run.execute(_TABLES)
        for table, persistence, row in run.fetchall():
            run.execute(
                f"select count(*), coalesce(sum(hashtextextended({row}::text, 0)::numeric), 0) "
                f"from only {table} t"
            )
            # Unlogged tables start empty after a rebuild, as after a crash.
            picture.tables[table] = (0, 0) if persistence == "u" else run.fetchone()
        run.execute(_SEQUENCES)
        for (sequence,) in run.fetchall():
            run.execute(f"select last_value from {sequence}")
            picture.sequences[sequence] = run.fetchone()[0]
        run.execute(_SIZES)
        for relation, main, visibility_map, path in run.fetchall():
            picture.sizes[relation] = (
                _written_size(run, path, main),
                _written_size(run, f"{path}_vm", visibility_map),
            )
    return picture


def _written_size(run: Any, path: str, size: int) -> int:
    """The size without trailing zero pages: 16 and later extend ahead of need, unlogged."""
    while size:
        run.execute("select pg_read_binary_file(%s, %s, %s)", (path, size - _BLOCK, _BLOCK))
        if any(bytes(run.fetchone()[0])):
            break
        size -= _BLOCK
    return size


def differences(original: Picture, rebuilt: Picture, *, sequence_slack: int = 0) -> list[str]:
    """What differs, in words; sequences may be ahead by up to ``sequence_slack``.

    A server that has not crashed is behind its WAL by the values it logged in advance.
    """
    found = []
    if original.keys() != rebuilt.keys():
        found.append(f"databases {sorted(original)} became {sorted(rebuilt)}")
    for name in sorted(original.keys() & rebuilt.keys()):
        before, after = original[name], rebuilt[name]
        for kind in ("tables", "sizes"):
            left, right = getattr(before, kind), getattr(after, kind)
            found += [
                f"{name}: {kind} of {relation}: {left.get(relation)} became {right.get(relation)}"
                for relation in sorted(left.keys() | right.keys())
                if left.get(relation) != right.get(relation)
            ]
        for sequence, value in before.sequences.items():
            now = after.sequences.get(sequence)
            if now is None or not 0 <= now - value <= sequence_slack:
                found.append(f"{name}: sequence {sequence}: {value} became {now}")
    return found


def broken_relations(host: Path, database: str = "postgres") -> list[str]:
    """What amcheck and pg_visibility find in a database, if they are installed in it."""
    found = []
    with session(host, database) as run:
        run.execute("set lock_timeout = '2s'")
        run.execute("select extname from pg_extension")
        extensions = {name for (name,) in run.fetchall()}
        if "amcheck" in extensions:
            found += _amcheck(run)
        if "pg_visibility" in extensions:
            run.execute(
                "select c.oid::regclass::text, t::text from pg_class c,"
                " lateral (select pg_check_visible(c.oid) t"
                "          union all select pg_check_frozen(c.oid)) x"
                " where c.relkind in ('r', 'm', 't') and c.relpersistence = 'p'"
            )
            found += [f"visibility map of {name} lies about {row}" for name, row in run.fetchall()]
    return found


def _amcheck(run: Any) -> list[str]:
    found = []
    run.execute(
        "select c.oid, c.oid::regclass::text from pg_class c join pg_am a on a.oid = c.relam"
        " where c.relkind = 'i' and a.amname = 'btree' and c.relpersistence = 'p'"
    )
    for oid, name in run.fetchall():
        try:
            run.execute("select bt_index_parent_check(%s, true, true)", (oid,))
        except psycopg2.Error as error:
            found.append(f"index {name}: {error}")
    run.execute(
        "select c.oid, c.oid::regclass::text from pg_class c"
        " where c.relkind in ('r', 'm', 't') and c.relpersistence = 'p'"
    )
    for oid, name in run.fetchall():
        run.execute("select blkno, offnum, msg from verify_heapam(%s, check_toast := true)", (oid,))
        found += [f"table {name}: {row}" for row in run.fetchall()]
    return found
