"""The front ends are the same run twice: one digest per seed, under every ready-queue policy."""

from __future__ import annotations

import asyncio

import pytest

from sim.loop import LoopOptions, SimLoop
from sim.policy import POLICIES, Policy
from sim.run import run_on
from storage.http import server as http
from storage.http.client import HttpError, call
from storage.http.server import Api, Request
from storage.tests.wire_world import World, wire_world
from storage.wire.client import ServerError


async def _session(world: World, number: int) -> None:
    client = await world.connect()
    stream = await client.copy_both("echo")
    for size in (0, 1, 70_000, number):
        await stream.send(bytes(size))
        assert await stream.receive() == bytes(size)
    await stream.done()
    with pytest.raises(ServerError):
        await client.execute("bug")
    assert (await client.query(f"words {number}")).rows == [(str(number),)]
    if number % 2:
        await client.close()


async def _http(port: int, name: str) -> None:
    assert await call("GET", "ps0", port, f"/v1/echo/{name}") == name
    with pytest.raises(HttpError):
        await call("GET", "ps0", port, "/v1/nothing")


async def _echo(request: Request) -> str:
    return request.path["name"]


async def _program() -> None:
    """Sessions and requests side by side; the servers are closed while some sessions are open."""
    async with wire_world() as world:
        api = Api("x")
        api.add("GET", "/echo/{name}", _echo, summary="Echo")
        server = await http.serve(api, "ps0", 9898, world.registry)
        await asyncio.gather(
            *(_session(world, number) for number in range(8)),
            *(_http(9898, f"name{number}") for number in range(8)),
        )
        await server.close()


def digest(seed: int, policy: Policy) -> str:
    loop = SimLoop(seed, LoopOptions(policy=policy))
    run_on(loop, _program)
    return loop.trace.digest()


@pytest.mark.parametrize("name", sorted(POLICIES))
def test_same_seed_same_run_under_every_policy(name: str) -> None:
    digests = [digest(seed, POLICIES[name]) for seed in (1, 1, 2, 2)]
    assert digests[0] == digests[1]
    assert digests[2] == digests[3]
    assert digests[0] != digests[2]
