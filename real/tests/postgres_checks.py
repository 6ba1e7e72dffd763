"""What only the tests of a history ask a server: its indexes' answers, and files nobody owns."""

from __future__ import annotations

from real.rebuild.picture import database_names, session
from storage.tests.postgres_server import Server


def index_disagreements(server: Server) -> list[str]:
    """Conditions for which an index scan and a sequential scan of ``item`` do not agree."""
    conditions = {
        "item_pkey": ["id = 77", "id between 100 and 300"],
        "item_hash": ["name = 'name 77'", "name = 'name 3!'"],
        "item_gin": ["tags @> array[3]", "tags && array[5, 6]"],
        "item_gist": ["spot <@ box '((2,2),(20,20))'", "spot <@ box '((50,0),(60,9))'"],
        "item_spgist": ["span @> 500", "span && int4range(90, 99)"],
        "item_brin": ["id < 50"],
    }
    found = []
    with session(server.home) as run:
        for index, cases in conditions.items():
            for case in cases:
                answers = []
                for scan in ("seqscan", "indexscan"):
                    on = "on" if scan == "seqscan" else "off"
                    off = "off" if scan == "seqscan" else "on"
                    run.execute(
                        f"set enable_seqscan = {on}; set enable_indexscan = {off};"
                        f" set enable_bitmapscan = {off}"
                    )
                    run.execute(
                        "select count(*), sum(hashtextextended(item::text, 0)::numeric)"
                        f" from item where {case}"
                    )
                    answers.append(run.fetchone())
                if answers[0] != answers[1]:
                    found.append(f"{index}: {case}: {answers[0]} by table, {answers[1]} by index")
    return found


def leftover_files(server: Server) -> list[str]:
    """Relation files in the default tablespace that no relation of their database owns."""
    found = []
    for database in database_names(server.home):
        with session(server.home, database) as run:
            run.execute("select oid from pg_database where datname = current_database()")
            directory = server.data / "base" / str(run.fetchone()[0])
            run.execute(
                "select pg_relation_filenode(oid) from pg_class where relfilenode <> 0"
                " or pg_relation_filenode(oid) is not null"
            )
            owned = {str(number) for (number,) in run.fetchall()}
        if directory.exists():
            names = (path.name for path in directory.iterdir() if path.name[0].isdigit())
            found += [
                f"{database}: {name}"
                for name in sorted(names)
                if name.split("_")[0].split(".")[0] not in owned
            ]
    return found
