"""Ten thousand connections to real processes: what the registry and the kernel still know of them.

Clients dial the processes' own sockets, past the hub, as fast as they are answered.
"""

import asyncio
import os
import socket
import struct

import psutil
import pytest

from harness.errors import NotYet
from harness.topology import Topology
from harness.world import World
from storage.wire import messages as m
from storage.wire.codec import Connection
from storage.wire.states import Sender

CONNECTIONS = {"ps0": 10_000, "sk0": 2_000}
OTHER_DESCRIPTORS = 8
"""Connections to S3, etcd and peers come and go."""
SETTINGS = f"-c tenant_id={'1' * 32} -c timeline_id={'2' * 32}"
STARTUP = Connection(Sender.CLIENT).encode(m.Startup({"user": "u", "options": SETTINGS}))
SSL_REQUEST = Connection(Sender.CLIENT).encode(m.SslRequest())
RESET = struct.pack("ii", 1, 0)


def libpq_port(pid: int) -> int:
    """Of the sockets that a process listens on, the one that declines encryption."""
    listening = [
        each.laddr.port
        for each in psutil.Process(pid).net_connections(kind="tcp")
        if each.status == psutil.CONN_LISTEN
    ]
    for port in listening:
        with socket.create_connection(("127.0.0.1", port), timeout=5) as one:
            one.sendall(SSL_REQUEST)
            if one.recv(1) == b"N":
                return port
    raise AssertionError(f"none of {listening} speaks libpq")


def come_and_go(port: int, connections: int) -> None:
    """One after the other; some say nothing, some are reset, some ask for encryption only."""
    for number in range(connections):
        with socket.create_connection(("127.0.0.1", port), timeout=30) as one:
            match number % 4:
                case 0:
                    continue
                case 1:
                    one.sendall(SSL_REQUEST)
                case 2:
                    one.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
                    one.sendall(STARTUP)
                case _:
                    one.sendall(STARTUP)
            assert one.recv(1) in (b"N", b"R")


@pytest.mark.row("B1.leak", "B3.dropped", worlds=("real",))
def test_ten_thousand_connections_leave_tasks_and_descriptors_as_they_were(run_in):
    async def story(world: World) -> None:
        cluster = await world.start(Topology())
        endpoint = await cluster.endpoint("main")
        await endpoint.put(1, "before")
        for node in (cluster.pageserver(0), cluster.safekeeper(0)):
            pid = world.backend.pid(node.name)

            async def known(node=node, pid=pid) -> tuple[int, int]:
                tasks = [each for each in await node.tasks() if each["kind"] == "wire_connection"]
                return len(tasks), len(os.listdir(f"/proc/{pid}/fd"))

            before = await known()
            port = await asyncio.to_thread(libpq_port, pid)
            await asyncio.to_thread(come_and_go, port, CONNECTIONS[node.name])

            async def as_before(known=known, before=before) -> None:
                now = await known()
                if now[0] > before[0] or now[1] > before[1] + OTHER_DESCRIPTORS:
                    raise NotYet(f"(connections, descriptors) {before} became {now}")

            await world.eventually(as_before, what="everything is as before")
        assert await endpoint.get(1) == "before"

    run_in("real", story)
