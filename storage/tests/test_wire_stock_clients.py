"""Stock clients against our server over real sockets: psql, psycopg2, pg_receivewal, pgbench."""

from __future__ import annotations

import asyncio
import io
import logging
import shutil
import signal
import subprocess
import tarfile
from collections.abc import Coroutine, Iterator
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psycopg2
import psycopg2.extras
import pytest

from storage.lsn import Lsn
from storage.tests.postgres_server import installations
from storage.tests.threaded_server import in_thread
from storage.tests.wire_world import Commands, World, wire_world
from storage.wire.copying import CopyStream
from storage.wire.messages import Column, TypeOid
from storage.wire.replication import (
    StandbyStatus,
    answer_identify_system,
    complete_streaming,
    keepalive,
    parse_from_standby,
    xlog_data_header,
)
from storage.wire.server import ServerOptions
from storage.wire.session import Session

SEGMENT_BYTES = 1 << 20
WAL = (bytes(range(251)) * (4 * SEGMENT_BYTES // 251 + 1))[: 4 * SEGMENT_BYTES]


def _archive() -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.USTAR_FORMAT) as archive:
        for name, content in (("PG_VERSION", b"15\n"), ("global.data", bytes(20_000))):
            entry = tarfile.TarInfo(name)
            entry.size = len(content)
            archive.addfile(entry, io.BytesIO(content))
    return buffer.getvalue()


ARCHIVE = _archive()
PSQL = sorted({str(i.binaries / "psql") for i in installations().values()})


@dataclass
class WalServer(Commands):
    """The commands, and enough of a walsender for pg_receivewal and psycopg2."""

    all_flushed: asyncio.Event = field(default_factory=asyncio.Event)

    async def __call__(self, session: Session, sql: str) -> None:
        words = sql.split()
        match words[0].upper():
            case "IDENTIFY_SYSTEM":
                await answer_identify_system(
                    session, system_id=77, timeline=1, flush_lsn=Lsn(len(WAL))
                )
            case "SHOW" if words[1] == "wal_segment_size":
                await session.rows(["wal_segment_size"], [("1MB",)], "SHOW")
            case "START_REPLICATION":
                start = next(Lsn.parse(word) for word in words if "/" in word)
                await self._stream(session, start)
            case "BASE_BACKUP":
                await self._backup(session)
            case _:
                await super().__call__(session, sql)

    async def _backup(self, session: Session) -> None:
        """One archive, in the form that PostgreSQL 15 introduced."""
        begin = [Column("recptr"), Column("tli", TypeOid.INT8)]
        await session.rows(begin, [("0/100000", 1)], "SELECT")
        spaces = [Column("spcoid", TypeOid.INT8), "spclocation", Column("size", TypeOid.INT8)]
        await session.rows(spaces, [(None, None, 1)], "SELECT")
        out = await session.copy_out()
        await out.send(b"nbase.tar\0\0")
        for position in range(0, len(ARCHIVE), 3000):
            await out.send(b"d", ARCHIVE[position : position + 3000])
        await out.done(None)
        await session.rows(begin, [("0/200000", 1)], "SELECT")
        await session.complete("BASE_BACKUP")

    async def _stream(self, session: Session, start: Lsn) -> None:
        stream = await session.copy_both()
        sender = asyncio.ensure_future(self._send(stream, start))
        while (data := await stream.receive()) is not None:
            status = parse_from_standby(data)
            if isinstance(status, StandbyStatus) and status.flush_lsn == len(WAL):
                self.all_flushed.set()
        await sender
        await stream.done()
        await complete_streaming(session)

    async def _send(self, stream: CopyStream, start: Lsn) -> None:
        for position in range(start, len(WAL), 10_000):
            data = WAL[position : min(position + 10_000, len(WAL))]
            await stream.send(xlog_data_header(position, len(WAL), 1), data)
        await stream.send(keepalive(len(WAL), 1, reply_requested=True))


def describe(command: str) -> list[str | Column] | None:
    return ["word"] if command.startswith("words") else None


def world_on_loopback() -> AbstractAsyncContextManager[World]:
    return wire_world(
        ServerOptions(describe=describe), host="127.0.0.1", port=0, commands=WalServer()
    )


@pytest.fixture
def world() -> Iterator[World]:
    with in_thread(world_on_loopback) as running:
        yield running


def in_server(world: World, work: Coroutine[Any, Any, object]) -> None:
    """Run a coroutine in the server's loop and wait for it."""
    asyncio.run_coroutine_threadsafe(work, world.loop).result(20)


def psql(binary: str, world: World, *arguments: str, stdin: str = "") -> tuple[int, str, str]:
    done = subprocess.run(
        [binary, "-X", "-h", world.host, "-p", str(world.port), "-U", "me", "-d", "db", *arguments],
        input=stdin, capture_output=True, text=True, timeout=30, check=False,
    )  # fmt: skip
    return done.returncode, done.stdout, done.stderr


@pytest.mark.parametrize("binary", PSQL)
def test_psql_queries_errors_notices_and_copies(binary: str, world: World) -> None:
    script = r"""
words a 'b c';
refuse;
notice;
words one \; words two
;
copyout 2;
copyout 3 1;
words alive;
"""
    code, output, errors = psql(binary, world, "-A", "-t", stdin=script)
    assert code == 0
    assert output.startswith("a\nb c\nNOTICE\none\ntwo\n000xxx")
    assert output.endswith("xxxalive\n")
    assert output.count("x" * 997) == 3
    assert "ERROR:  timeline 42 does not exist" in errors
    assert "NOTICE:  by the way" in errors
    assert "ERROR:  internal error: ValueError: page 7 is corrupt\nDETAIL:  trace id sk0-" in errors


def test_psql_stops_at_an_error_with_its_sqlstate(world: World) -> None:
    arguments = ["-v", "ON_ERROR_STOP=1", "-v", "VERBOSITY=verbose", "-c", "refuse"]
    code, _output, errors = psql(PSQL[0], world, *arguments)
    assert code == 1
    assert "ERROR:  42704: timeline 42 does not exist" in errors


def test_psql_uploads(world: World, tmp_path: Path) -> None:
    source = tmp_path / "upload"
    source.write_bytes(b"line\n" * 50_000)
    # A COPY … FROM STDIN is what psql feeds from its own \copy; any command may ask for data.
    code, output, errors = psql(PSQL[0], world, "-c", "copyin", stdin=source.read_text())
    assert (code, errors) == (0, "")
    assert output.startswith("COPY ")
    assert world.commands.uploads == [source.read_bytes()]


def test_psql_gets_options_through_its_connection_string(world: World) -> None:
    where = f"host={world.host} port={world.port} user=me dbname=db sslmode=prefer"
    dsn = where + r" options='-c tenant_id=abc --timeline-id=x\ y'"
    done = subprocess.run(
        [PSQL[0], "-X", "-A", "-t", dsn.replace("\\", "\\\\"), "-c", "settings"],
        capture_output=True, text=True, timeout=30, check=True,
    )  # fmt: skip
    assert done.stdout.splitlines() == ["tenant_id|abc", "timeline_id|x y", "user|me"]


def connect(world: World, **options: Any) -> Any:
    return psycopg2.connect(host=world.host, port=world.port, user="me", dbname="db", **options)


def test_psycopg2_types_transactions_and_errors(world: World) -> None:
    connection = connect(world)
    cursor = connection.cursor()
    cursor.execute("typed")
    assert [each.name for each in cursor.description] == [
        "int4", "int8", "bool", "bytea", "text", "null",
    ]  # fmt: skip
    (row,) = cursor.fetchall()
    assert (row[0], row[1], row[2], bytes(row[3]), row[4], row[5]) == (
        -1, 1 << 40, True, b"\0\xff", "ä", None,
    )  # fmt: skip
    connection.commit()
    with pytest.raises(psycopg2.errors.UndefinedObject, match="timeline 42 does not exist"):
        cursor.execute("refuse")
    with pytest.raises(psycopg2.errors.InFailedSqlTransaction):
        cursor.execute("quiet")
    connection.rollback()
    assert "nothing was rolled back" in connection.notices[-1]
    with pytest.raises(psycopg2.errors.InternalError_, match="ValueError: outer"):
        cursor.execute("bug")
    connection.rollback()
    cursor.execute("words %s %s", ("it's", "b c"))
    assert cursor.fetchall() == [("it's",), ("b c",)]
    connection.close()


@pytest.mark.row("D2.simple", worlds=("real",))
def test_psycopg2_copies_both_ways_and_sees_an_error_half_way(world: World, tmp_path: Path) -> None:
    connection = connect(world)
    connection.autocommit = True
    cursor = connection.cursor()
    target = tmp_path / "download"
    with target.open("wb") as file:
        cursor.copy_expert("copyout 100", file)
    assert target.stat().st_size == 100_000
    with target.open("rb") as file:
        cursor.copy_expert("copyin", file)
    assert world.commands.uploads == [target.read_bytes()]
    with target.open("wb") as file, pytest.raises(psycopg2.Error, match="page 7 is corrupt"):
        cursor.copy_expert("copyout 100 50", file)
    with target.open("rb") as file, pytest.raises(psycopg2.Error, match="that is no tar"):
        cursor.copy_expert("copyin 0", file)
    cursor.execute("words alive")
    assert cursor.fetchall() == [("alive",)]
    connection.close()


def test_psql_cancels_at_an_interrupt(world: World) -> None:
    process = subprocess.Popen(
        [PSQL[0], "-X", "-h", world.host, "-p", str(world.port), "-U", "me", "-d", "db",
         "-c", "wait"],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    in_server(world, world.commands.running.wait())
    process.send_signal(signal.SIGINT)
    _output, errors = process.communicate(timeout=20)
    assert errors.count("ERROR:  canceling statement due to user request") == 1
    assert process.returncode == 1


def test_psycopg2_physical_replication_connection(world: World) -> None:
    connection = connect(world, connection_factory=psycopg2.extras.PhysicalReplicationConnection)
    cursor = connection.cursor()
    cursor.execute("IDENTIFY_SYSTEM")
    assert cursor.fetchone() == ("77", 1, "0/400000", None)
    cursor.start_replication(start_lsn="0/300000", decode=False)
    received = b""
    while len(received) < SEGMENT_BYTES:
        message = cursor.read_message()
        if message is not None:
            assert message.data_start == 0x300000 + len(received)
            received += message.payload
            end = message.data_start + len(message.payload)
            cursor.send_feedback(write_lsn=end, flush_lsn=end, force=True)
    assert received == WAL[0x300000:]
    assert isinstance(world.commands, WalServer)
    in_server(world, world.commands.all_flushed.wait())
    connection.close()


def test_psycopg2_logical_replication_connection(world: World) -> None:
    connection = connect(world, connection_factory=psycopg2.extras.LogicalReplicationConnection)
    cursor = connection.cursor()
    cursor.execute("IDENTIFY_SYSTEM")
    assert cursor.fetchone()[0] == "77"
    cursor.execute("SHOW data_directory_mode")
    assert cursor.fetchone() == ("0700",)
    connection.close()


@pytest.mark.skipif(shutil.which("pg_receivewal") is None, reason="needs pg_receivewal")
def test_pg_receivewal_writes_what_we_sent(world: World, tmp_path: Path) -> None:
    # It goes on after the newest whole segment that it finds.
    names = [f"0000000100000000{segment:08X}" for segment in (1, 2, 3)]
    (tmp_path / names[0]).write_bytes(WAL[SEGMENT_BYTES : 2 * SEGMENT_BYTES])
    subprocess.run(
        ["pg_receivewal", "-h", world.host, "-p", str(world.port), "-U", "me", "-D", str(tmp_path),
         "--no-loop", "--endpos=0/3FFFFF", "--no-sync"],
        capture_output=True, text=True, timeout=30, check=True,
    )  # fmt: skip
    files = {path.name: path.read_bytes() for path in sorted(tmp_path.iterdir())}
    assert files == {
        name: WAL[number * SEGMENT_BYTES : (number + 1) * SEGMENT_BYTES]
        for number, name in enumerate(names, start=1)
    }


@pytest.mark.skipif(shutil.which("pg_basebackup") is None, reason="needs pg_basebackup")
def test_pg_basebackup_unpacks_what_we_sent(world: World, tmp_path: Path) -> None:
    target = tmp_path / "data"
    done = subprocess.run(
        ["pg_basebackup", "-h", world.host, "-p", str(world.port), "-U", "me", "-D", str(target),
         "-X", "none", "--no-manifest", "--no-sync"],
        capture_output=True, text=True, timeout=30, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert (target / "PG_VERSION").read_bytes() == b"15\n"
    assert (target / "global.data").read_bytes() == bytes(20_000)


@pytest.mark.parametrize("protocol", ["simple", "extended", "prepared"])
@pytest.mark.skipif(shutil.which("pgbench") is None, reason="needs pgbench")
def test_pgbench_drives_every_protocol(world: World, tmp_path: Path, protocol: str) -> None:
    script = tmp_path / "script.sql"
    script.write_text("\\set k random(1, 9)\nwords :k \\gset\nquiet\n")
    done = subprocess.run(
        ["pgbench", "-n", "-M", protocol, "-h", world.host, "-p", str(world.port), "-U", "me",
         "-f", str(script), "-t", "50", "-c", "2", "db"],
        capture_output=True, text=True, timeout=30, check=False,
    )  # fmt: skip
    assert "number of transactions actually processed: 100/100" in done.stdout, done.stderr


def test_server_log_names_no_unexpected_failure(
    world: World, caplog: pytest.LogCaptureFixture
) -> None:
    for _ in range(20):
        connect(world).close()
    assert [record for record in caplog.records if record.levelno >= logging.WARNING] == []
