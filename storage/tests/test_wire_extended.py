"""The extended protocol message by message, as clients other than libpq use it."""

from __future__ import annotations

import asyncio
import struct
from collections.abc import Awaitable, Callable

import pytest

import sim
from storage.tests.wire_world import World, wire_world
from storage.wire import messages as m
from storage.wire.channel import Channel
from storage.wire.server import ServerOptions
from storage.wire.states import Phase, Sender

TAKES_WORDS = m.Column("word")
SYNCED = m.ReadyForQuery()


def describe(command: str) -> list[m.Column] | None:
    return [TAKES_WORDS] if command.startswith("words") else None


class Talk:
    """A client that sends what it is told and collects what comes back."""

    def __init__(self, channel: Channel) -> None:
        self.channel = channel

    async def say(self, *messages: m.Message) -> None:
        for message in messages:
            self.channel.send(message)
        self.channel.flush()

    async def hear(self, *, until: type = m.ReadyForQuery) -> list[m.Message]:
        heard = [await self.channel.receive()]
        while not isinstance(heard[-1], until):
            heard.append(await self.channel.receive())
        return heard

    async def ask(self, *messages: m.Message) -> list[m.Message]:
        await self.say(*messages)
        return await self.hear()


def run(story: Callable[[Talk, World], Awaitable[None]]) -> None:
    async def main() -> None:
        async with wire_world(ServerOptions(describe=describe)) as world:
            loop = asyncio.get_running_loop()
            _, channel = await loop.create_connection(
                lambda: Channel(Sender.CLIENT), world.host, world.port
            )
            talk = Talk(channel)
            await talk.ask(m.Startup({"user": "u"}))
            await story(talk, world)
            assert channel.connection.progress.phase is Phase.IDLE
            await talk.say(m.Terminate())
            await channel.close(within_s=1.0)

    sim.run(main)


def rows(*words: str) -> list[m.Message]:
    return [m.DataRow((word.encode(),)) for word in words]


def test_describe_of_a_portal_is_answered_before_its_rows() -> None:
    async def story(talk: Talk, _world: World) -> None:
        assert await talk.ask(
            m.Parse("", "words a"), m.Bind("", ""), m.Describe(m.Target.PORTAL, ""), m.Execute(""),
            m.Sync(),
        ) == [
            m.ParseComplete(), m.BindComplete(), m.RowDescription((TAKES_WORDS,)), *rows("a"),
            m.CommandComplete("SELECT 1"), SYNCED,
        ]  # fmt: skip

    run(story)


def test_a_portal_that_was_not_described_sends_rows_alone() -> None:
    async def story(talk: Talk, _world: World) -> None:
        heard = await talk.ask(m.Parse("", "words a"), m.Bind("", ""), m.Execute(""), m.Sync())
        assert heard[2:] == [*rows("a"), m.CommandComplete("SELECT 1"), SYNCED]

    run(story)


def test_statement_is_described_ahead_and_run_again_and_again() -> None:
    """As asyncpg and JDBC do: Parse and Describe first, Bind and Execute later and often."""

    async def story(talk: Talk, _world: World) -> None:
        prepare = (m.Parse("s", "words $2 $1"), m.Describe(m.Target.STATEMENT, "s"))
        assert await talk.ask(*prepare, m.Sync()) == [
            m.ParseComplete(), m.ParameterDescription((25, 25)), m.RowDescription((TAKES_WORDS,)),
            SYNCED,
        ]  # fmt: skip
        for first, second in (("x", "y"), ("it's", "a b")):
            values = (first.encode(), second.encode())
            heard = await talk.ask(m.Bind("", "s", values), m.Execute(""), m.Sync())
            assert heard[1:] == [*rows(second, first), m.CommandComplete("SELECT 2"), SYNCED]
        close = m.Close(m.Target.STATEMENT, "s")
        assert await talk.ask(close, close, m.Sync()) == [m.CloseComplete()] * 2 + [SYNCED]
        heard = await talk.ask(m.Bind("", "s"), m.Sync())
        assert isinstance(heard[0], m.ErrorResponse)
        assert heard[0].sqlstate == "26000"

    run(story)


def test_describe_without_execute_is_answered_too() -> None:
    async def story(talk: Talk, _world: World) -> None:
        portal = m.Describe(m.Target.PORTAL, "")
        for command, answer in (
            ("words a", m.RowDescription((TAKES_WORDS,))),
            ("quiet", m.NoData()),
        ):
            start = (m.Parse("", command), m.Bind("", ""), portal)
            assert (await talk.ask(*start, m.Sync()))[2:] == [answer, SYNCED]
            await talk.say(*start, m.Flush())
            assert (await talk.hear(until=type(answer)))[2:] == [answer]
            heard = await talk.ask(m.Execute(""), m.Sync())
            assert not any(isinstance(each, (m.RowDescription, m.NoData)) for each in heard)

    run(story)


def test_row_limit_suspends_the_portal() -> None:
    async def story(talk: Talk, world: World) -> None:
        start = (m.Parse("", "words a b c d e"), m.Bind("p", ""))
        execute = m.Execute("p", 2)
        assert (await talk.ask(*start, execute, execute, execute, m.Sync()))[2:] == [
            *rows("a", "b"), m.PortalSuspended(), *rows("c", "d"), m.PortalSuspended(),
            *rows("e"), m.CommandComplete("SELECT 5"), SYNCED,
        ]  # fmt: skip
        heard = await talk.ask(*start, m.Execute("p", 4), m.Execute("p"), m.Execute("p"), m.Sync())
        assert heard[6:9] == [m.PortalSuspended(), *rows("e"), m.CommandComplete("SELECT 5")]
        assert isinstance(heard[9], m.ErrorResponse)
        assert "run to completion" in heard[9].message
        exact = await talk.ask(*start, m.Execute("p", 5), m.Sync())
        assert exact[2:] == [*rows("a", "b", "c", "d", "e"), m.CommandComplete("SELECT 5"), SYNCED]

    run(story)


def test_portals_end_with_the_sync_except_in_a_transaction_block() -> None:
    async def story(talk: Talk, _world: World) -> None:
        start = (m.Parse("", "words a b c"), m.Bind("p", ""), m.Execute("p", 2), m.Sync())
        rest = (m.Execute("p", 2), m.Sync())
        assert m.PortalSuspended() in await talk.ask(*start)
        heard = await talk.ask(*rest)
        assert isinstance(heard[0], m.ErrorResponse)
        assert heard[0].message == "portal 'p' does not exist"
        in_block = m.ReadyForQuery(m.TransactionStatus.IN_BLOCK)
        assert (await talk.ask(m.Query("BEGIN")))[-1] == in_block
        assert m.PortalSuspended() in await talk.ask(*start)
        assert await talk.ask(*rest) == [*rows("c"), m.CommandComplete("SELECT 3"), in_block]
        assert (await talk.ask(m.Query("COMMIT")))[-1] == SYNCED

    run(story)


def test_an_error_skips_to_the_sync_and_runs_nothing_on_the_way() -> None:
    async def story(talk: Talk, world: World) -> None:
        upload = (m.Parse("", "copyin"), m.Bind("", ""), m.Execute(""))
        heard = await talk.ask(
            m.Parse("", "refuse"), m.Bind("", ""), m.Execute(""), *upload, m.Sync()
        )
        assert [type(each) for each in heard] == [
            m.ParseComplete, m.BindComplete, m.ErrorResponse, m.ReadyForQuery,
        ]  # fmt: skip
        assert (await talk.ask(m.Query("words alive")))[1:2] == rows("alive")

    run(story)


@pytest.mark.parametrize(
    ("messages", "sqlstate"),
    [
        ([m.Bind("", "nowhere")], "26000"),
        ([m.Execute("nowhere")], "26000"),
        ([m.Describe(m.Target.PORTAL, "nowhere")], "26000"),
        ([m.Describe(m.Target.STATEMENT, "nowhere")], "26000"),
        ([m.Parse("", "a; b")], "22023"),
        ([m.Parse("", "words $1"), m.Bind("", "", ())], "22023"),
        ([m.Parse("", "words $1"), m.Bind("", "", (b"\0",), (1,))], "0A000"),
    ],
)  # fmt: skip
def test_refusals_have_their_sqlstate(messages: list[m.Message], sqlstate: str) -> None:
    async def story(talk: Talk, _world: World) -> None:
        heard = await talk.ask(*messages, m.Sync())
        assert isinstance(heard[-2], m.ErrorResponse)
        assert heard[-2].sqlstate == sqlstate

    run(story)


def test_empty_statement() -> None:
    async def story(talk: Talk, _world: World) -> None:
        heard = await talk.ask(m.Parse("", " ; "), m.Bind("", ""), m.Execute(""), m.Sync())
        assert heard[2:] == [m.EmptyQuery(), SYNCED]

    run(story)


def test_binary_results() -> None:
    async def story(talk: Talk, _world: World) -> None:
        bind = m.Bind("", "", (), (), (1,))
        heard = await talk.ask(m.Parse("", "typed"), bind, m.Execute(""), m.Sync())
        assert heard[2] == m.DataRow(
            (
                struct.pack("!i", -1),
                struct.pack("!q", 1 << 40),
                b"\1",
                b"\0\xff",
                "ä".encode(),
                None,
            )
        )
        bind = m.Bind("", "", (), (), (0, 0, 0, 0, 0, 0))
        heard = await talk.ask(m.Parse("", "typed"), bind, m.Execute(""), m.Sync())
        assert heard[2] == m.DataRow(
            (b"-1", b"1099511627776", b"t", b"\\x00ff", "ä".encode(), None)
        )
        bind = m.Bind("", "", (), (), (0, 1))
        heard = await talk.ask(m.Parse("", "typed"), bind, m.Execute(""), m.Sync())
        assert isinstance(heard[2], m.ErrorResponse)
        assert heard[2].message == "2 result formats for 6 columns"

    run(story)


def test_copies_run_by_execute() -> None:
    async def story(talk: Talk, world: World) -> None:
        start = (m.Bind("", ""), m.Describe(m.Target.PORTAL, ""), m.Execute(""), m.Sync())
        heard = await talk.ask(m.Parse("", "copyout 2"), *start)
        assert heard[2:4] == [m.NoData(), m.CopyOutResponse()]
        assert [type(each) for each in heard[4:]] == [
            m.CopyData, m.CopyData, m.CopyDone, m.CommandComplete, m.ReadyForQuery,
        ]  # fmt: skip
        await talk.say(m.Parse("", "copyin"), *start[:-1], m.Flush())
        assert (await talk.hear(until=m.CopyInResponse))[2:] == [m.NoData(), m.CopyInResponse()]
        # The Sync that libpq sends right after Execute counts for nothing in a copy.
        await talk.say(m.Sync(), m.CopyData(b"x"), m.Flush(), m.CopyData(b"y"), m.CopyDone())
        assert await talk.ask(m.Sync()) == [m.CommandComplete("COPY 2"), SYNCED]
        assert world.commands.uploads == [b"xy"]

    run(story)


def test_function_calls_are_refused_politely() -> None:
    async def story(talk: Talk, _world: World) -> None:
        talk.channel.connection.progress.advance(Sender.CLIENT, m.FunctionCall)
        talk.channel._write(b"F\0\0\0\x0e" + bytes(10))
        heard = await talk.hear()
        assert isinstance(heard[0], m.ErrorResponse)
        assert heard[0].sqlstate == "0A000"

    run(story)
