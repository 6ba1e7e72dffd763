"""Stock PostgreSQL programs talk to our nodes: psql, psycopg2, pg_waldump, pg_receivewal, pgbench.

Each story runs on a whole real cluster; the programs come from the PostgreSQL found on the machine.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import psycopg2
import pytest

from harness.cluster import Cluster
from harness.endpoint_handle import EndpointHandle
from harness.errors import NotYet
from harness.nodes import COMPUTE_LIBPQ_PORT, PAGESERVER_LIBPQ_PORT, SAFEKEEPER_LIBPQ_PORT
from harness.topology import MIB, Topology
from harness.walgen import timeline_spec
from harness.world import World
from real.backend import RealBackend
from real.postgres import binaries
from real.postgres.pgbench import Pgbench, check_sums
from storage.lsn import Lsn

ROWS = 1600


async def program(name: str, *words: str, within_s: float = 60.0, **how: Any) -> str:
    """Run one of PostgreSQL's programs; returns its output, fails with its complaint."""
    path = binaries.find().program(name)
    process = await asyncio.create_subprocess_exec(
        path, *words, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT, **how
    )
    try:
        async with asyncio.timeout(within_s):
            output, _ = await process.communicate()
    finally:
        with contextlib.suppress(ProcessLookupError):
            process.kill()
    assert process.returncode == 0, f"{name} {words}: {output.decode()}"
    return output.decode()


def conninfo(cluster: Cluster, node: str, port: int, **more: str) -> str:
    """A libpq connection string to a node."""
    host, actual = cluster.world.backend.host_port(node, port)
    pairs = {"host": host, "port": str(actual), "user": "seawall", "dbname": "seawall", **more}
    return " ".join(f"{name}='{value}'" for name, value in pairs.items())


async def walgen_with_rows(world: World) -> tuple[Cluster, EndpointHandle]:
    """A walgen timeline of more than one segment."""
    cluster = await world.start(Topology(wal_segment_size=MIB))
    endpoint = await cluster.endpoint("main")
    await write_rows(endpoint)
    return cluster, endpoint


async def write_rows(endpoint: EndpointHandle) -> None:
    """Each row once in a transaction of twenty, once alone."""
    for first in range(0, ROWS, 20):
        await endpoint.txn({key: f"{key} " * 40 for key in range(first, first + 20)})
        for key in range(first, first + 20):
            await endpoint.put(key, f"{key} " * 40)


async def end_known_to(cluster: Cluster, index: int, endpoint: EndpointHandle) -> Lsn:
    """Where acknowledged WAL ends, once a safekeeper knows that it is committed."""
    acknowledged = cluster.world.history.acknowledged_lsn(str(endpoint.timeline))

    async def known() -> None:
        found = (await cluster.safekeeper(index).timeline(endpoint.timeline)).commit_lsn
        if found < acknowledged:
            raise NotYet(f"it knows {found} of {acknowledged}")

    await cluster.world.eventually(known, what=f"safekeeper {index} learns of the last commit")
    return acknowledged


def segments_of(cluster: Cluster, node: str, endpoint: EndpointHandle) -> list[Path]:
    """The WAL segment files of a timeline on a safekeeper's disk, in order."""
    backend = cluster.world.backend
    assert isinstance(backend, RealBackend)
    names = (
        path
        for path in (backend.directory / node / "disk").rglob("*")
        if len(path.name) == 24 and str(endpoint.timeline.timeline_id) in str(path)
    )
    return sorted(names)


def timeline_options(endpoint: EndpointHandle) -> str:
    """How a stock client names a timeline to a safekeeper."""
    tenant, timeline = endpoint.timeline
    return f"-c tenant_id={tenant} -c timeline_id={timeline}"


@contextlib.asynccontextmanager
async def hot_standby(
    cluster: Cluster, primary: str, upstream: str
) -> AsyncIterator[Callable[[str], Awaitable[list[tuple[Any, ...]]]]]:
    """A stock standby: ``pg_basebackup`` of an endpoint, then WAL from ``upstream`` (conninfo).

    Yields a function that runs SQL on it.
    """
    backend = cluster.world.backend
    assert isinstance(backend, RealBackend)
    directory = backend.short_directory / "standby"
    data = directory / "data"
    user = binaries.server_user()
    directory.mkdir(mode=0o755)
    if user is not None:
        os.chown(directory, user.pw_uid, user.pw_gid)
    host, port = backend.host_port(primary, COMPUTE_LIBPQ_PORT)
    source = f"host={host} port={port} user=postgres"
    await program(
        "pg_basebackup", "-D", str(data), "-d", source, "-X", "fetch", "-c", "fast", "--no-sync",
        **binaries.as_user(),
    )  # fmt: skip
    (data / "standby.signal").touch()
    quoted = upstream.replace("'", "''")
    settings = {
        "primary_conninfo": quoted, "unix_socket_directories": str(directory),
        "synchronous_standby_names": "", "wal_retrieve_retry_interval": "200ms",
    }  # fmt: skip
    with (data / "postgresql.conf").open("a") as file:
        file.writelines(f"{name} = '{value}'\n" for name, value in settings.items())
    log = (directory / "log").open("wb")
    server = await asyncio.create_subprocess_exec(
        binaries.find().program("postgres"), "-D", str(data),
        stdout=log, stderr=log, **binaries.as_user(),
    )  # fmt: skip

    def query(statement: str) -> list[tuple[Any, ...]]:
        connection = psycopg2.connect(host=str(directory), user="postgres", dbname="postgres")
        try:
            with connection.cursor() as cursor:
                cursor.execute(statement)
                return list(cursor.fetchall())
        finally:
            connection.close()

    try:
        yield lambda statement: asyncio.to_thread(query, statement)
    finally:
        log.close()
        server.send_signal(signal.SIGINT)
        await server.wait()


async def ask_for_feedback(
    world: World, ask: Callable[[str], Awaitable[list[tuple[Any, ...]]]]
) -> None:
    """Switch ``hot_standby_feedback`` on while the standby runs."""
    assert isinstance(world.backend, RealBackend)
    settings = world.backend.short_directory / "standby" / "data" / "postgresql.conf"
    with settings.open("a") as file:
        file.write("hot_standby_feedback = on\nwal_receiver_status_interval = 1s\n")
    assert await ask("select pg_reload_conf()") == [(True,)]


@pytest.mark.row("P2.commands", worlds=("real",))
def test_psql_asks_a_safekeeper_who_and_how_far_it_is(run_in):
    async def story(world: World) -> None:
        cluster, endpoint = await walgen_with_rows(world)
        await end_known_to(cluster, 0, endpoint)
        spec = timeline_spec(cluster, endpoint.timeline)
        known = await cluster.safekeeper(0).timeline(endpoint.timeline)
        options = timeline_options(endpoint)
        where = conninfo(cluster, "sk0", SAFEKEEPER_LIBPQ_PORT, options=options)
        walsender = conninfo(
            cluster, "sk0", SAFEKEEPER_LIBPQ_PORT, options=options, replication="true"
        )

        identity = f"{spec.system_id}|1|{known.commit_lsn}|"
        for each in (where, walsender):
            assert (await program("psql", each, "-Atc", "IDENTIFY_SYSTEM")).strip() == identity
            status = await program("psql", each, "-Atc", "TIMELINE_STATUS")
            rows = dict(line.split("|", 1) for line in status.splitlines())
            assert rows["flush_lsn"] == str(known.flush_lsn)
            assert rows["term"] == str(known.term)
        bare = conninfo(cluster, "sk0", SAFEKEEPER_LIBPQ_PORT)
        with pytest.raises(AssertionError, match=r"connect with options='-c tenant_id="):
            await program("psql", bare, "-Atc", "TIMELINE_STATUS")
        with pytest.raises(AssertionError, match=r"ERROR: .*DROP TABLE"):
            await program("psql", where, "-Atc", "DROP TABLE t")

    run_in("real", story)


@pytest.mark.row("P2.standby", "P2.commands", "D5.standby_holds", worlds=("real",))
def test_stock_hot_standby_follows_a_safekeeper_across_its_restart(run_in):
    """It must see every commit, and nothing that no quorum has."""

    async def story(world: World) -> None:
        cluster = await world.start(Topology())
        endpoint = await cluster.endpoint("main")
        await endpoint.sql("create table t (n int primary key)")
        await endpoint.sql("insert into t select generate_series(1, 1000)")
        upstream = conninfo(
            cluster, "sk1", SAFEKEEPER_LIBPQ_PORT, options=timeline_options(endpoint)
        )

        async with hot_standby(cluster, "main", upstream) as ask:

            async def has(count: int) -> None:
                try:
                    (found,) = await ask("select count(*) from t")
                except psycopg2.OperationalError as error:
                    raise NotYet(str(error)) from error
                if found != (count,):
                    raise NotYet(f"it has {found[0]} of {count} rows")

            await endpoint.sql("insert into t select generate_series(1001, 2000)")
            await world.eventually(lambda: has(2000), what="the standby follows")
            (streaming,) = await ask("select status, sender_port from pg_stat_wal_receiver")
            _, port = world.backend.host_port("sk1", SAFEKEEPER_LIBPQ_PORT)
            assert streaming == ("streaming", port)

            async def horizon() -> Lsn:
                shown = await cluster.pageserver(0).timeline(endpoint.timeline)
                if shown.standby_horizon_lsn is None:
                    raise NotYet("the pageserver knows of no standby")
                return shown.standby_horizon_lsn

            with pytest.raises(NotYet):
                await horizon()
            await ask_for_feedback(world, ask)
            held = await world.eventually(horizon, what="its feedback reaches the pageserver")
            ((replayed,),) = await ask("select pg_last_wal_replay_lsn()")
            assert held <= Lsn.parse(replayed)

            await cluster.safekeeper(1).stop()
            await endpoint.sql("insert into t select generate_series(2001, 3000)")
            assert await ask("select count(*) from t") == [(2000,)], "it has one source of WAL"
            await cluster.safekeeper(1).start()
            await world.eventually(lambda: has(3000), what="the standby follows again")
            await endpoint.sql("insert into t select generate_series(3001, 3500)")
            await world.eventually(lambda: has(3500), what="the standby goes on")
            await endpoint.put(1, "in the history")

            async def has_put() -> None:
                if await ask("select value from kv") != [("in the history",)]:
                    raise NotYet("not replayed")

            await world.eventually(has_put)
            assert await ask("select pg_is_in_recovery()") == [(True,)]

    run_in("real", story, "postgres")


@pytest.mark.row("P3.stock", worlds=("real",))
def test_psql_and_psycopg2_talk_to_a_pageserver(run_in):
    async def story(world: World) -> None:
        cluster, endpoint = await walgen_with_rows(world)
        end = await cluster.caught_up(cluster.pageserver(0), endpoint.timeline)
        where = conninfo(cluster, "ps0", PAGESERVER_LIBPQ_PORT)
        tenant, timeline = endpoint.timeline
        command = f"get_page {tenant} {timeline} 1663 16384 16385 0 0 {end}"

        shown = await program("psql", where, "-At", "-c", command)
        unknown = f"get_page {'0' * 32} {timeline} 1663 16384 16385 0 0 {end}"

        def by_psycopg2() -> tuple[str, str]:
            connection = psycopg2.connect(where)
            try:
                connection.autocommit = True
                with connection.cursor() as cursor:
                    cursor.execute(command)
                    page = cursor.fetchone()[1]
                    with pytest.raises(psycopg2.Error) as refused:
                        cursor.execute(unknown)
                    cursor.execute(command)
                    assert cursor.fetchone()[1] == page
                    return page, refused.value.pgcode
            finally:
                connection.close()

        page, sqlstate = await asyncio.to_thread(by_psycopg2)
        assert len(bytes(page)) == 8192
        assert shown.strip() == f"{end}|\\x" + bytes(page).hex()
        assert sqlstate == "42704"

    run_in("real", story)


def test_pg_waldump_reads_walgen_segments(run_in):
    async def story(world: World) -> None:
        cluster, endpoint = await walgen_with_rows(world)
        start = timeline_spec(cluster, endpoint.timeline).start_lsn
        end = await end_known_to(cluster, 0, endpoint)
        segments = segments_of(cluster, "sk0", endpoint)
        assert len(segments) >= 2
        last = next(path for path in segments if int(path.name[16:], 16) == end // MIB)

        shown = await program(
            "pg_waldump", "-s", str(start), "-e", str(end), str(segments[0]), last.name
        )

        records = [line for line in shown.splitlines() if line.startswith("rmgr: ")]
        assert len(records) == ROWS // 20 + ROWS
        assert all("custom203" in line for line in records)
        assert "error" not in shown

    run_in("real", story)


@pytest.mark.row("P2.receivewal", worlds=("real",))
def test_pg_receivewal_files_equal_the_safekeepers(run_in, tmp_path):
    async def story(world: World) -> None:
        cluster = await world.start(Topology(wal_segment_size=MIB))
        endpoint = await cluster.endpoint("main")
        tenant, timeline = endpoint.timeline
        where = conninfo(
            cluster,
            "sk0",
            SAFEKEEPER_LIBPQ_PORT,
            options=f"-c tenant_id={tenant} -c timeline_id={timeline}",
        )

        words = ["-D", str(tmp_path), "-d", where, "--no-loop"]

        first = await endpoint.put(1, "received in a first run")
        await program("pg_receivewal", *words, f"--endpos={Lsn(first - 1)}")
        await write_rows(endpoint)
        end = await end_known_to(cluster, 0, endpoint)
        await program("pg_receivewal", *words, f"--endpos={Lsn(end - 1)}")

        received = {path.name.removesuffix(".partial"): path for path in tmp_path.iterdir()}
        kept = {path.name: path for path in segments_of(cluster, "sk0", endpoint)}
        assert received
        start = timeline_spec(cluster, endpoint.timeline).start_lsn
        compared = 0
        for name, path in sorted(received.items()):
            base = int(name[16:], 16) * MIB
            low, high = max(start, base), min(end, base + MIB)
            ours, theirs = kept[name].read_bytes(), path.read_bytes()
            assert theirs[low - base : high - base] == ours[low - base : high - base]
            compared += high - low
        assert compared == end - start
        assert len(received) >= 2

    run_in("real", story)


def test_pgbench_survives_migration_with_its_sums_right(run_in):
    async def story(world: World) -> None:
        cluster = await world.start(Topology(pageservers=2))
        endpoint = await cluster.endpoint("main")
        await endpoint.put(1, "before")
        pgbench = Pgbench(binaries.find(), world.backend.host_port("main", COMPUTE_LIBPQ_PORT))
        await pgbench.initialise(scale=2)
        old, new = cluster.pageservers

        bench = asyncio.create_task(pgbench.run(seconds=8, clients=4))
        await new.attach(endpoint.timeline.tenant_id)
        await cluster.caught_up(new, endpoint.timeline)
        await endpoint.move(new)
        await old.detach(endpoint.timeline.tenant_id)
        await old.stop()
        done = (await bench).transactions

        assert done > 50
        assert await check_sums(endpoint, done) == done
        await endpoint.restart()
        assert await check_sums(endpoint, done) == done
        assert await endpoint.get(1) == "before"

    run_in("real", story, "postgres")
