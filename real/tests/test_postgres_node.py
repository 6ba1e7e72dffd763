"""PostgreSQL as a node, against stand-ins for pageserver and sidecar."""

import asyncio
import os
from pathlib import Path

import psycopg2
import pytest

from harness.backend import HARNESS, NodeSpec
from harness.endpoint import OutcomeUnknown, Refused
from harness.errors import HarnessError, NodeDied
from harness.history import Kind
from harness.nodes import COMPUTE_HTTP_PORT, COMPUTE_LIBPQ_PORT
from real import process
from real.backend import RealBackend, RealOptions
from real.loop import NamedHostLoop
from real.postgres import binaries
from real.postgres.endpoint import PostgresEndpoint, statements_of
from real.postgres.server import log_level
from real.session import RealSession
from storage.http.client import call

OPTIONS = RealOptions(roles="real.tests.toy_postgres:ROLES", ports="real.tests.toy_roles:no_ports")
MAJORS = [found.major for found in binaries.find_all()]
MIB = 1024 * 1024


@pytest.fixture(scope="module")
def postgres_session():
    session = RealSession(["real.tests.toy_postgres", "real.postgres.node"], with_services=False)
    yield session
    session.close()


class Stage:
    """A PostgreSQL node `pg` with its stand-ins."""

    def __init__(self, backend, cache, major):
        self.backend = backend
        self.endpoint = PostgresEndpoint(backend, "pg", "pg-wp")
        self.directory = backend.short_directory / "pg.pg"
        self._stand_in = {"major": major, "wal_segment_size": MIB, "cache": str(cache)}
        self._server = {
            "tenant_id": "0" * 32,
            "timeline_id": "1" * 32,
            "pageserver": "ps0:6400",
            "safekeepers": ["sk0:5454"],
            "sidecar": "pg-wp",
            "wal_segment_size": MIB,
            "bin_directory": str(binaries.find(major).for_server_user(cache).directory),
            "directory": str(self.directory),
            "settings": {},
        }

    async def start(self, **changed):
        socket = self.directory / f".s.PGSQL.{COMPUTE_LIBPQ_PORT}"
        self.backend.assign("pg", COMPUTE_LIBPQ_PORT, socket)
        await self.backend.spawn(NodeSpec("ps0", "toy_pageserver", self._stand_in))
        await self.backend.spawn(NodeSpec("sk0", "toy_safekeeper", self._stand_in))
        await self.backend.spawn(NodeSpec("pg-wp", "toy_sidecar", self._stand_in))
        await self.restart(**changed)

    async def restart(self, **changed):
        await self.backend.spawn(NodeSpec("pg", "postgres", {**self._server, **changed}))
        await self.backend.wait_ready("pg", within_s=30)

    async def hold(self, hold):
        await call("PUT", "pg-wp", COMPUTE_HTTP_PORT, "/v1/hold", {"hold": hold})

    async def put(self, key, value):
        return await self.endpoint.run(Kind.PUT, (key, value))

    async def get(self, key):
        return (await self.endpoint.run(Kind.GET, (key,))).value


@pytest.fixture
def on_stage(postgres_session):
    def on_stage(story, major=MAJORS[0]):
        async def whole():
            backend = RealBackend(postgres_session, OPTIONS)
            stage = Stage(backend, backend.short_directory / "cache", major)
            try:
                async with asyncio.timeout(60):
                    await story(stage)
            finally:
                await stage.endpoint.disconnect()
                await backend.close()
            return backend

        with asyncio.Runner(loop_factory=NamedHostLoop) as runner:
            return runner.run(whole())

    return on_stage


async def ended(backend, name):
    async with asyncio.timeout(10):
        while backend.running(name):  # noqa: ASYNC110 - it is another process that ends
            await asyncio.sleep(0.01)


def complaints(backend):
    return [line for line in backend.logs() if line.level not in ("INFO", "DEBUG")]


@pytest.mark.parametrize("major", MAJORS)
def test_operations_and_a_clean_stop(on_stage, major):
    async def story(stage):
        await stage.start()
        await stage.put(1, "a")
        await stage.put(1, "b")
        await stage.endpoint.run(Kind.TXN, ({2: "20", 3: "30", 1: None},))
        assert await stage.get(1) is None
        assert await stage.get(2) == "20"
        scan = await stage.endpoint.run(Kind.SCAN, (0, 3))
        assert scan.value == [(2, "20")]
        assert (await stage.endpoint.run(Kind.SUM, ())).value == 50
        await stage.endpoint.run(Kind.DELETE, (3,))
        steps = (("read", 7), ("append", 7, "x"), ("append", 7, "y"), ("add", 8, -3), ("add", 8, 5))
        found = await stage.endpoint.run(Kind.TRANSACT, (steps,))
        assert found.value == [None, "x", "x,y", "-3", "2"]
        with pytest.raises(Refused) as refused:
            await stage.endpoint.run(Kind.TRANSACT, ((("append", 7, "z"), ("add", 7, 1)),))
        assert refused.value.sqlstate == "22P02"
        assert await stage.get(7) == "x,y"
        assert await stage.endpoint.sql("select 1, null, '5%'") == [("1", None, "5%")]
        assert (await stage.endpoint.status())["phase"] == "elected"
        await stage.endpoint.disconnect()
        await stage.backend.stop("pg", within_s=10)
        assert not stage.directory.exists()

    backend = on_stage(story, major)
    assert complaints(backend) == []
    assert any("ready at" in line.text for line in backend.logs())


def test_settings_that_storage_rests_on(on_stage):
    async def story(stage):
        await stage.start()
        names = {
            "wal_consistency_checking": "all",
            "full_page_writes": "on",
            "synchronous_commit": "on",
            "synchronous_standby_names": "walproposer",
            "wal_level": "replica",
            "restart_after_crash": "off",
            "listen_addresses": "",
            "data_checksums": "off",
        }
        for name, value in names.items():
            assert await stage.endpoint.sql(f"show {name}") == [(value,)], name
        slots = await stage.endpoint.sql(
            "select slot_name, slot_type, active, restart_lsn is not null from pg_replication_slots"
        )
        assert slots == [("walproposer", "physical", "True", "True")]

    on_stage(story)


def test_commit_waits_for_the_quorum_and_is_invisible_until_then(on_stage):
    async def story(stage):
        await stage.start()
        await stage.put(1, "a")
        await stage.hold(True)
        waiting = asyncio.ensure_future(stage.put(1, "b"))
        await asyncio.sleep(0.3)
        assert not waiting.done()
        assert await stage.get(1) == "a"
        await stage.hold(False)
        await waiting
        assert await stage.get(1) == "b"

    assert complaints(on_stage(story)) == []


def test_cancelled_wait_is_an_unknown_outcome_though_the_server_says_success(on_stage):
    async def story(stage):
        await stage.start()
        await stage.hold(True)
        waiting = asyncio.ensure_future(stage.put(1, "b"))
        cancel = "select pg_cancel_backend(pid) from pg_stat_activity where wait_event = 'SyncRep'"
        async with asyncio.timeout(5):
            while await stage.endpoint.sql(cancel) != [("True",)]:  # noqa: ASYNC110
                await asyncio.sleep(0.01)
        with pytest.raises(OutcomeUnknown, match="the quorum may lack it"):
            await waiting
        assert await stage.get(1) == "b", "visible although no quorum has it"

    on_stage(story)


def test_lost_connection_is_an_unknown_outcome_for_writes_and_none_for_reads(on_stage):
    async def story(stage):
        await stage.start()
        await stage.hold(True)
        waiting = asyncio.ensure_future(stage.put(1, "b"))
        await asyncio.sleep(0.1)
        stage.backend.network.reset(HARNESS, "pg")
        with pytest.raises(OutcomeUnknown):
            await waiting
        with pytest.raises(Refused):
            await stage.endpoint.run(Kind.GET, ("not a number",))
        await stage.hold(False)
        await stage.put(2, "later")

    on_stage(story)


def test_refused_statement_leaves_the_connection_usable(on_stage):
    async def story(stage):
        await stage.start()
        with pytest.raises(Refused, match="division by zero") as refusal:
            await stage.endpoint.sql("select 1/0")
        assert refusal.value.sqlstate == "22012"
        assert await stage.endpoint.sql("select 1") == [("1",)]

    backend = on_stage(story)
    assert complaints(backend) == [], "what a client did wrong is no failure of the server"


def test_crash_leaves_nothing_and_the_next_start_is_from_the_pageserver(on_stage):
    found = {}

    async def story(stage):
        await stage.start()
        await stage.put(1, "only in this directory")
        found["pids"] = process.tree(stage.backend.pid("pg"))
        assert len(found["pids"]) > 5
        await stage.backend.kill("pg")
        await stage.endpoint.disconnect()
        await stage.backend.stop("pg-wp", within_s=5)
        await stage.backend.spawn(NodeSpec("pg-wp", "toy_sidecar", stage._stand_in))
        await stage.restart()
        assert await stage.get(1) is None

    on_stage(story)
    assert not any(Path(f"/proc/{pid}").exists() for pid in found["pids"])
    segments = Path("/proc/sysvipc/shm").read_text().splitlines()[1:]
    assert [row for row in segments if int(row.split()[4]) in found["pids"]] == []


def test_pause_freezes_every_process_of_the_server(on_stage):
    async def story(stage):
        await stage.start()
        await stage.put(1, "a")
        await stage.backend.pause("pg")
        waiting = asyncio.ensure_future(stage.get(1))
        await asyncio.sleep(0.2)
        assert not waiting.done()
        await stage.backend.resume("pg")
        assert await waiting == "a"

    on_stage(story)


def test_backend_crash_ends_the_node(on_stage):
    async def story(stage):
        await stage.start()
        [(pid,)] = await stage.endpoint.sql("select pg_backend_pid()")
        os.kill(int(pid), 9)
        await ended(stage.backend, "pg")
        assert "PostgreSQL ended: by itself" in stage.backend.died("pg")

    on_stage(story)


@pytest.mark.parametrize(
    ("lose", "reason"),
    [("kill", "'pg-wp' is gone"), ("depose", "'pg-wp' was deposed: a newer compute rules")],
)
def test_server_whose_sidecar_cannot_lead_any_more_ends(on_stage, lose, reason):
    """It would answer reads from a past that others have gone on from."""

    async def story(stage):
        await stage.start()
        if lose == "kill":
            await stage.backend.kill("pg-wp")
        else:
            await call("PUT", "pg-wp", COMPUTE_HTTP_PORT, "/v1/phase", {"phase": "deposed"})
        await ended(stage.backend, "pg")
        assert reason in stage.backend.died("pg")
        with pytest.raises(Refused, match="cannot connect to pg"):
            await stage.get(1)

    on_stage(story)


def test_server_outlives_a_sidecar_that_is_frozen_for_a_while(on_stage):
    async def story(stage):
        await stage.start()
        await stage.backend.pause("pg-wp")
        waiting = asyncio.ensure_future(stage.put(1, "a"))
        await asyncio.sleep(1)
        assert not waiting.done()
        await stage.backend.resume("pg-wp")
        await waiting
        assert stage.backend.running("pg")

    on_stage(story)


def test_stock_client_gets_an_address(on_stage):
    async def story(stage):
        await stage.start()
        host, port = stage.backend.host_port("pg", COMPUTE_LIBPQ_PORT)

        def ask():
            connection = psycopg2.connect(host=host, port=port, user="postgres")
            with connection, connection.cursor() as cursor:
                cursor.execute("select current_user")
                answer = cursor.fetchall()
            connection.close()
            return answer

        assert await asyncio.to_thread(ask) == [("postgres",)]

    on_stage(story)


def test_wrong_setting_ends_the_start_with_its_name_in_the_log(on_stage):
    async def story(stage):
        with pytest.raises(NodeDied, match="PostgreSQL ended while starting"):
            await stage.start(settings={"no_such_setting": "1"})

    backend = on_stage(story)
    assert any("no_such_setting" in line.text for line in backend.logs())


def test_unknown_and_missing_options_are_named(on_stage):
    async def story(stage):
        await stage.backend.spawn(NodeSpec("pg", "postgres", {"sidecar": "x", "speed": 1}))
        with pytest.raises(NodeDied, match=r"unknown or missing: bin_directory, .*speed"):
            await stage.backend.wait_ready("pg", within_s=10)

    on_stage(story)


def test_transactions_with_steps_are_serializable(on_stage):
    """Each reads what the other appends to: whichever comes first, one of them must not commit."""

    async def story(stage):
        await stage.start()
        one = stage.endpoint.run(Kind.TRANSACT, ((("read", 1), ("append", 2, "a")),))
        other = stage.endpoint.run(Kind.TRANSACT, ((("read", 2), ("append", 1, "b")),))
        ends = await asyncio.gather(one, other, return_exceptions=True)
        seen = [end.value[0] for end in ends if not isinstance(end, Refused)]
        assert seen in ([None], [None, "a"], ["b", None]), ends

    on_stage(story)


def test_transaction_is_one_string_in_order_of_key():
    texts = [parameters[0] for _, parameters in statements_of(Kind.TXN, ({9: "a", 1: None},))]
    assert texts == [1, 9]


@pytest.mark.parametrize(
    ("severity", "sqlstate", "level"),
    [
        ("LOG", "00000", "INFO"),
        ("WARNING", "01000", "WARNING"),
        ("ERROR", "XX001", "ERROR"),
        ("ERROR", "42P01", "INFO"),
        ("ERROR", "40001", "INFO"),
        ("ERROR", "40003", "ERROR"),
        ("FATAL", "57P01", "INFO"),
        ("FATAL", "08006", "INFO"),
        ("FATAL", "53300", "ERROR"),
        ("PANIC", "XX000", "CRITICAL"),
    ],
)
def test_severity_becomes_a_level(severity, sqlstate, level):
    import logging

    assert logging.getLevelName(log_level(severity, sqlstate)) == level


def test_named_bin_directory_without_a_server_is_named(monkeypatch, tmp_path):
    monkeypatch.setenv("SEAWALL_PG_BIN", str(tmp_path))
    with pytest.raises(HarnessError, match=rf"SEAWALL_PG_BIN: {tmp_path} has no 'postgres'"):
        binaries.find()
