"""Faults of clients: some cancel, some ask for much and never read the answers."""

from __future__ import annotations

import asyncio
import random

from harness.endpoint import OutcomeUnknown, Refused
from harness.faulting.fault import Cast, Fault, Scope, Strike, Undo, claim_nothing
from harness.faulting.stage import Stage
from harness.nodes import COMPUTE_LIBPQ_PORT
from storage.wire.encoding import encode
from storage.wire.frontend import Query, Startup
from storage.wire.startup import encode_startup

FIRST_KEY = 500
"""Keys that no other client uses."""
LONG_ANSWERS = {
    "walgen": ({"user": "deaf", "database": "kv"}, "scan 0 2000"),
    "postgres": ({"user": "postgres"}, "select repeat('x', 1000) from generate_series(1, 1000)"),
}
"""By kind of compute: how a client introduces itself, and what it asks."""
CUT_SHORT = (Refused, OutcomeUnknown, asyncio.CancelledError)
READ_AHEAD_BYTES = 1024
DEAF_POLL_S = 0.02
DEAF_POLLS_MAX = 50


def _draw_cancels(cast: Cast, generator: random.Random) -> Strike:
    patience_s = round(10 ** generator.uniform(-4, -1.5), 6)
    return Strike((), {"times": generator.randint(2, 20), "patience_s": patience_s})


def _draw_deaf(cast: Cast, generator: random.Random) -> Strike:
    return Strike((), {"times": generator.choice((10, 100, 1000))})


async def _cancel(stage: Stage, strike: Strike) -> None:
    """Writes whose client hangs up while it waits; their outcome is unknown."""
    client = stage.traffic.primary.named("hasty")
    for number in range(int(strike.number("times"))):
        stage.cancelled += 1
        write = asyncio.create_task(
            client.put(FIRST_KEY + number % 8, f"hasty:{stage.cancelled}"), name="hasty client"
        )
        try:
            await asyncio.wait([write], timeout=strike.number("patience_s"))
            stage.counts["compute.operations_cancelled"] += not write.done()
        finally:
            write.cancel()
            (outcome,) = await asyncio.gather(write, return_exceptions=True)
        if isinstance(outcome, BaseException) and not isinstance(outcome, CUT_SHORT):
            raise outcome


async def _never_read(stage: Stage, strike: Strike) -> Undo | None:
    """A client that sends queries without end and stops reading, until it hangs up."""
    name = stage.traffic.primary.name
    try:
        _, writer = await asyncio.open_connection(name, COMPUTE_LIBPQ_PORT, limit=READ_AHEAD_BYTES)
    except OSError:
        return None
    login, query = LONG_ANSWERS[stage.world.settings.compute]
    writer.write(encode_startup(Startup(login)))
    for _ in range(int(strike.number("times"))):
        writer.write(encode(Query(query)))

    async def hang_up() -> None:
        writer.transport.abort()

    try:
        await _wait_deaf(stage, writer)
    except BaseException:
        await hang_up()
        raise
    return hang_up


async def _wait_deaf(stage: Stage, writer: asyncio.StreamWriter) -> None:
    """Return once answers came that nobody reads, or would have come by now."""
    transport = writer.transport
    for _ in range(DEAF_POLLS_MAX):
        await stage.pass_time(DEAF_POLL_S)
        if transport.is_closing():
            return
        if isinstance(transport, asyncio.ReadTransport) and not transport.is_reading():
            stage.counts["compute.answers_unread"] += 1
            return


CLIENT_FAULTS = (
    Fault(
        name="cancelling_client",
        scope=Scope.COMPUTE,
        what="writes are cancelled while they wait for their commit",
        inverse="",
        effects=("compute.operations_cancelled",),
        draw=_draw_cancels,
        cause=_cancel,
        claims=claim_nothing,
    ),
    Fault(
        name="deaf_client",
        scope=Scope.COMPUTE,
        what="a client asks for much and reads nothing",
        inverse="hang up",
        effects=("compute.answers_unread",),
        draw=_draw_deaf,
        cause=_never_read,
        claims=claim_nothing,
    ),
)
