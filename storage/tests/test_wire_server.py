"""Server and client together on the simulated loop: queries, copies, errors, the end."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable

import pytest

import sim
from storage.errors import ProtocolError
from storage.tests.wire_world import World, wire_world
from storage.wire.client import ServerError
from storage.wire.server import ServerOptions


def run(story: Callable[[World], Awaitable[None]], options: ServerOptions | None = None) -> None:
    async def main() -> None:
        async with wire_world(options) as world:
            await story(world)

    sim.run(main)


def test_rows_settings_and_tags() -> None:
    async def story(world: World) -> None:
        client = await world.connect(settings={"tenant_id": "a b\\c"}, user="me")
        result = await client.query("words x 'y z'")
        assert [column.name for column in result.columns] == ["word"]
        assert result.rows == [("x",), ("y z",)]
        assert result.tag == "SELECT 2"
        assert (await client.query("quiet")).tag == "QUIET 7"
        assert (await client.query("settings")).rows == [("tenant_id", "a b\\c"), ("user", "me")]
        assert client.parameters["integer_datetimes"] == "on"
        assert client.parameters["standard_conforming_strings"] == "on"
        await client.close()

    run(story)


def test_a_query_string_runs_statement_by_statement_up_to_the_first_error() -> None:
    async def story(world: World) -> None:
        client = await world.connect()
        assert (await client.query("words a; words b c")).rows == [("b",), ("c",)]
        assert (await client.query("")).tag == ""
        with pytest.raises(ServerError, match="timeline 42"):
            await client.query("quiet; refuse; copyin")
        await client.close()

    run(story)


@pytest.mark.parametrize("extended", [False, True])
@pytest.mark.parametrize(
    ("command", "sqlstate", "message", "level"),
    [
        ("refuse", "42704", "timeline 42 does not exist", logging.INFO),
        ("nonsense", "22023", "unknown command 'nonsense'", logging.INFO),
        ("storage", "58030", "the bucket is away", logging.WARNING),
        ("bug", "XX000", "internal error: ValueError: outer: caused by: KeyError: 'inner'", 40),
        ("copyout 5 3", "XX000", "internal error: ValueError: page 7 is corrupt", logging.ERROR),
        ("forget", "XX000", "internal error: AssertionError: .* did not answer 'forget'", 40),
        ("echo 0 extra words", "XX000", "internal error: TypeError", logging.ERROR),
    ],
)  # fmt: skip
@pytest.mark.row("C1.client", worlds=("sim",))
def test_an_error_reaches_the_client_and_the_connection_lives_on(
    extended: bool,
    command: str,
    sqlstate: str,
    message: str,
    level: int,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """SYSTEM.md D2 and C1."""
    caplog.set_level(logging.INFO)

    async def story(world: World) -> None:
        client = await world.connect()
        run_it = client.execute if extended else client.query
        with pytest.raises(ServerError, match=message) as caught:
            await run_it(command)
        assert caught.value.sqlstate == sqlstate
        assert (await run_it("words alive")).rows == [("alive",)]
        await client.close()

    run(story)
    (record,) = [each for each in caplog.records if "[sk0-1]" in each.getMessage()]
    assert record.levelno == level
    assert (record.exc_info is None) is (level == logging.INFO)


@pytest.mark.row("C1.log", worlds=("sim",))
def test_the_log_shows_every_cause_with_its_backtrace(caplog: pytest.LogCaptureFixture) -> None:
    async def story(world: World) -> None:
        client = await world.connect()
        with pytest.raises(ServerError) as caught:
            await client.query("bug")
        assert caught.value.detail == "trace id sk0-1"
        await client.close()

    run(story)
    assert caplog.text.count("Traceback (most recent call last)") == 2
    assert "KeyError: 'inner'" in caplog.text
    assert "in do_bug" in caplog.text


def test_extended_protocol_binds_values_and_describes() -> None:
    async def story(world: World) -> None:
        client = await world.connect()
        result = await client.execute("words $2 $1 '$1'", ["it's", "b c"])
        assert result.rows == [("b c",), ("it's",), ("$1",)]
        assert (await client.execute("quiet")).tag == "QUIET 7"
        with pytest.raises(
            ServerError, match="supplies 1 parameters, but the statement requires 2"
        ):
            await client.execute("words $1 $2", ["a"])
        with pytest.raises(ServerError, match="cannot insert multiple commands"):
            await client.execute("quiet; quiet")
        await client.close()

    run(story)


def test_transaction_blocks_and_settings_of_stock_clients() -> None:
    async def story(world: World) -> None:
        client = await world.connect()
        for sql, tag in (
            ("BEGIN", "BEGIN"), ("quiet", "QUIET 7"), ("commit", "COMMIT"),
            ("set datestyle to 'ISO'", "SET"), ("SET client_encoding = 'utf-8'", "SET"),
            ("DISCARD ALL", "DISCARD"), ("ROLLBACK", "ROLLBACK"),
        ):  # fmt: skip
            assert (await client.query(sql)).tag == tag
        assert (await client.query("SHOW data_directory_mode")).rows == [("0700",)]
        assert (await client.query("SHOW server_version")).rows == [("15.0",)]
        with pytest.raises(ServerError, match="unknown command 'SHOW'"):
            await client.query("SHOW wal_segment_size")
        with pytest.raises(ServerError, match="use UTF8"):
            await client.query("SET client_encoding TO 'LATIN1'")
        await client.query("BEGIN")
        with pytest.raises(ServerError):
            await client.query("refuse")
        with pytest.raises(ServerError) as caught:
            await client.query("quiet")
        assert caught.value.sqlstate == "25P02"
        assert (await client.query("COMMIT")).tag == "ROLLBACK"
        assert (await client.query("quiet")).tag == "QUIET 7"
        await client.close()

    run(story)


def test_client_refuses_two_commands_at_once_and_closes_on_timeout() -> None:
    async def story(world: World) -> None:
        client = await world.connect(timeout_s=2.0)
        waiting = asyncio.ensure_future(client.query("wait"))
        await world.commands.running.wait()
        with pytest.raises(ProtocolError, match="another command"):
            await client.query("quiet")
        assert not waiting.done()
        with pytest.raises(TimeoutError):
            await waiting
        with pytest.raises(ConnectionError):
            await client.query("quiet")

    run(story)


def test_a_violation_that_a_handler_finds_ends_the_session() -> None:
    async def story(world: World) -> None:
        client = await world.connect()
        with pytest.raises(ServerError, match="no consensus message") as caught:
            await client.query("violate")
        assert (caught.value.severity, caught.value.sqlstate) == ("FATAL", "08P01")
        with pytest.raises(ConnectionError):
            await client.query("quiet")
        await asyncio.sleep(1)
        assert world.server.sessions == 0

    run(story)


def test_nobody_listens() -> None:
    async def story(world: World) -> None:
        world.port += 1
        with pytest.raises(ConnectionError):
            await world.connect()

    run(story)
